//! `matchConditions`: expressions in CEL that must all hold before somebody is asked.

use serde_json::Value;

use crate::{
    custom::cel::{Evaluation, Given, Gives, Inputs, Names, Program},
    validation::faults::{Faults, Path},
};

/// Compiled conditions.
pub(crate) struct Conditions {
    /// Why they cannot be judged, where they were stored by somebody who did not compile them.
    all: Result<Vec<Program>, String>,
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

    /// Whether they hold. One that does not decides, whatever is wrong with others.
    ///
    /// # Errors
    /// Why nobody knows.
    pub fn hold(&self, inputs: Inputs<'_>) -> Result<bool, String> {
        let all = self.all.as_ref().map_err(|why| format!("compilation failed: {why}"))?;
        let evaluation = Evaluation::new(inputs, &[]);
        let mut troubles = Vec::new();
        for program in all {
            match evaluation.evaluate(program) {
                Ok(Given::Bool(true)) => {}
                Ok(Given::Bool(false)) => return Ok(false),
                Ok(_) => troubles.push(format!("expression '{}' gave no bool", program.text())),
                Err(trouble) => troubles.push(trouble.to_string()),
            }
        }
        match troubles.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
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
