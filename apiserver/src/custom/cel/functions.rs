//! The functions that rules call: the common ones on the values as they are, all others through the library.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::LazyLock,
};

use kube_cel::{
    KubeCelExt as _,
    cel::{
        Context, Value as Cel,
        common::ast::{CallExpr, Expr, IdedExpr},
        parser::Expression,
    },
};
use regex::{Regex, RegexBuilder};

use super::{
    budget::{BYTES_PER_UNIT, Budget},
    build,
    eval::Failure,
    value::Val,
};

/// What compiling a pattern costs: about 50 µs.
const PATTERN_UNITS: u64 = 500;
/// What most patterns stay below, compiled.
const PATTERN_BYTES: usize = 64 * 1024;
/// What one costs that does not, up to the most that any may take: a few letters such as `(a{99}){99}` are enough.
const LARGE_PATTERN_UNITS: u64 = 50_000;
const LARGE_PATTERN_BYTES: usize = 1024 * 1024;
/// Digits that a format may ask for.
const FORMAT_DIGITS_MAX: usize = 2;

/// All functions of the library.
static LIBRARY: LazyLock<Context<'static>> = LazyLock::new(|| Context::default().with_all());

/// Names of the functions that can be called, besides those of the library: what [`native`] knows.
const NATIVE: [&str; 13] = [
    "contains",
    "dyn",
    "endsWith",
    "hasValue",
    "jsonpatch.escapeKey",
    "matches",
    "optional.none",
    "optional.of",
    "or",
    "orValue",
    "size",
    "startsWith",
    "value",
];

/// The functions of the library, by the names that calls have for them.
const OF_LIBRARY: &[&str] = &[
    "add",
    "asApproximateFloat",
    "asInteger",
    "base64.decode",
    "base64.encode",
    "bool",
    "bytes",
    "charAt",
    "cidr",
    "compareTo",
    "containsCIDR",
    "containsIP",
    "distinct",
    "double",
    "duration",
    "family",
    "find",
    "findAll",
    "first",
    "flatten",
    "format",
    "format.dns1035Label",
    "format.dns1035LabelPrefix",
    "format.dns1123Label",
    "format.dns1123LabelPrefix",
    "format.dns1123Subdomain",
    "format.dns1123SubdomainPrefix",
    "format.labelValue",
    "format.named",
    "format.qualifiedName",
    "format.uri",
    "format.uuid",
    "format.byte",
    "format.date",
    "format.datetime",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getEscapedPath",
    "getFullYear",
    "getHost",
    "getHostname",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getPort",
    "getQuery",
    "getScheme",
    "getSeconds",
    "indexOf",
    "int",
    "ip",
    "ip.isCanonical",
    "isCIDR",
    "isGlobalUnicast",
    "isGreaterThan",
    "isIP",
    "isInteger",
    "isLessThan",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isLoopback",
    "isQuantity",
    "isSemver",
    "isSorted",
    "isURL",
    "isUnspecified",
    "join",
    "last",
    "lastIndexOf",
    "lowerAscii",
    "major",
    "masked",
    "math.abs",
    "math.bitAnd",
    "math.bitNot",
    "math.bitOr",
    "math.bitShiftLeft",
    "math.bitShiftRight",
    "math.bitXor",
    "math.ceil",
    "math.floor",
    "math.greatest",
    "math.isFinite",
    "math.isInf",
    "math.isNaN",
    "math.least",
    "math.round",
    "math.sign",
    "math.sqrt",
    "math.trunc",
    "max",
    "min",
    "minor",
    "optional.ofNonZeroValue",
    "patch",
    "prefixLength",
    "quantity",
    "replace",
    "reverse",
    "semver",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "sign",
    "slice",
    "sort",
    "split",
    "string",
    "strings.quote",
    "sub",
    "substring",
    "sum",
    "timestamp",
    "trim",
    "uint",
    "upperAscii",
    "url",
    "validate",
];

/// Whether there is a function of that name; one in a group has the group's name before it.
pub(super) fn exists(name: &str) -> bool {
    NATIVE.contains(&name) || OF_LIBRARY.contains(&name)
}

/// Whether a name is that of a group of functions.
pub(super) fn is_group(name: &str) -> bool {
    matches!(name, "base64" | "format" | "ip" | "jsonpatch" | "math" | "optional" | "sets" | "strings")
}

/// Calls a function.
pub(super) fn call<'a>(
    name: &str,
    target: Option<Val<'a>>,
    args: Vec<Val<'a>>,
    pattern: impl Fn(&str) -> Option<Regex>,
    budget: &Budget,
) -> Result<Val<'a>, Failure> {
    let whole: Vec<&Val<'a>> = target.iter().chain(&args).collect();
    if let Some(result) = native(name, &whole, pattern, budget) {
        return result;
    }
    if let ("find" | "findAll", [_, source, ..]) = (name, whole.as_slice()) {
        // The library compiles it again, and would take any.
        compiled(source.as_text().unwrap_or_default(), budget)?;
    }
    budget.charge(price(name, &whole)?)?;
    library(name, target.as_ref(), &args, budget)
}

/// The functions that need no conversion. `None` when it is not one of them.
fn native<'a>(
    name: &str,
    args: &[&Val<'a>],
    pattern: impl Fn(&str) -> Option<Regex>,
    budget: &Budget,
) -> Option<Result<Val<'a>, Failure>> {
    let texts = || Some((args.first()?.as_text()?, args.get(1)?.as_text()?));
    let about_texts = |holds: fn(&str, &str) -> bool| {
        let (text, part) = texts()?;
        let charged = budget.charge(1 + (text.len() + part.len()) as u64 / BYTES_PER_UNIT);
        Some(charged.map(|()| Val::Bool(holds(text, part))).map_err(Failure::from))
    };
    match (name, args) {
        ("size", [value]) => Some(value.size().map_or_else(
            || Err(Failure::overload("size")),
            |size| {
                budget.charge(value.as_text().map_or(0, |text| text.len() as u64 / BYTES_PER_UNIT))?;
                Ok(Val::Int(i64::try_from(size).unwrap_or(i64::MAX)))
            },
        )),
        ("contains", [_, _]) => about_texts(|text, part| text.contains(part)),
        ("startsWith", [_, _]) => about_texts(|text, part| text.starts_with(part)),
        ("endsWith", [_, _]) => about_texts(|text, part| text.ends_with(part)),
        ("matches", [_, _]) => {
            let (text, source) = texts()?;
            Some(matches(text, source, pattern, budget))
        }
        ("jsonpatch.escapeKey", [key]) => {
            let key = key.as_text()?;
            let charged = budget.charge(1 + key.len() as u64 / BYTES_PER_UNIT);
            Some(charged.map(|()| Val::text(build::escaped_key(key))).map_err(Failure::from))
        }
        ("dyn", [value]) => Some(Ok((*value).clone())),
        ("optional.none", []) => Some(Ok(Val::Optional(None))),
        ("optional.of", [value]) => Some(Ok(Val::optional(Some((*value).clone())))),
        ("hasValue", [Val::Optional(value)]) => Some(Ok(Val::Bool(value.is_some()))),
        ("value", [Val::Optional(value)]) => {
            let missing = || Failure::Error("optional.none() dereference".to_owned());
            Some(value.as_deref().cloned().ok_or_else(missing))
        }
        ("or", [value @ Val::Optional(inner), other @ Val::Optional(_)]) => {
            Some(Ok(if inner.is_some() { (*value).clone() } else { (*other).clone() }))
        }
        ("orValue", [Val::Optional(value), other]) => {
            Some(Ok(value.as_deref().cloned().unwrap_or_else(|| (*other).clone())))
        }
        _ => None,
    }
}

fn matches<'a>(
    text: &str,
    source: &str,
    pattern: impl Fn(&str) -> Option<Regex>,
    budget: &Budget,
) -> Result<Val<'a>, Failure> {
    budget.charge(1 + (text.len() * (1 + source.len() / 4)) as u64 / BYTES_PER_UNIT)?;
    let regex = match pattern(source) {
        Some(regex) => regex,
        None => compiled(source, budget)?,
    };
    Ok(Val::Bool(regex.is_match(text)))
}

/// A pattern that only the evaluation knows.
fn compiled(source: &str, budget: &Budget) -> Result<Regex, Failure> {
    let within = |bytes: usize| RegexBuilder::new(source).size_limit(bytes).build();
    budget.charge(PATTERN_UNITS + source.len() as u64)?;
    let regex = match within(PATTERN_BYTES) {
        Err(regex::Error::CompiledTooBig(_)) => {
            budget.charge(LARGE_PATTERN_UNITS)?;
            within(LARGE_PATTERN_BYTES)
        }
        other => other,
    };
    regex.map_err(|error| Failure::Error(format!("invalid pattern: {error}")))
}

/// What a call of the library costs beyond the conversion of its arguments, which is counted as it happens.
fn price(name: &str, args: &[&Val<'_>]) -> Result<u64, Failure> {
    let size = |at: usize| args.get(at).map_or(0, |value| value.weight());
    let bytes =
        |at: usize| args.get(at).and_then(|value| value.as_text()).map_or(0, |text| text.len() as u64);
    Ok(match name {
        // The answer may be as long as both arguments multiplied.
        "replace" => (bytes(0) + 1).saturating_mul(bytes(2) + 1) / BYTES_PER_UNIT,
        "join" => size(0).saturating_mul(bytes(1) + 1) / BYTES_PER_UNIT,
        "sets.contains" | "sets.equivalent" | "sets.intersects" => size(0).saturating_mul(size(1)),
        "distinct" => size(0).saturating_mul(size(0)),
        "find" | "findAll" => PATTERN_UNITS + bytes(0).saturating_mul(1 + bytes(1)) / BYTES_PER_UNIT,
        "format" if asks_for_many_digits(args[0].as_text().unwrap_or_default()) => {
            return Err(Failure::Error(format!(
                "a format takes at most {FORMAT_DIGITS_MAX} digits of precision"
            )));
        }
        _ => 10,
    })
}

/// Whether a format string has a long number in it, which would make for a long text.
fn asks_for_many_digits(format: &str) -> bool {
    let longest = format.split(|c: char| !c.is_ascii_digit()).map(str::len).max();
    longest.unwrap_or(0) > FORMAT_DIGITS_MAX
}

fn library<'a>(
    name: &str,
    target: Option<&Val<'a>>,
    args: &[Val<'a>],
    budget: &Budget,
) -> Result<Val<'a>, Failure> {
    let mut scope = LIBRARY.new_inner_scope();
    let mut argument = |name: String, value: &Val<'a>| -> Result<IdedExpr, Failure> {
        scope.add_variable_from_value(name.clone(), value.to_cel(budget)?);
        Ok(ident(&name))
    };
    let (group, func_name) = match name.rsplit_once('.') {
        Some((group, name)) => (Some(ident(group)), name),
        None => (None, name),
    };
    let target = match target {
        Some(target) => Some(argument("target".to_owned(), target)?),
        None => group,
    };
    let args: Result<Vec<_>, _> =
        args.iter().enumerate().map(|(index, arg)| argument(format!("arg{index}"), arg)).collect();
    let call = CallExpr { func_name: func_name.to_owned(), target: target.map(Box::new), args: args? };
    let expression = Expression { id: 0, expr: Expr::Call(call) };
    Val::from_cel(resolve(&expression, &scope)?, budget).map_err(Failure::from)
}

/// An operator on values that only the library knows.
pub(super) fn operator<'a>(name: &str, args: [&Val<'a>; 2], budget: &Budget) -> Result<Val<'a>, Failure> {
    let mut scope = LIBRARY.new_inner_scope();
    for (place, value) in ["left", "right"].into_iter().zip(args) {
        scope.add_variable_from_value(place, value.to_cel(budget)?);
    }
    let call =
        CallExpr { func_name: name.to_owned(), target: None, args: vec![ident("left"), ident("right")] };
    let expression = Expression { id: 0, expr: Expr::Call(call) };
    Val::from_cel(resolve(&expression, &scope)?, budget).map_err(Failure::from)
}

/// A value that the library makes from text.
pub(super) fn constructed(name: &str, text: String) -> Option<Cel> {
    let mut scope = LIBRARY.new_inner_scope();
    scope.add_variable_from_value("text", Cel::String(text.into()));
    let call = CallExpr { func_name: name.to_owned(), target: None, args: vec![ident("text")] };
    resolve(&Expression { id: 0, expr: Expr::Call(call) }, &scope).ok()
}

/// Asks the library. Should it panic on something, the rule has failed and not the server.
fn resolve(expression: &Expression, scope: &Context<'_>) -> Result<Cel, Failure> {
    match catch_unwind(AssertUnwindSafe(|| Cel::resolve(expression, scope))) {
        Ok(result) => result.map_err(|error| Failure::Error(error.to_string())),
        Err(_) => Err(Failure::Error("a function failed".to_owned())),
    }
}

fn ident(name: &str) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Ident(name.to_owned()) }
}
