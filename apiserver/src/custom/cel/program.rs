//! Expressions that stand for themselves: conditions of webhooks, and what admission policies consist of.
//!
//! They know the object under names of their own ([`Names`]), see it without a schema, and may share variables, each of which
//! is worked out once, when something first asks for it.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    fmt,
    sync::LazyLock,
};

use kube_cel::cel::parser::Expression;
use regex::Regex;
use serde_json::{Value, json};

use super::{
    authorizer::Question,
    budget::Budget,
    build,
    eval::{Evaluator, Failure, Outcome, Surroundings},
    parse,
    types::{self, Scope, Ty},
    value::Val,
};
use crate::{
    custom::node::Node,
    validation::faults::{Faults, Path},
};

/// The variable that holds the variables.
pub(super) const VARIABLES: &str = "variables";

/// Levels of variables that use each other, each with those of its expression. A level takes less than 4 KiB of stack, so that
/// with the expression itself this is three quarters of a worker's 2 MiB.
const VARIABLES_DEPTH_MAX: usize = 256;

/// What is known of a request, and of the namespace it is about: upstream's fields.
static REQUEST: LazyLock<Node> = LazyLock::new(|| {
    let (text, texts) = (json!({"type": "string"}), json!({"type": "array", "items": {"type": "string"}}));
    let kind = object(&json!({"group": text, "version": text, "kind": text}));
    let resource = object(&json!({"group": text, "version": text, "resource": text}));
    let user = object(&json!({
        "username": text, "uid": text, "groups": texts,
        "extra": {"type": "object", "additionalProperties": texts},
    }));
    let fields = json!({
        "kind": kind, "resource": resource, "subResource": text, "requestKind": kind,
        "requestResource": resource, "requestSubResource": text, "name": text, "namespace": text,
        "operation": text, "userInfo": user, "dryRun": {"type": "boolean"}, "options": {},
    });
    compiled(&object(&fields))
});
static NAMESPACE: LazyLock<Node> = LazyLock::new(|| {
    let (text, texts) = (json!({"type": "string"}), json!({"type": "array", "items": {"type": "string"}}));
    let map = json!({"type": "object", "additionalProperties": text});
    let metadata = object(&json!({
        "name": text, "generateName": text, "namespace": text, "labels": map, "annotations": map, "UID": text,
        "creationTimestamp": {"type": "string", "format": "date-time"}, "deletionGracePeriodSeconds": {"type": "integer"},
        "deletionTimestamp": {"type": "string", "format": "date-time"}, "generation": {"type": "integer"},
        "resourceVersion": text, "finalizers": texts,
    }));
    let fields = json!({
        "metadata": metadata, "spec": object(&json!({"finalizers": texts})), "status": object(&json!({"phase": text})),
    });
    compiled(&object(&fields))
});

fn object(properties: &Value) -> Value {
    json!({"type": "object", "properties": properties})
}

fn compiled(schema: &Value) -> Node {
    Node::compile(schema, &Path::Root, &mut Faults::default())
}

/// The names that an expression may use, with what is known of each.
#[derive(Clone)]
pub(crate) struct Names {
    known: Vec<(String, Ty<'static>)>,
    variables: BTreeMap<String, Ty<'static>>,
    /// Whether expressions may build what is to become of an object.
    builds: bool,
}

/// What an expression is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gives {
    Bool,
    Text,
    TextOrNull,
    /// `Object{...}`
    Object,
    /// `[JSONPatch{...}, ...]`
    Patch,
    Anything,
}

impl Names {
    /// What conditions of webhooks know.
    pub fn of_webhooks() -> Self {
        let place = |node: &'static Node| types::of(Some(node));
        let known = [
            ("object", Ty::Any),
            ("oldObject", Ty::Any),
            ("request", place(&REQUEST)),
            ("authorizer", Ty::Authorizer),
        ];
        let known = known.into_iter().map(|(name, ty)| (name.to_owned(), ty)).collect();
        Self { known, variables: BTreeMap::new(), builds: false }
    }

    /// What policies know, too.
    pub fn of_policies(with_params: bool) -> Self {
        let mut names = Self::of_webhooks();
        names.known.push(("namespaceObject".to_owned(), types::of(Some(&NAMESPACE))));
        if with_params {
            names.known.push(("params".to_owned(), Ty::Any));
        }
        names
    }

    /// What selectors of devices know: one device.
    pub fn of_devices() -> Self {
        let fields = [("driver", Ty::Text), ("attributes", Ty::Any), ("capacity", Ty::Any)];
        let device = Ty::Record(fields.map(|(name, ty)| (name.to_owned(), ty)).into());
        Self { known: vec![("device".to_owned(), device)], variables: BTreeMap::new(), builds: false }
    }

    /// The same without leave to ask what somebody may do.
    #[must_use]
    pub fn without_authorizer(mut self) -> Self {
        self.known.retain(|(_, ty)| *ty != Ty::Authorizer);
        self
    }

    /// The same with leave to say what is to become of the object.
    #[must_use]
    pub fn with_builders(self) -> Self {
        Self { builds: true, ..self }
    }

    pub(super) fn scope(&self) -> Scope<'static> {
        let mut known = self.known.clone();
        known.push((VARIABLES.to_owned(), Ty::Record(self.variables.clone())));
        Scope { known, builds: self.builds }
    }
}

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Program {
    text: String,
    expression: Expression,
    patterns: HashMap<String, Regex>,
    /// Levels of the expression.
    depth: usize,
}

impl Program {
    /// Compiles an expression that gives what is wanted.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn compile(text: &str, names: &Names, gives: Gives) -> Result<Self, String> {
        Self::typed(text, names, gives).map(|(program, _)| program)
    }

    /// Compiles a variable, which expressions after it may name.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn variable(name: &str, text: &str, names: &mut Names) -> Result<Self, String> {
        let (program, ty) = Self::typed(text, names, Gives::Anything)?;
        names.variables.insert(name.to_owned(), ty);
        Ok(program)
    }

    fn typed(text: &str, names: &Names, gives: Gives) -> Result<(Self, Ty<'static>), String> {
        let expression = parse::parse(text)?;
        let ty = types::type_in(&expression, &mut names.scope())?;
        match (gives, &ty) {
            (Gives::Bool, Ty::Any | Ty::Bool)
            | (Gives::Text, Ty::Any | Ty::Text)
            | (Gives::TextOrNull, Ty::Any | Ty::Text | Ty::Null)
            | (Gives::Object | Gives::Patch, Ty::Any)
            | (Gives::Anything, _) => {}
            (Gives::Object, Ty::Built(name)) if name == build::OBJECT => {}
            (Gives::Patch, Ty::List(item)) if is_operation(item) => {}
            (Gives::Object, _) => return Err("must evaluate to Object".to_owned()),
            (Gives::Patch, _) => return Err("must evaluate to list(JSONPatch)".to_owned()),
            (Gives::Bool, _) => return Err("must evaluate to bool".to_owned()),
            (Gives::Text, _) => return Err("must evaluate to string".to_owned()),
            (Gives::TextOrNull, _) => return Err("must evaluate to one of [string null_type]".to_owned()),
        }
        let patterns = parse::patterns(&expression)?;
        let depth = parse::depth(&expression);
        Ok((Self { text: text.trim().to_owned(), expression, patterns, depth }, ty))
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn is_operation(item: &Ty<'_>) -> bool {
    match item {
        Ty::Any => true,
        Ty::Built(name) => name == build::PATCH,
        _ => false,
    }
}

/// What expressions are about.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// Null when it is being deleted.
    pub object: &'a Value,
    /// Null when it is new.
    pub old: &'a Value,
    pub request: &'a Value,
    pub params: &'a Value,
    pub namespace: &'a Value,
    /// Who answers what somebody may do.
    pub authorizer: &'a dyn Authorizing,
}

/// Answers what the one who asks, or an account, may do.
pub(crate) trait Authorizing {
    /// Whether it is allowed, and why.
    fn decide(&self, question: &Question, verb: &str) -> (bool, String);
}

/// What an expression gave.
#[derive(Debug, PartialEq)]
pub(crate) enum Given {
    Bool(bool),
    Text(String),
    Null,
    Other,
}

/// Why an expression gave nothing.
#[derive(Debug, PartialEq)]
pub(crate) enum Trouble {
    /// It took too long, alone or with those before it.
    Spent,
    /// In words.
    Error(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spent => f.write_str(
                "validation failed due to running out of cost budget, no further validation rules will be run",
            ),
            Self::Error(why) => f.write_str(why),
        }
    }
}

/// Evaluates expressions about one request, within one budget.
pub(crate) struct Evaluation<'a, 'p> {
    inputs: Inputs<'a>,
    variables: &'p [(String, Program)],
    values: RefCell<HashMap<String, Outcome<'a>>>,
    /// Levels of the variables that are being worked out, each because the one before it asked.
    levels: Cell<usize>,
    budget: Budget,
}

impl<'a, 'p> Evaluation<'a, 'p> {
    pub fn new(inputs: Inputs<'a>, variables: &'p [(String, Program)]) -> Self {
        let (values, levels) = (RefCell::default(), Cell::new(0));
        Self { inputs, variables, values, levels, budget: Budget::of_object() }
    }

    /// Evaluates one.
    ///
    /// # Errors
    /// Why it has no value.
    pub fn evaluate(&self, program: &Program) -> Result<Given, Trouble> {
        self.told(program, |value| {
            Ok(match value {
                Val::Bool(value) => Given::Bool(value),
                Val::Null => Given::Null,
                Val::Text(text) => Given::Text(text.to_string()),
                _ => Given::Other,
            })
        })
    }

    /// Evaluates one that gives an object to lay over another.
    ///
    /// # Errors
    /// Why it has none.
    pub fn object(&self, program: &Program) -> Result<Value, Trouble> {
        self.told(program, |value| build::object(&value, &self.budget))
    }

    /// Evaluates one that gives a JSON patch.
    ///
    /// # Errors
    /// Why it has none.
    pub fn patch(&self, program: &Program) -> Result<Value, Trouble> {
        self.told(program, |value| build::patch(&value, &self.budget))
    }

    fn told<T>(
        &self,
        program: &Program,
        read: impl FnOnce(Val<'a>) -> Result<T, Failure>,
    ) -> Result<T, Trouble> {
        self.budget.begin_rule();
        self.inner(program).and_then(read).map_err(|failure| match failure {
            Failure::Spent => {
                self.budget.spend_all();
                Trouble::Spent
            }
            Failure::Error(why) => {
                Trouble::Error(format!("expression '{}' resulted in error: {why}", program.text))
            }
        })
    }

    fn inner(&self, program: &Program) -> Outcome<'a> {
        let Inputs { object, old, request, params, namespace, .. } = self.inputs;
        let mut evaluator = Evaluator::new(&self.budget, &program.patterns).within(self);
        for (name, value, node) in [
            ("object", object, None),
            ("oldObject", old, None),
            ("request", request, Some(&*REQUEST)),
            ("params", params, None),
            ("namespaceObject", namespace, Some(&*NAMESPACE)),
        ] {
            evaluator.bind(name, Val::of(value, node));
        }
        evaluator.bind("authorizer", Val::Authorizer(Question::of(request)));
        evaluator.evaluate(&program.expression)
    }
}

impl<'a> Surroundings<'a> for Evaluation<'a, '_> {
    fn variable(&self, name: &str) -> Option<Outcome<'a>> {
        if let Some(known) = self.values.borrow().get(name) {
            return Some(known.clone());
        }
        let (_, program) = self.variables.iter().find(|(own, _)| own == name)?;
        let levels = self.levels.get() + program.depth;
        if levels > VARIABLES_DEPTH_MAX {
            return Some(Err(Failure::Error("variables use each other over too many levels".to_owned())));
        }
        self.levels.set(levels);
        let outcome = self.inner(program);
        self.levels.set(levels - program.depth);
        self.values.borrow_mut().insert(name.to_owned(), outcome.clone());
        Some(outcome)
    }

    fn decide(&self, question: &Question, verb: &str) -> (bool, String) {
        self.inputs.authorizer.decide(question, verb)
    }
}
