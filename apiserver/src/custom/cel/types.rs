//! Finds in an expression what can never be right, given the schema: fields that do not exist, functions and variables
//! that nobody knows, operators on values they do not take.
//!
//! Where a type is not known for certain (an int-or-string, the answer of a function of the library) everything is taken.

use std::collections::BTreeMap;

use claw_schemas::schema::{self, Scalar};
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, StructExpr, operators,
};

use super::{build, functions, parse, program::VARIABLES, value::unescaped};
use crate::custom::{
    format::Format,
    node::{Node, Type},
};

/// What an expression is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Bool,
    Text,
}

/// What is known of a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ty<'n> {
    Any,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    /// Something of the library: a time, bytes.
    Other,
    /// A place of the object.
    Place(Place<'n>),
    /// A place of the object, by the compact schema of its kind.
    Spot(Spot<'n>),
    List(Box<Ty<'n>>),
    Map,
    /// These fields, and no others.
    Record(BTreeMap<String, Ty<'n>>),
    /// A structure that is written out, by the name of its type.
    Built(String),
    /// A question about what somebody may do.
    Authorizer,
    Optional(Box<Ty<'n>>),
}

/// A node, which is one by its address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'n>(&'n Node);

impl PartialEq for Place<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

/// A place of a compact schema, which is one by the address of what is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'n>(schema::Place<'n>);

impl PartialEq for Spot<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0.ownership(), other.0.ownership())
    }
}

type Checked<'n> = Result<Ty<'n>, String>;

/// Checks a rule at a place.
pub(super) fn check(
    expression: &IdedExpr,
    node: &Node,
    optional_old: bool,
    wanted: Wanted,
) -> Result<(), String> {
    let this = of(Some(node));
    let old = if optional_old { Ty::Optional(Box::new(this.clone())) } else { this.clone() };
    let known = vec![("self".to_owned(), this), ("oldSelf".to_owned(), old)];
    let mut scope = Scope { known, builds: false };
    match (type_of(expression, &mut scope)?, wanted) {
        (Ty::Any | Ty::Bool, Wanted::Bool) | (Ty::Any | Ty::Text, Wanted::Text) => Ok(()),
        (_, Wanted::Bool) => Err("must evaluate to a bool".to_owned()),
        (_, Wanted::Text) => Err("must evaluate to a string".to_owned()),
    }
}

/// The type of an expression in which these names are known.
pub(super) fn type_in<'n>(expression: &IdedExpr, scope: &mut Scope<'n>) -> Result<Ty<'n>, String> {
    type_of(expression, scope)
}

/// The type of what stands at a place.
pub(super) fn of(node: Option<&Node>) -> Ty<'_> {
    let Some(node) = node else { return Ty::Any };
    match node.ty {
        Some(Type::Object | Type::Array) => Ty::Place(Place(node)),
        Some(Type::Boolean) => Ty::Bool,
        Some(Type::Integer) => Ty::Int,
        Some(Type::Number) => Ty::Double,
        Some(Type::String) => match node.demands.format {
            Some(Format::DateTime | Format::Date | Format::Duration | Format::Byte) => Ty::Other,
            _ => Ty::Text,
        },
        None => Ty::Any,
    }
}

/// The type of what stands at a place of a compact schema.
pub(super) fn at(place: schema::Place<'_>) -> Ty<'_> {
    match place.scalar() {
        Some(Scalar::String) => Ty::Text,
        Some(Scalar::Bytes | Scalar::Time | Scalar::MicroTime) => Ty::Other,
        Some(Scalar::Int32 | Scalar::Int64) => Ty::Int,
        Some(Scalar::Number) => Ty::Double,
        Some(Scalar::Boolean) => Ty::Bool,
        Some(Scalar::IntOrString | Scalar::Quantity) => Ty::Any,
        None if place.is_any() => Ty::Any,
        None => Ty::Spot(Spot(place)),
    }
}

fn name(ty: &Ty<'_>) -> &'static str {
    match ty {
        Ty::Any => "dyn",
        Ty::Null => "null",
        Ty::Bool => "bool",
        Ty::Int => "int",
        Ty::Uint => "uint",
        Ty::Double => "double",
        Ty::Text => "string",
        Ty::Other => "object",
        Ty::Place(Place(node)) if node.ty == Some(Type::Array) => "list",
        Ty::Place(Place(node)) if node.is_map() => "map",
        Ty::Spot(Spot(place)) if place.items().is_some() => "list",
        Ty::Spot(Spot(place)) if !place.is_structure() => "map",
        Ty::Place(_) | Ty::Spot(_) | Ty::Record(_) | Ty::Built(_) => "object",
        Ty::Authorizer => "authorizer",
        Ty::List(_) => "list",
        Ty::Map => "map",
        Ty::Optional(_) => "optional",
    }
}

/// What an expression may name.
pub(super) struct Scope<'n> {
    /// Innermost last.
    pub known: Vec<(String, Ty<'n>)>,
    /// Whether it may build what is to become of an object.
    pub builds: bool,
}

impl<'n> Scope<'n> {
    /// Says more of what is known.
    pub fn set(&mut self, name: &str, ty: Ty<'n>) {
        if let Some((_, known)) = self.known.iter_mut().find(|(own, _)| own == name) {
            *known = ty;
        }
    }

    /// Makes a shared variable known to expressions after it.
    pub fn add_variable(&mut self, name: &str, ty: Ty<'n>) {
        if let Some((_, Ty::Record(variables))) = self.known.iter_mut().find(|(own, _)| own == VARIABLES) {
            variables.insert(name.to_owned(), ty);
        }
    }
}

fn type_of<'n>(expression: &IdedExpr, scope: &mut Scope<'n>) -> Checked<'n> {
    match &expression.expr {
        Expr::Literal(literal) => Ok(literal_type(literal)),
        Expr::Ident(ident) => variable(ident, scope),
        Expr::Select(select) => {
            let operand = type_of(&select.operand, scope)?;
            let field = field(&operand, &select.field)?;
            Ok(if select.test { Ty::Bool } else { field })
        }
        Expr::Call(call) => call_type(call, scope),
        Expr::List(list) => {
            let mut item = None;
            for element in &list.elements {
                let ty = type_of(element, scope)?;
                item = Some(if item.is_none_or(|other| other == ty) { ty } else { Ty::Any });
            }
            Ok(Ty::List(Box::new(item.unwrap_or(Ty::Any))))
        }
        Expr::Map(map) => {
            for entry in parse::entries(&map.entries) {
                type_of(&entry.key, scope)?;
                type_of(&entry.value, scope)?;
            }
            Ok(Ty::Map)
        }
        Expr::Struct(made) => built(made, scope),
        Expr::Comprehension(inner) => comprehension(inner, scope),
        Expr::Unspecified => Ok(Ty::Any),
    }
}

fn built<'n>(made: &StructExpr, scope: &mut Scope<'n>) -> Checked<'n> {
    let type_name = &made.type_name;
    if !scope.builds || !build::is_type(type_name) {
        return Err(format!("undeclared reference to '{type_name}'"));
    }
    for field in parse::fields(&made.entries) {
        let (own, ty) = (&field.field, type_of(&field.value, scope)?);
        if !build::has_field(type_name, own) {
            return Err(format!("undefined field '{own}'"));
        }
        let is_text = type_name == build::PATCH && own != "value" && !field.optional;
        if is_text && !matches!(ty, Ty::Any | Ty::Text) {
            return Err(format!(
                "expected type of field '{own}' is 'string' but provided type is '{}'",
                name(&ty)
            ));
        }
    }
    Ok(Ty::Built(type_name.clone()))
}

fn literal_type<'n>(literal: &LiteralValue) -> Ty<'n> {
    match literal {
        LiteralValue::Boolean(_) => Ty::Bool,
        LiteralValue::Int(_) => Ty::Int,
        LiteralValue::UInt(_) => Ty::Uint,
        LiteralValue::Double(_) => Ty::Double,
        LiteralValue::String(_) => Ty::Text,
        LiteralValue::Bytes(_) => Ty::Other,
        LiteralValue::Null => Ty::Null,
    }
}

fn variable<'n>(ident: &str, scope: &Scope<'n>) -> Checked<'n> {
    let found = scope.known.iter().rev().find(|(own, _)| own == ident).map(|(_, ty)| ty.clone());
    found.ok_or_else(|| format!("undeclared reference to '{ident}'"))
}

fn field<'n>(operand: &Ty<'n>, name_of_field: &str) -> Checked<'n> {
    match operand {
        Ty::Any | Ty::Map => Ok(Ty::Any),
        Ty::Built(type_name) if build::has_field(type_name, name_of_field) => Ok(Ty::Any),
        Ty::Built(_) => Err(format!("undefined field '{name_of_field}'")),
        Ty::Authorizer if name_of_field == "requestResource" => Ok(Ty::Authorizer),
        Ty::Authorizer => Err(format!("undefined field '{name_of_field}'")),
        Ty::Record(fields) => {
            fields.get(name_of_field).cloned().ok_or_else(|| format!("undefined field '{name_of_field}'"))
        }
        Ty::Optional(inner) => Ok(Ty::Optional(Box::new(field(inner, name_of_field)?))),
        Ty::Place(Place(node)) if node.ty == Some(Type::Object) => {
            let own = if node.is_map() { name_of_field.into() } else { unescaped(name_of_field) };
            match node.field(&own) {
                Some(inner) => Ok(of(Some(inner))),
                None if is_of_every_object(&own) => Ok(Ty::Any),
                None => Err(format!("undefined field '{name_of_field}'")),
            }
        }
        Ty::Spot(Spot(place)) if place.is_structure() => match place.field(&unescaped(name_of_field)) {
            Some(inner) => Ok(at(inner)),
            None if place.keeps_unknown() => Ok(Ty::Any),
            None => Err(format!("undefined field '{name_of_field}'")),
        },
        Ty::Spot(Spot(place)) if place.items().is_none() => {
            Ok(place.field(name_of_field).map_or(Ty::Any, at))
        }
        other => Err(format!("type '{}' does not support field selection", name(other))),
    }
}

/// Fields that objects have whether their schema says so or not. Which of them may be used depends on where the schema
/// stands, so everywhere is taken.
fn is_of_every_object(field: &str) -> bool {
    matches!(field, "apiVersion" | "kind" | "metadata")
}

/// What iterating gives: items of a list, keys of a map.
fn items<'n>(range: &Ty<'n>) -> Checked<'n> {
    match range {
        Ty::Any => Ok(Ty::Any),
        Ty::Map => Ok(Ty::Any),
        Ty::List(item) => Ok((**item).clone()),
        Ty::Place(Place(node)) if node.ty == Some(Type::Array) => Ok(of(node.items.as_deref())),
        Ty::Place(Place(node)) if node.is_map() => Ok(Ty::Text),
        Ty::Spot(Spot(place)) if !place.is_structure() => Ok(place.items().map_or(Ty::Text, at)),
        other => Err(format!("expression of type '{}' cannot be range of a comprehension", name(other))),
    }
}

fn comprehension<'n>(inner: &ComprehensionExpr, scope: &mut Scope<'n>) -> Checked<'n> {
    let range = type_of(&inner.iter_range, scope)?;
    let item = items(&range)?;
    let start = type_of(&inner.accu_init, scope)?;
    let depth = scope.known.len();
    scope.known.push((inner.accu_var.clone(), start));
    scope.known.push((inner.iter_var.clone(), item));
    let step = type_of(&inner.loop_cond, scope).and_then(|_| type_of(&inner.loop_step, scope));
    let result = step.and_then(|step| {
        scope.known[depth].1 = step;
        type_of(&inner.result, scope)
    });
    scope.known.truncate(depth);
    result
}

fn call_type<'n>(call: &CallExpr, scope: &mut Scope<'n>) -> Checked<'n> {
    let group = match call.target.as_deref().map(|target| &target.expr) {
        Some(Expr::Ident(ident)) if variable(ident, scope).is_err() => Some(ident),
        _ => None,
    };
    let target = match call.target.as_deref().filter(|_| group.is_none()) {
        Some(target) => Some(type_of(target, scope)?),
        None => None,
    };
    let args: Vec<Ty<'n>> = call.args.iter().map(|arg| type_of(arg, scope)).collect::<Result<_, _>>()?;
    if let Some(answer) = operator_type(&call.func_name, &args) {
        return answer;
    }
    let full = match group {
        Some(group) if !functions::is_group(group) => {
            return Err(format!("undeclared reference to '{group}'"));
        }
        Some(group) => format!("{group}.{}", call.func_name),
        None => call.func_name.clone(),
    };
    if let Some(Ty::Authorizer) = target {
        return authorizer_type(&full);
    }
    if !functions::exists(&full) || (full.starts_with("jsonpatch.") && !scope.builds) {
        return Err(format!("undeclared reference to '{full}'"));
    }
    function_type(&full, target.as_ref(), &args)
}

fn authorizer_type<'n>(function: &str) -> Checked<'n> {
    match function {
        "path" | "group" | "resource" | "subresource" | "namespace" | "name" | "serviceAccount"
        | "fieldSelector" | "labelSelector" | "check" => Ok(Ty::Authorizer),
        "allowed" | "errored" => Ok(Ty::Bool),
        "reason" | "error" => Ok(Ty::Text),
        other => Err(format!("undeclared reference to '{other}'")),
    }
}

fn function_type<'n>(full: &str, target: Option<&Ty<'n>>, args: &[Ty<'n>]) -> Checked<'n> {
    let first = target.or_else(|| args.first());
    let refuse =
        |ty: &Ty<'_>| Err(format!("found no matching overload for '{full}' applied to '{}'", name(ty)));
    match full {
        "size" => match first {
            Some(ty @ (Ty::Bool | Ty::Int | Ty::Uint | Ty::Double | Ty::Null)) => refuse(ty),
            _ => Ok(Ty::Int),
        },
        "startsWith" | "endsWith" | "matches" | "contains" => match first {
            Some(Ty::Any | Ty::Text | Ty::Other) | None => Ok(Ty::Bool),
            Some(ty) => refuse(ty),
        },
        "lowerAscii" | "upperAscii" | "trim" | "replace" | "substring" | "charAt" | "split" => match first {
            Some(Ty::Any | Ty::Text) | None if full == "split" => Ok(Ty::List(Box::new(Ty::Text))),
            Some(Ty::Any | Ty::Text) | None => Ok(Ty::Text),
            Some(ty) => refuse(ty),
        },
        "hasValue" => Ok(Ty::Bool),
        "value" => match first {
            Some(Ty::Optional(inner)) => Ok((**inner).clone()),
            _ => Ok(Ty::Any),
        },
        "orValue" => match (first, args.last()) {
            (Some(Ty::Optional(inner)), Some(other)) if **inner == *other => Ok(other.clone()),
            _ => Ok(Ty::Any),
        },
        "isURL" | "isIP" | "isCIDR" | "isQuantity" | "isSemver" | "isSorted" => Ok(Ty::Bool),
        "string" | "jsonpatch.escapeKey" => Ok(Ty::Text),
        "int" => Ok(Ty::Int),
        "double" => Ok(Ty::Double),
        _ => Ok(Ty::Any),
    }
}

/// `None` when it is no operator.
fn operator_type<'n>(operator: &str, args: &[Ty<'n>]) -> Option<Checked<'n>> {
    let refuse = || {
        let types: Vec<_> = args.iter().map(name).collect();
        Err(format!("found no matching overload for '{operator}' applied to '({})'", types.join(", ")))
    };
    let all = |fits: fn(&Ty<'n>) -> bool| args.iter().all(|ty| *ty == Ty::Any || fits(ty));
    let number = |ty: &Ty<'n>| matches!(ty, Ty::Int | Ty::Uint | Ty::Double);
    let same_or = |ty: Ty<'n>| if args.iter().all(|arg| *arg == ty) { ty } else { Ty::Any };
    Some(match (operator, args) {
        (operators::CONDITIONAL, [condition, yes, no]) => {
            if !matches!(condition, Ty::Any | Ty::Bool) {
                return Some(refuse());
            }
            Ok(if yes == no { yes.clone() } else { Ty::Any })
        }
        (operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT, _) => {
            if all(|ty| *ty == Ty::Bool) { Ok(Ty::Bool) } else { refuse() }
        }
        (operators::NOT_STRICTLY_FALSE, _) => Ok(Ty::Bool),
        (operators::EQUALS | operators::NOT_EQUALS, [left, right]) => {
            let plain = |ty: &Ty<'n>| matches!(ty, Ty::Bool | Ty::Int | Ty::Uint | Ty::Double | Ty::Text);
            let differ = plain(left) && plain(right) && left != right;
            if differ { refuse() } else { Ok(Ty::Bool) }
        }
        (
            operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS,
            [left, right],
        ) => {
            let numbers = number(left) && number(right);
            let texts = *left == Ty::Text && *right == Ty::Text;
            let unknown = |ty: &Ty<'n>| matches!(ty, Ty::Any | Ty::Other);
            let bools = *left == Ty::Bool && *right == Ty::Bool;
            if numbers || texts || bools || unknown(left) || unknown(right) { Ok(Ty::Bool) } else { refuse() }
        }
        (operators::IN, [_, container]) => items(container).map(|_| Ty::Bool).or_else(|_| refuse()),
        (operators::INDEX, [container, index]) => indexed(container, index).unwrap_or_else(refuse),
        (operators::OPT_INDEX, [container, index]) => {
            indexed(container, index).unwrap_or_else(refuse).map(|ty| Ty::Optional(Box::new(ty)))
        }
        (operators::OPT_SELECT, [_, _]) => Ok(Ty::Any),
        (operators::NEGATE, [value]) => {
            if matches!(value, Ty::Any | Ty::Int | Ty::Double | Ty::Other) {
                Ok(value.clone())
            } else {
                refuse()
            }
        }
        (operators::ADD, [left, right]) => match (left, right) {
            (Ty::Any | Ty::Other, _) | (_, Ty::Any | Ty::Other) => Ok(Ty::Any),
            (Ty::Text, Ty::Text) => Ok(Ty::Text),
            (left, right) if number(left) && left == right => Ok(left.clone()),
            (left, right) if name(left) == "list" && name(right) == "list" => {
                let (left, right) = (items(left), items(right));
                let item = if left == right { left } else { Ok(Ty::Any) };
                item.map(|item| Ty::List(Box::new(item)))
            }
            _ => refuse(),
        },
        (
            operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO,
            [left, right],
        ) => {
            let unknown = |ty: &Ty<'n>| matches!(ty, Ty::Any | Ty::Other);
            if unknown(left) || unknown(right) {
                Ok(Ty::Any)
            } else if number(left) && left == right {
                Ok(same_or(left.clone()))
            } else {
                refuse()
            }
        }
        _ => return None,
    })
}

/// `None` when there is no such index.
fn indexed<'n>(container: &Ty<'n>, index: &Ty<'n>) -> Option<Checked<'n>> {
    let whole = matches!(index, Ty::Any | Ty::Int | Ty::Uint);
    match container {
        Ty::Any | Ty::Map => Some(Ok(Ty::Any)),
        Ty::Optional(inner) => indexed(inner, index),
        Ty::List(item) if whole => Some(Ok((**item).clone())),
        Ty::Place(Place(node)) if node.ty == Some(Type::Array) && whole => {
            Some(Ok(of(node.items.as_deref())))
        }
        Ty::Spot(Spot(place)) if whole && place.items().is_some() => place.items().map(|item| Ok(at(item))),
        Ty::Spot(Spot(place)) if name(container) == "map" && matches!(index, Ty::Any | Ty::Text) => {
            Some(Ok(place.field("").map_or(Ty::Any, at)))
        }
        Ty::Place(Place(node)) if node.is_map() && matches!(index, Ty::Any | Ty::Text) => {
            Some(Ok(of(node.values.as_deref())))
        }
        _ => None,
    }
}
