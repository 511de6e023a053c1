//! Admission policies: expressions in CEL that objects must comply with, and the bindings that put them into force.
//!
//! Source: the Kubernetes documentation "Validating Admission Policy". A policy without a binding does nothing.

use claw_schemas::{selector::LabelSelector, status::Reason};
use serde_json::Value;

use super::{Conditions, Matching, Met, matching};
use crate::custom::cel::{Evaluation, Given, Gives, Inputs, Names, Program};

/// Longest message that an expression may give. Upstream's figure.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// What objects must comply with.
pub(crate) struct Policy {
    pub name: String,
    pub matching: Matching,
    /// The kind of its parameters: `apiVersion` and `kind`.
    pub parameters: Option<(String, String)>,
    /// Whether it counts as a yes when it cannot be judged.
    pub ignores_failures: bool,
    conditions: Conditions,
    variables: Vec<(String, Program)>,
    validations: Vec<Validation>,
    /// Key and value.
    annotations: Vec<(String, Program)>,
    /// Why it cannot be judged, where it was stored by somebody who did not compile it.
    broken: Option<String>,
}

struct Validation {
    expression: Program,
    message: Option<String>,
    message_expression: Option<Program>,
    reason: Reason,
}

/// What puts a policy into force.
pub(crate) struct Binding {
    pub name: String,
    pub policy: String,
    /// `None` for all that the policy is about.
    pub matching: Option<Matching>,
    pub parameters: Option<Reference>,
    pub denies: bool,
    pub warns: bool,
    pub audits: bool,
}

/// Which parameters a binding means.
pub(crate) struct Reference {
    /// Without one they are selected.
    pub name: Option<String>,
    pub namespace: Option<String>,
    pub selector: LabelSelector,
    /// Whether it is a failure when there are none.
    pub must_be: bool,
}

/// What an object does not comply with.
#[derive(Debug, PartialEq)]
pub(crate) struct Refusal {
    pub message: String,
    pub reason: Reason,
}

/// What a policy says about a request.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Judgement {
    pub refusals: Vec<Refusal>,
    /// Key and value, for the log.
    pub annotations: Vec<(String, String)>,
    /// Why there is no value, where that is a failure: refusals whatever the binding wants.
    pub troubles: Vec<Refusal>,
}

impl Refusal {
    /// What is wrong with a policy, not with an object.
    pub fn failed(message: String) -> Self {
        Self { message, reason: Reason::Invalid }
    }
}

impl Policy {
    pub fn new(object: &Value) -> Self {
        let spec = &object["spec"];
        let kind = &spec["paramKind"];
        let mut names = Names::of_policies(!kind.is_null());
        let variables = compiled_variables(&spec["variables"], &mut names);
        let validations = list(&spec["validations"]).map(|one| Validation::new(one, &names));
        let validations = validations.collect::<Result<Vec<_>, _>>();
        let annotation = |one: &Value| {
            let program = Program::compile(
                text(&one["valueExpression"]),
                &names.clone().without_authorizer(),
                Gives::TextOrNull,
            );
            Ok((text(&one["key"]).to_owned(), program?))
        };
        let annotations = list(&spec["auditAnnotations"]).map(annotation).collect::<Result<Vec<_>, String>>();
        let troubles = [variables.as_ref().err(), validations.as_ref().err(), annotations.as_ref().err()];
        let broken = troubles.into_iter().flatten().next().cloned();
        Self {
            name: text(&object["metadata"]["name"]).to_owned(),
            matching: Matching::of_policy(&spec["matchConstraints"]),
            parameters: kind
                .is_object()
                .then(|| (text(&kind["apiVersion"]).to_owned(), text(&kind["kind"]).to_owned())),
            ignores_failures: spec["failurePolicy"] == "Ignore",
            conditions: Conditions::of(&spec["matchConditions"], &Names::of_policies(!kind.is_null())),
            variables: variables.unwrap_or_default(),
            validations: validations.unwrap_or_default(),
            annotations: annotations.unwrap_or_default(),
            broken,
        }
    }

    /// Holds a request against it.
    pub fn judge(&self, inputs: Inputs<'_>) -> Judgement {
        let mut judgement = Judgement::default();
        let failed = |why: String| (!self.ignores_failures).then(|| Refusal::failed(why));
        if let Some(why) = &self.broken {
            judgement.refusals.extend(failed(format!("compilation failed: {why}")));
            return judgement;
        }
        match self.conditions.met(&Evaluation::new(inputs, &[])) {
            Met::Yes => {}
            Met::No => return judgement,
            Met::Unclear(why) => {
                judgement.refusals.extend(failed(why));
                return judgement;
            }
        }
        let evaluation = Evaluation::new(inputs, &self.variables);
        for validation in &self.validations {
            match evaluation.evaluate(&validation.expression) {
                Ok(Given::Bool(true)) => {}
                Ok(_) => judgement.refusals.push(validation.refusal(&evaluation)),
                Err(trouble) => judgement.refusals.extend(failed(trouble.to_string())),
            }
        }
        for (key, program) in &self.annotations {
            match evaluation.evaluate(program) {
                Ok(Given::Text(value)) if !value.trim().is_empty() => {
                    judgement.annotations.push((key.clone(), value.trim().to_owned()));
                }
                Ok(Given::Text(_) | Given::Null) => {}
                Ok(_) => judgement.troubles.extend(failed(format!(
                    "valueExpression '{}' must give a string or null",
                    program.text()
                ))),
                Err(trouble) => judgement.troubles.extend(failed(trouble.to_string())),
            }
        }
        judgement
    }
}

impl Validation {
    fn new(declared: &Value, names: &Names) -> Result<Self, String> {
        let message_expression = match text(&declared["messageExpression"]) {
            "" => None,
            source => Some(Program::compile(source, &names.clone().without_authorizer(), Gives::Text)?),
        };
        let reason = serde_json::from_value(declared["reason"].clone());
        Ok(Self {
            expression: Program::compile(text(&declared["expression"]), names, Gives::Bool)?,
            message: Some(text(&declared["message"]).trim().to_owned()).filter(|text| !text.is_empty()),
            message_expression,
            reason: reason.unwrap_or(Reason::Invalid),
        })
    }

    fn refusal(&self, evaluation: &Evaluation<'_, '_>) -> Refusal {
        let given = self.message_expression.as_ref().and_then(|program| match evaluation.evaluate(program) {
            Ok(Given::Text(text)) => Some(text.trim().to_owned()),
            _ => None,
        });
        let given = given
            .filter(|text| !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n'))
            .or_else(|| self.message.clone());
        let message = given.unwrap_or_else(|| format!("failed expression: {}", self.expression.text()));
        Refusal { message, reason: self.reason }
    }
}

impl Binding {
    pub fn new(object: &Value) -> Self {
        let spec = &object["spec"];
        let does = |action: &str| list(&spec["validationActions"]).any(|one| one == action);
        let matched = &spec["matchResources"];
        Self {
            name: text(&object["metadata"]["name"]).to_owned(),
            policy: text(&spec["policyName"]).to_owned(),
            matching: matched.is_object().then(|| Matching::of_policy(matched)),
            parameters: spec["paramRef"].is_object().then(|| Reference::new(&spec["paramRef"])),
            denies: does("Deny"),
            warns: does("Warn"),
            audits: does("Audit"),
        }
    }
}

impl Reference {
    fn new(declared: &Value) -> Self {
        let given = |field: &str| Some(text(&declared[field]).to_owned()).filter(|text| !text.is_empty());
        Self {
            name: given("name"),
            namespace: given("namespace"),
            selector: matching::selector(&declared["selector"]),
            must_be: declared["parameterNotFoundAction"] == "Deny",
        }
    }
}

fn compiled_variables(declared: &Value, names: &mut Names) -> Result<Vec<(String, Program)>, String> {
    let mut compiled = Vec::new();
    for one in list(declared) {
        let name = text(&one["name"]);
        compiled.push((name.to_owned(), Program::variable(name, text(&one["expression"]), names)?));
    }
    Ok(compiled)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::custom::cel::{Authorizing, Question};

    struct Nobody;

    impl Authorizing for Nobody {
        fn decide(&self, _: &Question, verb: &str) -> (bool, String) {
            (verb == "get", format!("about {verb}"))
        }
    }

    fn judged(spec: &Value, object: &Value) -> Judgement {
        let (null, request) =
            (Value::Null, json!({"name": "x", "resource": {"group": "", "resource": "pods"}}));
        let inputs = Inputs {
            object,
            old: &null,
            request: &request,
            params: &null,
            namespace: &null,
            authorizer: &Nobody,
        };
        Policy::new(&json!({"metadata": {"name": "p"}, "spec": spec})).judge(inputs)
    }

    fn messages(judgement: &Judgement) -> Vec<&str> {
        judgement.refusals.iter().map(|refusal| refusal.message.as_str()).collect()
    }

    #[test]
    fn a_message_is_computed_or_given_or_the_expression() {
        let validations = json!([
            {"expression": "object.n > 1", "messageExpression": "'n is ' + string(object.n)", "message": "small"},
            {"expression": "object.n > 1", "messageExpression": "object.missing", "message": " small "},
            {"expression": " object.n > 1 "},
            {"expression": "object.n == 1"},
        ]);
        let judgement = judged(&json!({"validations": validations}), &json!({"n": 1}));
        assert_eq!(messages(&judgement), ["n is 1", "small", "failed expression: object.n > 1"]);
    }

    #[test]
    fn variables_use_those_before_them_and_fail_only_where_they_are_used() {
        let spec = json!({
            "variables": [
                {"name": "bad", "expression": "object.missing"},
                {"name": "one", "expression": "object.n"},
                {"name": "two", "expression": "variables.one + 1"},
            ],
            "validations": [{"expression": "variables.two == 2"}, {"expression": "variables.bad == 1"}],
        });
        let judgement = judged(&spec, &json!({"n": 1}));
        assert_eq!(
            messages(&judgement),
            ["expression 'variables.bad == 1' resulted in error: no such key: missing"]
        );
        let ignored = json!({"failurePolicy": "Ignore", "validations": spec["validations"], "variables": spec["variables"]});
        assert_eq!(judged(&ignored, &json!({"n": 1})), Judgement::default());
    }

    #[test]
    fn expressions_ask_what_somebody_may_do() {
        let validations = json!([
            {"expression": "authorizer.group('').resource('pods').namespace('a').check('get').allowed()"},
            {"expression": "authorizer.requestResource.check('delete').allowed()"},
            {"expression": "authorizer.path('/x').check('get').reason() == 'about get'"},
            {"expression": "authorizer.serviceAccount('a', 'b').group('').resource('pods').check('get').errored()"},
        ]);
        let judgement = judged(&json!({"validations": validations}), &json!({}));
        assert_eq!(judgement.refusals.len(), 2, "{judgement:?}");
        assert!(messages(&judgement)[0].contains("requestResource"));
    }

    #[test]
    fn work_without_end_is_a_failure() {
        let numbers: Vec<u32> = (0..2000).collect();
        let spec = json!({"validations": [{"expression": "object.all(a, object.all(b, object.all(c, a + b + c >= 0)))"}]});
        let judgement = judged(&spec, &json!(numbers));
        assert!(messages(&judgement)[0].contains("running out of cost budget"), "{judgement:?}");
    }

    #[test]
    fn annotations_are_texts_or_nothing() {
        let spec = json!({"auditAnnotations": [
            {"key": "a", "valueExpression": "'n: ' + string(object.n)"},
            {"key": "b", "valueExpression": "null"},
            {"key": "c", "valueExpression": "object.missing"},
        ]});
        let judgement = judged(&spec, &json!({"n": 1}));
        assert_eq!(judgement.annotations, [("a".to_owned(), "n: 1".to_owned())]);
        assert_eq!(judgement.troubles.len(), 1);
    }
}
