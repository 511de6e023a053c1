//! Evaluates an expression, step by step, within a budget.

use std::{cmp::Ordering, collections::HashMap, rc::Rc};

use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, StructExpr, operators,
};
use regex::Regex;

use super::{
    authorizer::Question,
    budget::{Budget, Spent},
    build::Built,
    functions, parse,
    program::VARIABLES,
    value::Val,
};

/// Why there is no value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Failure {
    /// The budget is used up.
    Spent,
    /// In words.
    Error(String),
}

impl From<Spent> for Failure {
    fn from(_: Spent) -> Self {
        Self::Spent
    }
}

impl Failure {
    /// A function or operator that does not take such values.
    pub fn overload(function: &str) -> Self {
        Self::Error(format!("no such overload of {function}"))
    }
}

pub(super) type Outcome<'a> = Result<Val<'a>, Failure>;

/// What an expression can ask for that is not bound to it.
pub(super) trait Surroundings<'a> {
    /// The value of a variable that other expressions share.
    fn variable(&self, name: &str) -> Option<Outcome<'a>>;

    /// Whether somebody may do something, and why.
    fn decide(&self, question: &Question, verb: &str) -> (bool, String);
}

/// One evaluation.
pub(super) struct Evaluator<'a, 'e> {
    budget: &'e Budget,
    surroundings: Option<&'e dyn Surroundings<'a>>,
    patterns: &'e HashMap<String, Regex>,
    /// Innermost last.
    variables: Vec<(&'e str, Val<'a>)>,
}

impl<'a, 'e> Evaluator<'a, 'e> {
    pub fn new(budget: &'e Budget, patterns: &'e HashMap<String, Regex>) -> Self {
        Self { budget, surroundings: None, patterns, variables: Vec::new() }
    }

    /// The same, with what is around it.
    #[must_use]
    pub fn within(self, surroundings: &'e dyn Surroundings<'a>) -> Self {
        Self { surroundings: Some(surroundings), ..self }
    }

    /// Gives a variable its value.
    pub fn bind(&mut self, name: &'e str, value: Val<'a>) {
        self.variables.push((name, value));
    }

    fn variable(&self, name: &str) -> Option<&Val<'a>> {
        self.variables.iter().rev().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    pub fn evaluate(&mut self, expression: &'e IdedExpr) -> Outcome<'a> {
        self.budget.charge(1)?;
        match &expression.expr {
            Expr::Literal(literal) => Ok(value_of(literal)),
            Expr::Ident(name) => self.variable(name).cloned().map_or_else(|| self.global(name), Ok),
            Expr::Select(select) => {
                if let Some(outcome) = self.shared(&select.operand, &select.field) {
                    return if select.test { Ok(Val::Bool(true)) } else { outcome };
                }
                let operand = self.evaluate(&select.operand)?;
                self.select(&operand, &select.field, select.test)
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                let mut items = Vec::with_capacity(list.elements.len());
                for (index, element) in list.elements.iter().enumerate() {
                    match self.evaluate(element)? {
                        Val::Optional(value) if list.optional_indices.contains(&index) => {
                            items.extend(value.map(Rc::unwrap_or_clone));
                        }
                        value => items.push(value),
                    }
                }
                Ok(Val::List(Rc::new(items)))
            }
            Expr::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in parse::entries(&map.entries) {
                    let key = self.evaluate(&entry.key)?;
                    if let Some(value) = self.given(&entry.value, entry.optional)? {
                        entries.push((key, value));
                    }
                }
                Ok(Val::Map(Rc::new(entries)))
            }
            Expr::Struct(made) => self.build(made),
            Expr::Comprehension(inner) => self.comprehend(inner),
            Expr::Unspecified => Err(Failure::overload("{}")),
        }
    }

    /// The value of a field or an entry. One that is optional may turn out not to be there.
    fn given(&mut self, value: &'e IdedExpr, is_optional: bool) -> Result<Option<Val<'a>>, Failure> {
        match self.evaluate(value)? {
            Val::Optional(value) if is_optional => Ok(value.map(Rc::unwrap_or_clone)),
            _ if is_optional => Err(Failure::overload("optional")),
            value => Ok(Some(value)),
        }
    }

    fn build(&mut self, made: &'e StructExpr) -> Outcome<'a> {
        let mut fields = Vec::with_capacity(made.entries.len());
        for field in parse::fields(&made.entries) {
            if let Some(value) = self.given(&field.value, field.optional)? {
                fields.push((field.field.as_str().into(), value));
            }
        }
        Ok(Val::Built(Built { type_name: made.type_name.as_str().into(), fields: Rc::new(fields) }))
    }

    /// What a rule at the root can name without `self.`.
    fn global(&self, name: &str) -> Outcome<'a> {
        Err(Failure::Error(format!("undeclared reference to '{name}'")))
    }

    /// A variable that expressions share.
    fn shared(&self, operand: &IdedExpr, name: &str) -> Option<Outcome<'a>> {
        match &operand.expr {
            Expr::Ident(own) if own == VARIABLES && self.variable(own).is_none() => {
                self.surroundings?.variable(name)
            }
            _ => None,
        }
    }

    fn select(&self, operand: &Val<'a>, field: &str, test: bool) -> Outcome<'a> {
        if let Val::Optional(value) = operand {
            let found = match value {
                Some(value) => value.field(field)?,
                None => None,
            };
            return Ok(if test { Val::Bool(found.is_some()) } else { Val::optional(found) });
        }
        let found = operand.field(field)?;
        if test {
            return Ok(Val::Bool(found.is_some()));
        }
        found.ok_or_else(|| Failure::Error(format!("no such key: {field}")))
    }

    fn call(&mut self, call: &'e CallExpr) -> Outcome<'a> {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                let branch = if self.truth(condition)? { yes } else { no };
                self.evaluate(branch)
            }
            (operators::LOGICAL_AND, [left, right]) => self.connect(left, right, false),
            (operators::LOGICAL_OR, [left, right]) => self.connect(left, right, true),
            (operators::LOGICAL_NOT, [value]) => Ok(Val::Bool(!self.truth(value)?)),
            (operators::NOT_STRICTLY_FALSE, [value]) => match self.truth(value) {
                Err(Failure::Error(_)) => Ok(Val::Bool(true)),
                other => other.map(Val::Bool),
            },
            (operators::NEGATE, [value]) => negate(&self.evaluate(value)?),
            (operators::OPT_SELECT, [operand, field]) => {
                let operand = match self.evaluate(operand)? {
                    operand @ Val::Optional(_) => operand,
                    operand => Val::optional(Some(operand)),
                };
                let field = self.evaluate(field)?;
                self.select(&operand, field.as_text().unwrap_or_default(), false)
            }
            (operators::ADD, [left, right]) if self.is_accumulator(left) => self.append(left, right),
            (name, [left, right]) if call.target.is_none() && is_operator(name) => {
                let (left, right) = (self.evaluate(left)?, self.evaluate(right)?);
                self.operate(name, &left, &right)
            }
            _ => self.function(call),
        }
    }

    fn truth(&mut self, expression: &'e IdedExpr) -> Result<bool, Failure> {
        match self.evaluate(expression)? {
            Val::Bool(value) => Ok(value),
            _ => Err(Failure::Error("expected a bool".to_owned())),
        }
    }

    /// `&&` and `||`: whichever side decides, decides, even if the other fails.
    fn connect(&mut self, left: &'e IdedExpr, right: &'e IdedExpr, deciding: bool) -> Outcome<'a> {
        let left = match self.truth(left) {
            Err(Failure::Spent) => return Err(Failure::Spent),
            Ok(value) if value == deciding => return Ok(Val::Bool(deciding)),
            other => other,
        };
        let right = self.truth(right)?;
        if right == deciding { Ok(Val::Bool(deciding)) } else { left.map(|_| Val::Bool(!deciding)) }
    }

    /// Whether an expression is the variable in which a macro gathers its list.
    fn is_accumulator(&self, expression: &IdedExpr) -> bool {
        matches!(&expression.expr, Expr::Ident(name) if name.starts_with('@'))
            && matches!(&expression.expr, Expr::Ident(name) if matches!(self.variable(name), Some(Val::List(_))))
    }

    /// Adds to the list of a macro in place, which a copy of it each time would make quadratic.
    fn append(&mut self, accumulator: &'e IdedExpr, more: &'e IdedExpr) -> Outcome<'a> {
        let Expr::Ident(name) = &accumulator.expr else { return Err(Failure::overload("_+_")) };
        let more = self.evaluate(more)?.items().ok_or_else(|| Failure::overload("_+_"))?;
        let slot = self.variables.iter_mut().rev().find(|(own, _)| own == name).map(|(_, value)| value);
        let Some(slot) = slot else { return Err(Failure::overload("_+_")) };
        let Val::List(mut items) = std::mem::replace(slot, Val::Null) else {
            return Err(Failure::overload("_+_"));
        };
        Rc::make_mut(&mut items).extend(more);
        Ok(Val::List(items))
    }

    fn comprehend(&mut self, inner: &'e ComprehensionExpr) -> Outcome<'a> {
        let start = self.evaluate(&inner.accu_init)?;
        let range = self.evaluate(&inner.iter_range)?;
        let items =
            range.items().ok_or_else(|| Failure::Error("only lists and maps have items".to_owned()))?;
        self.budget.charge(items.len() as u64)?;
        let depth = self.variables.len();
        self.bind(&inner.accu_var, start);
        let result = self.iterate(inner, items, depth).and_then(|()| self.evaluate(&inner.result));
        self.variables.truncate(depth);
        result
    }

    fn iterate(
        &mut self,
        inner: &'e ComprehensionExpr,
        items: Vec<Val<'a>>,
        depth: usize,
    ) -> Result<(), Failure> {
        for item in items {
            if !self.truth(&inner.loop_cond)? {
                break;
            }
            self.bind(&inner.iter_var, item);
            let step = self.evaluate(&inner.loop_step)?;
            self.variables.truncate(depth + 1);
            self.variables[depth].1 = step;
        }
        Ok(())
    }

    fn operate(&mut self, name: &str, left: &Val<'a>, right: &Val<'a>) -> Outcome<'a> {
        let compare = |holds: fn(Ordering) -> bool| match order(left, right) {
            Some(order) => Ok(Val::Bool(holds(order))),
            None => self.foreign(name, left, right),
        };
        match name {
            operators::EQUALS => Ok(Val::Bool(left.equals(right, self.budget)?)),
            operators::NOT_EQUALS => Ok(Val::Bool(!left.equals(right, self.budget)?)),
            operators::LESS => compare(Ordering::is_lt),
            operators::LESS_EQUALS => compare(Ordering::is_le),
            operators::GREATER => compare(Ordering::is_gt),
            operators::GREATER_EQUALS => compare(Ordering::is_ge),
            operators::IN => self.is_in(left, right),
            operators::INDEX => self.index(left, right, false),
            operators::OPT_INDEX => self.index(left, right, true),
            _ => match arithmetic(name, left, right, self.budget) {
                Some(result) => result,
                None => self.foreign(name, left, right),
            },
        }
    }

    fn foreign(&self, name: &str, left: &Val<'a>, right: &Val<'a>) -> Outcome<'a> {
        if matches!(left, Val::Foreign(_)) || matches!(right, Val::Foreign(_)) {
            return functions::operator(name, [left, right], self.budget);
        }
        Err(Failure::overload(name))
    }

    fn is_in(&self, item: &Val<'a>, container: &Val<'a>) -> Outcome<'a> {
        if matches!(container, Val::Object(..) | Val::Map(_)) {
            return Ok(Val::Bool(container.at(item)?.is_some()));
        }
        for other in container.items().ok_or_else(|| Failure::overload("in"))? {
            if item.equals(&other, self.budget)? {
                return Ok(Val::Bool(true));
            }
        }
        Ok(Val::Bool(false))
    }

    fn index(&self, value: &Val<'a>, index: &Val<'a>, optional: bool) -> Outcome<'a> {
        if let Val::Optional(value) = value {
            let found = match value {
                Some(value) => value.at(index)?,
                None => None,
            };
            return Ok(Val::optional(found));
        }
        let found = value.at(index)?;
        if optional {
            return Ok(Val::optional(found));
        }
        found.ok_or_else(|| match index {
            Val::Text(key) => Failure::Error(format!("no such key: {key}")),
            _ => Failure::Error("index out of bounds".to_owned()),
        })
    }

    fn function(&mut self, call: &'e CallExpr) -> Outcome<'a> {
        let group = match call.target.as_deref().map(|target| &target.expr) {
            Some(Expr::Ident(name)) if self.variable(name).is_none() => Some(name),
            _ => None,
        };
        let name = match group {
            Some(group) => format!("{group}.{}", call.func_name),
            None => call.func_name.clone(),
        };
        let target = match call.target.as_deref().filter(|_| group.is_none()) {
            Some(target) => Some(self.evaluate(target)?),
            None => None,
        };
        let args: Result<Vec<_>, _> = call.args.iter().map(|arg| self.evaluate(arg)).collect();
        if let Some(Val::Authorizer(question)) = &target {
            return question.call(&name, &args?, self.surroundings);
        }
        let pattern = |source: &str| self.patterns.get(source).cloned();
        functions::call(&name, target, args?, pattern, self.budget)
    }
}

fn value_of<'a>(literal: &LiteralValue) -> Val<'a> {
    match literal {
        LiteralValue::Boolean(value) => Val::Bool(*value.inner()),
        LiteralValue::Int(value) => Val::Int(*value.inner()),
        LiteralValue::UInt(value) => Val::Uint(*value.inner()),
        LiteralValue::Double(value) => Val::Double(*value.inner()),
        LiteralValue::String(text) => Val::text(text.inner().to_owned()),
        LiteralValue::Bytes(bytes) => {
            Val::Foreign(kube_cel::cel::Value::Bytes(bytes.inner().to_vec().into()))
        }
        LiteralValue::Null => Val::Null,
    }
}

fn is_operator(name: &str) -> bool {
    use operators::{
        ADD, DIVIDE, EQUALS, GREATER, GREATER_EQUALS, IN, INDEX, LESS, LESS_EQUALS, MODULO, MULTIPLY,
        NOT_EQUALS, OPT_INDEX, SUBSTRACT,
    };
    [
        ADD,
        DIVIDE,
        EQUALS,
        GREATER,
        GREATER_EQUALS,
        IN,
        INDEX,
        LESS,
        LESS_EQUALS,
        MODULO,
        MULTIPLY,
        NOT_EQUALS,
        OPT_INDEX,
        SUBSTRACT,
    ]
    .contains(&name)
}

fn order(left: &Val<'_>, right: &Val<'_>) -> Option<Ordering> {
    match (left, right) {
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
        (Val::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
        (Val::Text(a), Val::Text(b)) => Some(a.cmp(b)),
        (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
        _ => left.number()?.partial_cmp(&right.number()?),
    }
}

fn negate<'a>(value: &Val<'a>) -> Outcome<'a> {
    match value {
        Val::Int(number) => number.checked_neg().map(Val::Int).ok_or_else(overflow),
        Val::Double(number) => Ok(Val::Double(-number)),
        _ => Err(Failure::overload("-_")),
    }
}

fn overflow() -> Failure {
    Failure::Error("integer overflow".to_owned())
}

/// `None` where the values are none to calculate with.
fn arithmetic<'a>(name: &str, left: &Val<'a>, right: &Val<'a>, budget: &Budget) -> Option<Outcome<'a>> {
    Some(match (left, right) {
        (Val::Int(a), Val::Int(b)) => whole(name, *b == 0, || {
            Some(match name {
                operators::ADD => a.checked_add(*b)?,
                operators::SUBSTRACT => a.checked_sub(*b)?,
                operators::MULTIPLY => a.checked_mul(*b)?,
                operators::DIVIDE => a.checked_div(*b)?,
                _ => a.checked_rem(*b)?,
            })
        })
        .map(Val::Int),
        (Val::Uint(a), Val::Uint(b)) => whole(name, *b == 0, || {
            Some(match name {
                operators::ADD => a.checked_add(*b)?,
                operators::SUBSTRACT => a.checked_sub(*b)?,
                operators::MULTIPLY => a.checked_mul(*b)?,
                operators::DIVIDE => a.checked_div(*b)?,
                _ => a.checked_rem(*b)?,
            })
        })
        .map(Val::Uint),
        (Val::Double(a), Val::Double(b)) => match name {
            operators::ADD => Ok(Val::Double(a + b)),
            operators::SUBSTRACT => Ok(Val::Double(a - b)),
            operators::MULTIPLY => Ok(Val::Double(a * b)),
            operators::DIVIDE => Ok(Val::Double(a / b)),
            _ => Err(Failure::overload(name)),
        },
        (Val::Text(a), Val::Text(b)) if name == operators::ADD => budget
            .charge(left.weight() + right.weight())
            .map(|()| Val::text(format!("{a}{b}")))
            .map_err(Failure::from),
        (Val::Array(..) | Val::List(_), Val::Array(..) | Val::List(_)) if name == operators::ADD => budget
            .charge(left.weight() + right.weight())
            .map(|()| {
                let items = left.items().into_iter().chain(right.items()).flatten().collect();
                Val::List(Rc::new(items))
            })
            .map_err(Failure::from),
        _ => return None,
    })
}

fn whole<T>(name: &str, by_zero: bool, calculate: impl FnOnce() -> Option<T>) -> Result<T, Failure> {
    match name {
        operators::DIVIDE if by_zero => Err(Failure::Error("division by zero".to_owned())),
        operators::MODULO if by_zero => Err(Failure::Error("modulus by zero".to_owned())),
        _ => calculate().ok_or_else(overflow),
    }
}
