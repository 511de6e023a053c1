//! How much work an expression can make, told from its text alone: the library's interpreter counts nothing and cannot be
//! stopped, so what may run for long is not begun.
//!
//! A value weighs as many units as it has parts and bytes; a step costs what it looks at. Loops can only be those of the
//! macros, whose results grow by one step's weight each time, so the sums are bounds.

use std::collections::HashMap;

use kube_cel::cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue};

/// Of one expression about one device: some milliseconds at worst. What people write stays below 3,000.
pub(super) const UNITS_MAX: u64 = 20_000;

/// Levels of an expression: the interpreter recurses.
const DEPTH_MAX: usize = 64;

/// What a device weighs: attributes and capacities number 32, and have names and values of 64 bytes.
const DEVICE_WEIGHT: u64 = 2048;
/// A value of an attribute.
const LEAF_WEIGHT: u64 = 64;
/// Compiling a pattern.
const PATTERN_UNITS: u64 = 500;

/// What can be called, beside operators: nothing whose result outgrows what it is given.
const FUNCTIONS: [&str; 32] = [
    "add",
    "asApproximateFloat",
    "asInteger",
    "bool",
    "compareTo",
    "contains",
    "double",
    "endsWith",
    "hasValue",
    "indexOf",
    "int",
    "isGreaterThan",
    "isInteger",
    "isLessThan",
    "isQuantity",
    "isSemver",
    "lowerAscii",
    "major",
    "matches",
    "minor",
    "orValue",
    "patch",
    "quantity",
    "semver",
    "sign",
    "size",
    "startsWith",
    "string",
    "sub",
    "substring",
    "trim",
    "upperAscii",
];

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    cost: u64,
    weight: u64,
}

/// Refuses an expression that may cost too much, or says what is not known here.
pub(super) fn check(expression: &IdedExpr) -> Result<(), String> {
    let mut scope = HashMap::from([("device".to_owned(), DEVICE_WEIGHT)]);
    let sum = sum(expression, &mut scope, 0)?;
    if sum.cost > UNITS_MAX {
        return Err(format!("it may cost {} units, the limit is {UNITS_MAX}", sum.cost));
    }
    Ok(())
}

type Scope = HashMap<String, u64>;

fn sum(expression: &IdedExpr, scope: &mut Scope, depth: usize) -> Result<Sum, String> {
    if depth > DEPTH_MAX {
        return Err(format!("it nests deeper than {DEPTH_MAX} levels"));
    }
    let depth = depth + 1;
    match &expression.expr {
        Expr::Unspecified => Err("it is empty".to_owned()),
        Expr::Struct(made) => Err(format!("undeclared reference to '{}' (in container '')", made.type_name)),
        Expr::Ident(name) => match scope.get(name) {
            Some(weight) => Ok(Sum { cost: 1, weight: *weight }),
            None => Err(format!("undeclared reference to '{name}' (in container '')")),
        },
        Expr::Literal(literal) => Ok(Sum { cost: 1, weight: weight_of(literal) }),
        Expr::Select(select) => {
            let inner = sum(&select.operand, scope, depth)?;
            Ok(Sum { cost: inner.cost.saturating_add(1), weight: part_of(inner.weight) })
        }
        Expr::List(list) => all(list.elements.iter(), scope, depth),
        Expr::Map(map) => all(map.entries.iter().flat_map(parts), scope, depth),
        Expr::Call(call) => {
            let args = all(call.target.as_deref().into_iter().chain(&call.args), scope, depth)?;
            called(&call.func_name, args)
        }
        Expr::Comprehension(inner) => looped(inner, scope, depth),
    }
}

fn called(name: &str, args: Sum) -> Result<Sum, String> {
    let is_operator = name.starts_with(['_', '!', '@', '-']);
    if !is_operator && !FUNCTIONS.contains(&name) {
        return Err(format!("undeclared reference to '{name}' (in container '')"));
    }
    let extra = if name == "matches" { PATTERN_UNITS } else { 0 };
    let cost = args.cost.saturating_add(args.weight).saturating_add(extra);
    let weight = match name {
        "_[_]" | "_[?_]" | "_?._" => part_of(args.weight),
        _ => args.weight.saturating_add(1),
    };
    // Looking something up costs no more than the key.
    let cost = if matches!(name, "_[_]" | "_[?_]" | "_?._") { args.cost.saturating_add(1) } else { cost };
    Ok(Sum { cost, weight })
}

fn looped(inner: &ComprehensionExpr, scope: &mut Scope, depth: usize) -> Result<Sum, String> {
    if inner.iter_var2.is_some() {
        return Err("macros with two variables are not supported".to_owned());
    }
    let range = sum(&inner.iter_range, scope, depth)?;
    let start = sum(&inner.accu_init, scope, depth)?;
    let turns = range.weight;
    // What one turn adds, and then what it costs with all of that there.
    let hidden = [scope.remove(&inner.iter_var), scope.remove(&inner.accu_var)];
    scope.insert(inner.iter_var.clone(), part_of(range.weight));
    scope.insert(inner.accu_var.clone(), 0);
    let grows = sum(&inner.loop_step, scope, depth)?.weight;
    let whole = start.weight.saturating_add(turns.saturating_mul(grows));
    scope.insert(inner.accu_var.clone(), whole);
    let (goes_on, step) = (sum(&inner.loop_cond, scope, depth)?, sum(&inner.loop_step, scope, depth)?);
    let result = sum(&inner.result, scope, depth)?;
    for (name, weight) in [&inner.iter_var, &inner.accu_var].into_iter().zip(hidden) {
        match weight {
            Some(weight) => scope.insert(name.clone(), weight),
            None => scope.remove(name),
        };
    }
    let turn = goes_on.cost.saturating_add(step.cost);
    let cost = [range.cost, start.cost, turns.saturating_mul(turn), result.cost];
    Ok(Sum { cost: cost.into_iter().fold(0, u64::saturating_add), weight: result.weight })
}

fn all<'a>(
    expressions: impl Iterator<Item = &'a IdedExpr>,
    scope: &mut Scope,
    depth: usize,
) -> Result<Sum, String> {
    let mut total = Sum { cost: 1, weight: 1 };
    for expression in expressions {
        let one = sum(expression, scope, depth)?;
        total.cost = total.cost.saturating_add(one.cost);
        total.weight = total.weight.saturating_add(one.weight);
    }
    Ok(total)
}

fn parts(entry: &IdedEntryExpr) -> Vec<&IdedExpr> {
    match &entry.expr {
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        EntryExpr::StructField(field) => vec![&field.value],
    }
}

/// What is inside of something weighs less, down to a single value.
fn part_of(weight: u64) -> u64 {
    weight.min((weight / 4).max(LEAF_WEIGHT))
}

fn weight_of(literal: &LiteralValue) -> u64 {
    match literal {
        LiteralValue::String(text) => 1 + text.inner().len() as u64,
        LiteralValue::Bytes(bytes) => 1 + bytes.inner().len() as u64,
        _ => 1,
    }
}
