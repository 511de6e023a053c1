//! Validating admission policies: expressions in CEL that objects must comply with.
//!
//! Source: the Kubernetes documentation "Validating Admission Policy".

use std::time::{Duration, Instant};

use claw_schemas::status::Reason;
use serde_json::Value;

use super::{
    Frame,
    frame::{list, text},
};
use crate::{
    custom::cel::{Evaluation, Given, Gives, Inputs, Names, Program, Trouble},
    metrics::Outcome,
};

/// Longest message that an expression may give. Upstream's figure.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// What objects must comply with.
pub(crate) struct Policy {
    pub frame: Frame,
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

/// What an object does not comply with.
#[derive(Debug, PartialEq)]
pub(crate) struct Refusal {
    pub message: String,
    pub reason: Reason,
    /// What came of the expression, and how long it took.
    pub outcome: Outcome,
    pub took: Duration,
}

/// What a policy says about a request.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Judgement {
    pub refusals: Vec<Refusal>,
    /// Key and value, for the log.
    pub annotations: Vec<(String, String)>,
    /// Why there is no value, where that is a failure: refusals whatever the binding wants.
    pub troubles: Vec<Refusal>,
    /// The same, where it is none.
    pub ignored: Vec<Refusal>,
}

impl Refusal {
    /// What is wrong with a policy, not with an object.
    pub fn failed(message: String, outcome: Outcome, took: Duration) -> Self {
        Self { message, reason: Reason::Invalid, outcome, took }
    }

    /// An expression without a value.
    fn without_value(trouble: &Trouble, took: Duration) -> Self {
        let outcome = match trouble {
            Trouble::Spent => Outcome::Spent,
            Trouble::Error(_) => Outcome::Failed,
        };
        Self::failed(trouble.to_string(), outcome, took)
    }
}

impl Policy {
    pub fn new(object: &Value) -> Self {
        let spec = &object["spec"];
        let (frame, names, broken) = Frame::new(object);
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
        let troubles = [validations.as_ref().err(), annotations.as_ref().err()];
        let broken = broken.or_else(|| troubles.into_iter().flatten().next().cloned());
        let (validations, annotations) = (validations.unwrap_or_default(), annotations.unwrap_or_default());
        Self { frame, validations, annotations, broken }
    }

    /// Holds a request against it.
    pub fn judge(&self, inputs: Inputs<'_>) -> Judgement {
        let begun = Instant::now();
        let mut judgement = self.judged(inputs, begun);
        if self.frame.ignores_failures {
            let (refusals, ignored) =
                judgement.refusals.into_iter().partition(|refusal| refusal.outcome == Outcome::Fine);
            (judgement.refusals, judgement.ignored) = (refusals, ignored);
            judgement.ignored.append(&mut judgement.troubles);
        }
        judgement
    }

    fn judged(&self, inputs: Inputs<'_>, begun: Instant) -> Judgement {
        let mut judgement = Judgement::default();
        if let Some(why) = &self.broken {
            let why = format!("compilation failed: {why}");
            judgement.refusals.push(Refusal::failed(why, Outcome::Uncompiled, begun.elapsed()));
            return judgement;
        }
        match self.frame.conditions.hold(inputs) {
            Ok(true) => {}
            Ok(false) => return judgement,
            Err(why) => {
                judgement.refusals.push(Refusal::failed(why, Outcome::Failed, begun.elapsed()));
                return judgement;
            }
        }
        let evaluation = self.frame.evaluation(inputs);
        for validation in &self.validations {
            let begun = Instant::now();
            match evaluation.evaluate(&validation.expression) {
                Ok(Given::Bool(true)) => {}
                Ok(_) => judgement.refusals.push(validation.refusal(&evaluation, begun)),
                Err(trouble) => {
                    judgement.refusals.push(Refusal::without_value(&trouble, begun.elapsed()));
                }
            }
        }
        for (key, program) in &self.annotations {
            let begun = Instant::now();
            match evaluation.evaluate(program) {
                Ok(Given::Text(value)) if !value.trim().is_empty() => {
                    judgement.annotations.push((key.clone(), value.trim().to_owned()));
                }
                Ok(Given::Text(_) | Given::Null) => {}
                Ok(_) => {
                    let why = format!("valueExpression '{}' must give a string or null", program.text());
                    judgement.troubles.push(Refusal::failed(why, Outcome::Failed, begun.elapsed()));
                }
                Err(trouble) => {
                    judgement.troubles.push(Refusal::without_value(&trouble, begun.elapsed()));
                }
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

    fn refusal(&self, evaluation: &Evaluation<'_, '_>, begun: Instant) -> Refusal {
        let given = self.message_expression.as_ref().and_then(|program| match evaluation.evaluate(program) {
            Ok(Given::Text(text)) => Some(text.trim().to_owned()),
            _ => None,
        });
        let given = given
            .filter(|text| !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n'))
            .or_else(|| self.message.clone());
        let message = given.unwrap_or_else(|| format!("failed expression: {}", self.expression.text()));
        Refusal { message, reason: self.reason, outcome: Outcome::Fine, took: begun.elapsed() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::custom::cel::{About, Authorizing, Question};

    struct Nobody;

    impl Authorizing for Nobody {
        fn decide(&self, question: &Question, verb: &str) -> (bool, String) {
            let About::Resource { fields, .. } = &question.about else {
                return (verb == "get", format!("about {verb}"));
            };
            (verb == "get" || fields == "spec.nodeName=n1", format!("about {verb}"))
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
        let judgement = judged(&ignored, &json!({"n": 1}));
        assert_eq!((judgement.refusals, judgement.ignored.len()), (Vec::new(), 1));
    }

    #[test]
    fn expressions_ask_what_somebody_may_do() {
        let validations = json!([
            {"expression": "authorizer.group('').resource('pods').namespace('a').check('get').allowed()"},
            {"expression": "authorizer.requestResource.check('delete').allowed()"},
            {"expression": "authorizer.path('/x').check('get').reason() == 'about get'"},
            {"expression": "authorizer.serviceAccount('a', 'b').group('').resource('pods').check('get').errored()"},
            {"expression": "authorizer.group('').resource('pods').labelSelector('a=b').fieldSelector('spec.nodeName=n1').check('list').allowed()"},
            {"expression": "authorizer.group('').resource('pods').fieldSelector('spec.nodeName=n2').check('list').allowed()"},
        ]);
        let judgement = judged(&json!({"validations": validations}), &json!({}));
        assert_eq!(judgement.refusals.len(), 3, "{judgement:?}");
        assert!(messages(&judgement)[2].contains("n2"));
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
