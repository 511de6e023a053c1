//! From the text of a rule to an expression of bounded size.

use std::collections::HashMap;

use kube_cel::cel::{
    common::ast::{EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, MapEntryExpr, StructFieldExpr},
    parser::{Expression, Parser},
};
use regex::Regex;

/// Longest rule. The longest in the wild have 2 KiB.
const RULE_BYTES_MAX: usize = 16 * 1024;
/// Levels of an expression. Evaluating one level takes less than 4 KiB of stack, so this is a quarter of a worker's 2 MiB.
const DEPTH_MAX: usize = 128;
/// The parser needs stack for each level, of which a text of the longest size can have 8,000.
const PARSER_STACK_BYTES: usize = 128 << 20;

/// Parses a rule.
pub(super) fn parse(text: &str) -> Result<Expression, String> {
    if text.len() > RULE_BYTES_MAX {
        return Err(format!("the rule has {} bytes, the limit is {RULE_BYTES_MAX}", text.len()));
    }
    let text = text.to_owned();
    // In a thread of its own: the parser recurses, and a tree that is too deep must be dropped where there is room.
    let thread = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES).spawn(move || {
        let parser = Parser::new().enable_optional_syntax(true);
        let expression = parser.parse(&text).map_err(|errors| first_line(&errors.to_string()))?;
        sound(&expression, 0)?;
        Ok(expression)
    });
    let thread = thread.map_err(|error| format!("no thread to parse it in: {error}"))?;
    thread.join().unwrap_or_else(|_| Err("the parser gave up on it".to_owned()))
}

fn first_line(errors: &str) -> String {
    errors.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("syntax error").to_owned()
}

/// The expressions directly in another.
pub(super) fn children(expression: &IdedExpr) -> Vec<&IdedExpr> {
    match &expression.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(inner) => {
            vec![&inner.iter_range, &inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => entries(&map.entries).flat_map(|entry| [&entry.key, &entry.value]).collect(),
        Expr::Struct(made) => fields(&made.entries).map(|field| &field.value).collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

/// The entries of a map.
pub(super) fn entries(entries: &[IdedEntryExpr]) -> impl Iterator<Item = &MapEntryExpr> {
    entries.iter().filter_map(|entry| match &entry.expr {
        EntryExpr::MapEntry(entry) => Some(entry),
        EntryExpr::StructField(_) => None,
    })
}

/// The fields of a structure.
pub(super) fn fields(entries: &[IdedEntryExpr]) -> impl Iterator<Item = &StructFieldExpr> {
    entries.iter().filter_map(|entry| match &entry.expr {
        EntryExpr::StructField(field) => Some(field),
        EntryExpr::MapEntry(_) => None,
    })
}

/// How many levels an expression has.
pub(super) fn depth(expression: &IdedExpr) -> usize {
    1 + children(expression).into_iter().map(depth).max().unwrap_or(0)
}

/// Refuses what is never evaluated here.
fn sound(expression: &IdedExpr, depth: usize) -> Result<(), String> {
    match &expression.expr {
        _ if depth > DEPTH_MAX => return Err(format!("the rule nests deeper than {DEPTH_MAX} levels")),
        Expr::Unspecified => return Err("the rule is empty".to_owned()),
        Expr::Comprehension(inner) if inner.iter_var2.is_some() => {
            return Err("macros with two variables are not supported".to_owned());
        }
        _ => {}
    }
    children(expression).into_iter().try_for_each(|inner| sound(inner, depth + 1))
}

/// Whether an expression names a variable.
pub(super) fn names(expression: &IdedExpr, variable: &str) -> bool {
    matches!(&expression.expr, Expr::Ident(name) if name == variable)
        || children(expression).into_iter().any(|inner| names(inner, variable))
}

/// The patterns that calls of `matches` write out.
pub(super) fn patterns(expression: &IdedExpr) -> Result<HashMap<String, Regex>, String> {
    let mut found = HashMap::new();
    collect(expression, &mut found)?;
    Ok(found)
}

fn collect(expression: &IdedExpr, found: &mut HashMap<String, Regex>) -> Result<(), String> {
    if let Expr::Call(call) = &expression.expr
        && call.func_name == "matches"
        && let Some(Expr::Literal(LiteralValue::String(pattern))) = call.args.last().map(|arg| &arg.expr)
    {
        let regex =
            Regex::new(pattern.inner()).map_err(|error| format!("invalid matches argument: {error}"))?;
        found.insert(pattern.inner().to_owned(), regex);
    }
    children(expression).into_iter().try_for_each(|inner| collect(inner, found))
}
