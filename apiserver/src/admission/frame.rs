//! What admission policies of either kind have in common: what they are about, and the bindings that put them into force.
//!
//! A policy without a binding does nothing.

use claw_schemas::selector::LabelSelector;
use serde_json::Value;

use super::{Conditions, Matching, matching};
use crate::custom::cel::{Evaluation, Inputs, Names, Program};

/// A policy but for what it wants.
pub(crate) struct Frame {
    pub name: String,
    pub matching: Matching,
    /// The kind of its parameters: `apiVersion` and `kind`.
    pub parameters: Option<(String, String)>,
    /// Whether it is passed over when it cannot be judged.
    pub ignores_failures: bool,
    pub conditions: Conditions,
    variables: Vec<(String, Program)>,
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

impl Frame {
    /// The frame, and the names that the expressions in it know, its variables among them. A variable that does not compile,
    /// because it was stored by somebody who did not look, makes the whole policy useless: then it is said why.
    pub fn new(object: &Value) -> (Self, Names, Option<String>) {
        let spec = &object["spec"];
        let kind = &spec["paramKind"];
        let mut names = Names::of_policies(!kind.is_null());
        let conditions = Conditions::of(&spec["matchConditions"], &names);
        let variables = compiled_variables(&spec["variables"], &mut names);
        let broken = variables.as_ref().err().cloned();
        let frame = Self {
            name: text(&object["metadata"]["name"]).to_owned(),
            matching: Matching::of_policy(&spec["matchConstraints"]),
            parameters: kind
                .is_object()
                .then(|| (text(&kind["apiVersion"]).to_owned(), text(&kind["kind"]).to_owned())),
            ignores_failures: spec["failurePolicy"] == "Ignore",
            conditions,
            variables: variables.unwrap_or_default(),
        };
        (frame, names, broken)
    }

    /// An evaluation in which expressions have the variables.
    pub fn evaluation<'a>(&self, inputs: Inputs<'a>) -> Evaluation<'a, '_> {
        Evaluation::new(inputs, &self.variables)
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

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
