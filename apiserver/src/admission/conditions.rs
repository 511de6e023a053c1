//! `matchConditions`: expressions in CEL that must all hold before somebody is asked.

use serde_json::Value;

use crate::{
    custom::cel::{Evaluation, Given, Gives, Names, Program},
    validation::faults::{Faults, Path},
};

/// Compiled conditions.
pub(crate) struct Conditions {
    /// Why they cannot be judged, where they were stored by somebody who did not compile them.
    all: Result<Vec<Program>, String>,
}

/// Whether conditions hold.
#[derive(Debug, PartialEq)]
pub(crate) enum Met {
    Yes,
    No,
    /// Nobody knows; why.
    Unclear(String),
}

impl Conditions {
    /// Of a list that has been validated.
    pub fn of(declared: &Value, names: &Names) -> Self {
        let expressions = declared.as_array().into_iter().flatten();
        let expressions = expressions.map(|one| one["expression"].as_str().unwrap_or_default());
        Self { all: expressions.map(|text| Program::compile(text, names, Gives::Bool)).collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.all.as_ref().is_ok_and(Vec::is_empty)
    }

    /// One that does not hold decides, whatever is wrong with others.
    pub fn met(&self, evaluation: &Evaluation<'_, '_>) -> Met {
        let all = match &self.all {
            Ok(all) => all,
            Err(why) => return Met::Unclear(format!("compilation failed: {why}")),
        };
        let mut troubles = Vec::new();
        for program in all {
            match evaluation.evaluate(program) {
                Ok(Given::Bool(true)) => {}
                Ok(Given::Bool(false)) => return Met::No,
                Ok(_) => troubles.push(format!("expression '{}' gave no bool", program.text())),
                Err(trouble) => troubles.push(trouble.to_string()),
            }
        }
        match troubles.as_slice() {
            [] => Met::Yes,
            [one] => Met::Unclear(one.clone()),
            many => Met::Unclear(format!("[{}]", many.join(", "))),
        }
    }
}

/// Judges an expression that is about to be stored.
pub(crate) fn judge(text: &str, names: &Names, gives: Gives, path: &Path<'_>, faults: &mut Faults) {
    if text.trim().is_empty() {
        return;
    }
    if let Err(why) = Program::compile(text, names, gives) {
        faults.invalid_text(path, text, format_args!("compilation failed: {why}"));
    }
}
