//! CEL: rules about the values of custom objects (`x-kubernetes-validations`), here, and expressions that stand for
//! themselves, in [`program`].
//!
//! The parser and the library of functions are those of the crates `cel` and `kube-cel`. Evaluation is our own ([`eval`]):
//! it works on the JSON as it is, takes types from the schema, and counts its steps, so that a rule that runs away is
//! stopped. What a rule says that can never be true of its schema is refused with the definition ([`types`]).
//!
//! Must never know: HTTP, the store, and where expressions come from.

mod authorizer;
mod budget;
mod build;
mod eval;
mod functions;
mod parse;
mod program;
mod types;
mod typing;
mod value;

use std::collections::HashMap;

use kube_cel::cel::parser::Expression;
use regex::Regex;
use serde_json::Value;

pub(super) use self::budget::Budget;
pub(crate) use self::{
    authorizer::{About, Question},
    program::{Authorizing, Evaluation, Given, Gives, Inputs, Names, Program, Trouble},
    typing::Sketch,
};
use self::{
    eval::{Evaluator, Failure},
    value::Val,
};
use super::{node::Node, path::FieldPath};
use crate::validation::faults::{Faults, Path};

/// What an expression about `self` gives, in the terms of the library: for comparing with the library's own interpreter, which
/// nothing that is served can show.
///
/// # Errors
/// Why it gives nothing, in words.
pub fn evaluate(text: &str, this: &Value) -> Result<kube_cel::cel::Value, String> {
    let expression = parse::parse(text)?;
    let patterns = parse::patterns(&expression)?;
    let budget = Budget::of_object();
    budget.begin_rule();
    let mut evaluator = Evaluator::new(&budget, &patterns);
    evaluator.bind("self", Val::of(this, None));
    let value = evaluator.evaluate(&expression).and_then(|value| Ok(value.to_cel(&budget)?));
    value.map_err(|failure| match failure {
        Failure::Error(why) => why,
        Failure::Spent => "the budget is used up".to_owned(),
    })
}

/// Reasons that a rule may give.
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// One rule at one place of a schema.
#[derive(Debug)]
pub(super) struct Rule {
    text: String,
    expression: Expression,
    /// Patterns that the rule writes out, compiled.
    patterns: HashMap<String, Regex>,
    message: Option<String>,
    message_expression: Option<Expression>,
    reason: Option<String>,
    /// Field below the place that a fault is told about.
    field: Option<FieldPath>,
    /// Whether it compares with the object as it was.
    compares: bool,
    /// Whether `oldSelf` is an optional value, so that the rule holds for new objects, too.
    optional_old: bool,
}

impl Rule {
    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the rule is about a change.
    pub fn looks_back(&self) -> bool {
        self.compares
    }
}

/// Compiles the rules at a place.
pub(super) fn compile(schema: &Value, node: &Node, path: &Path<'_>, faults: &mut Faults) -> Vec<Rule> {
    let at = path.field("x-kubernetes-validations");
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten().enumerate();
    rules.filter_map(|(index, rule)| compile_one(rule, schema, node, &at.item(index), faults)).collect()
}

fn compile_one(
    rule: &Value,
    schema: &Value,
    node: &Node,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<Rule> {
    let text = |field: &str| rule[field].as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned);
    let before = faults.count();
    let optional_old = rule["optionalOldSelf"] == true;
    let Some(source) = text("rule") else {
        faults.required(&path.field("rule"), "");
        return None;
    };
    let mut parsed = |field: &'static str, source: &str, wanted: types::Wanted| {
        let checked = parse::parse(source).and_then(|expression| {
            types::check(&expression, node, optional_old, wanted).map(|()| expression)
        });
        checked
            .map_err(|why| {
                faults.invalid_text(&path.field(field), source, format_args!("compilation failed: {why}"));
            })
            .ok()
    };
    let expression = parsed("rule", &source, types::Wanted::Bool)?;
    let message_expression = match text("messageExpression") {
        Some(source) => Some(parsed("messageExpression", &source, types::Wanted::Text)?),
        None => None,
    };
    let patterns = parse::patterns(&expression).unwrap_or_else(|why| {
        faults.invalid_text(&path.field("rule"), &source, format_args!("compilation failed: {why}"));
        HashMap::new()
    });
    if !rule["reason"].is_null() && !REASONS.iter().any(|reason| rule["reason"] == *reason) {
        faults.unsupported(&path.field("reason"), &rule["reason"], &REASONS);
    }
    if let Some(message) = text("message").filter(|message| message.contains('\n')) {
        faults.invalid_text(&path.field("message"), &message, "message must not contain line breaks");
    }
    let field = field_of(rule, schema, path, faults);
    (faults.count() == before).then(|| Rule {
        compares: parse::names(&expression, "oldSelf"),
        text: source,
        expression,
        patterns,
        message: text("message").map(|message| message.trim().to_owned()),
        message_expression,
        reason: text("reason"),
        field,
        optional_old,
    })
}

fn field_of(rule: &Value, schema: &Value, path: &Path<'_>, faults: &mut Faults) -> Option<FieldPath> {
    let text = rule["fieldPath"].as_str().filter(|text| !text.is_empty())?;
    let found = FieldPath::parse(text);
    if found.as_ref().and_then(|field| field.in_schema(schema)).is_none() {
        let why = "fieldPath must be a valid path: a field of the schema below the rule";
        faults.invalid(&path.field("fieldPath"), &rule["fieldPath"], why);
    }
    found
}

/// Holds a value against the rules at its place.
pub(super) fn judge(
    node: &Node,
    old: Option<&Value>,
    new: &Value,
    path: &Path<'_>,
    budget: &Budget,
    faults: &mut Faults,
) {
    let unchanged = old == Some(new);
    for rule in &node.rules {
        let applies = if rule.compares { old.is_some() || rule.optional_old } else { !unchanged };
        if applies && !budget.is_spent() {
            rule.judge(node, old, new, path, budget, faults);
        }
    }
}

impl Rule {
    fn judge(
        &self,
        node: &Node,
        old: Option<&Value>,
        new: &Value,
        path: &Path<'_>,
        budget: &Budget,
        faults: &mut Faults,
    ) {
        let evaluator = || {
            let past = old.map(|old| Val::of(old, Some(node)));
            let past = if self.optional_old { Some(Val::optional(past)) } else { past };
            let mut evaluator = Evaluator::new(budget, &self.patterns);
            evaluator.bind("self", Val::of(new, Some(node)));
            past.into_iter().for_each(|past| evaluator.bind("oldSelf", past));
            evaluator
        };
        budget.begin_rule();
        let outcome = evaluator().evaluate(&self.expression);
        match outcome {
            Ok(Val::Bool(true)) => {}
            Ok(Val::Bool(false)) => {
                let message = self.message(|expression| evaluator().evaluate(expression).ok());
                self.fault(node, path, &message, faults);
            }
            Ok(_) => self.fault(node, path, &self.error("it gave no bool"), faults),
            Err(Failure::Error(why)) => self.fault(node, path, &self.error(&why), faults),
            Err(Failure::Spent) => {
                let why = format!("call cost exceeds limit for rule: {}", self.text);
                self.fault(node, path, &format!("validation failed due to running out of cost budget, no further validation rules will be run: {why}"), faults);
                budget.spend_all();
            }
        }
    }

    fn error(&self, why: &str) -> String {
        format!("rule evaluation error: {why} evaluating rule: {}", self.text)
    }

    fn message<'a>(&self, evaluate: impl FnOnce(&Expression) -> Option<Val<'a>>) -> String {
        let computed = self.message_expression.as_ref().and_then(evaluate);
        let computed = computed.as_ref().and_then(Val::as_text).map(str::trim);
        let usable = computed.filter(|text| !text.is_empty() && !text.contains('\n'));
        let given = usable.map(str::to_owned).or_else(|| self.message.clone());
        given.unwrap_or_else(|| format!("failed rule: {}", self.text))
    }

    fn fault(&self, node: &Node, path: &Path<'_>, why: &str, faults: &mut Faults) {
        let names: &[String] = self.field.as_ref().map(FieldPath::names).unwrap_or_default();
        let shown = node.ty.map_or("object", super::node::Type::name);
        let reason = self.reason.as_deref().unwrap_or("FieldValueInvalid");
        at(path, names, &mut |path| {
            let message = match reason {
                "FieldValueRequired" => format!("Required value: {why}"),
                "FieldValueForbidden" => format!("Forbidden: {why}"),
                "FieldValueDuplicate" => format!("Duplicate value: \"{shown}\""),
                _ => format!("Invalid value: \"{shown}\": {why}"),
            };
            faults.other(reason, path, message);
        });
    }
}

/// Calls with the path below another.
fn at(path: &Path<'_>, names: &[String], call: &mut dyn FnMut(&Path<'_>)) {
    match names.split_first() {
        Some((name, rest)) => at(&path.field(name), rest, call),
        None => call(path),
    }
}

#[cfg(test)]
mod tests;
