//! Selectors: expressions in CEL about one device. Pure.
//!
//! `device.driver` is text, `device.attributes` and `device.capacity` are maps by domain of maps by name. What has no domain
//! in its name is in the driver's.

use std::{
    collections::{HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
    thread,
};

use k8s_openapi::api::resource::v1::DeviceAttribute;
use kube_cel::{
    KubeCelExt as _,
    cel::{
        Context, Program, Value,
        common::ast::{EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue},
        parser::{Expression, Parser},
    },
};

use super::{cost, inventory::Device};

/// Longest expression, Kubernetes' figure.
const TEXT_BYTES_MAX: usize = 10 * 1024;

/// The parser needs stack for each level, of which a text of the longest size can have thousands.
const PARSER_STACK_BYTES: usize = 128 << 20;

/// Compiled expressions that are kept: those of all classes and claims of a large cluster.
const KEPT_MAX: usize = 1024;

static LIBRARY: LazyLock<Context<'static>> = LazyLock::new(|| Context::default().with_all());
static QUANTITY: LazyLock<Option<Program>> = LazyLock::new(|| Program::compile("quantity(text)").ok());
static SEMVER: LazyLock<Option<Program>> = LazyLock::new(|| Program::compile("semver(text)").ok());

/// One expression, compiled.
#[derive(Debug)]
pub struct Selector {
    text: Arc<str>,
    expression: Expression,
    /// Texts in it: domains that it may ask for.
    texts: HashSet<String>,
}

/// Compiles each expression once.
#[derive(Default)]
pub struct Selectors {
    known: HashMap<String, Result<Arc<Selector>, String>>,
}

impl Selectors {
    /// The expression, or what is wrong with it.
    pub fn get(&mut self, text: &str) -> Result<Arc<Selector>, String> {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        if self.known.len() >= KEPT_MAX {
            self.known.clear();
        }
        let compiled = Selector::compile(text).map(Arc::new);
        self.known.insert(text.to_owned(), compiled.clone());
        compiled
    }
}

impl Selector {
    /// Parses an expression and refuses one that may not be evaluated.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("it has {} bytes, the limit is {TEXT_BYTES_MAX}", text.len()));
        }
        let source = text.to_owned();
        // In a thread of its own: the parser recurses, and a tree that is too deep must be dropped where there is room.
        let parser = thread::Builder::new().stack_size(PARSER_STACK_BYTES).spawn(move || {
            let parser = Parser::new().enable_optional_syntax(true);
            let expression = parser.parse(&source).map_err(|errors| first_line(&errors.to_string()))?;
            cost::check(&expression).map(|()| expression)
        });
        let parser = parser.map_err(|error| format!("no thread to parse it in: {error}"))?;
        let expression = parser.join().unwrap_or_else(|_| Err("the parser gave up on it".to_owned()))?;
        let mut texts = HashSet::new();
        collect_texts(&expression, &mut texts);
        Ok(Self { text: text.into(), expression, texts })
    }

    /// Whether a device is one that is meant. Remembered with the device.
    ///
    /// # Errors
    /// Why it cannot be told, in words.
    pub fn matches(&self, device: &Device) -> Result<bool, String> {
        device.verdict(&self.text, || {
            let evaluated = catch_unwind(AssertUnwindSafe(|| self.evaluate(device)));
            evaluated.unwrap_or_else(|_| Err("the interpreter gave up on it".to_owned()))
        })
    }

    fn evaluate(&self, device: &Device) -> Result<bool, String> {
        let mut scope = LIBRARY.new_inner_scope();
        scope.add_variable_from_value("device", self.value(device));
        match scope.resolve(&self.expression) {
            Ok(Value::Bool(verdict)) => Ok(verdict),
            Ok(other) => Err(format!("must evaluate to bool, but is {}", other.type_of())),
            Err(error) => Err(error.to_string()),
        }
    }

    fn value(&self, device: &Device) -> Value {
        let driver = &device.id.driver;
        let attributes = device.attributes.iter().filter_map(|(name, value)| Some((name, attribute(value)?)));
        let capacity =
            device.capacity.iter().filter_map(|(name, value)| Some((name, made(&QUANTITY, &value.value.0)?)));
        let fields: HashMap<String, Value> = HashMap::from([
            ("driver".to_owned(), driver.to_string().into()),
            ("attributes".to_owned(), self.by_domain(driver, attributes)),
            ("capacity".to_owned(), self.by_domain(driver, capacity)),
        ]);
        fields.into()
    }

    /// A domain that a device knows nothing of is empty rather than missing.
    fn by_domain<'a>(&self, driver: &str, values: impl Iterator<Item = (&'a String, Value)>) -> Value {
        let empty = self.texts.iter().map(|text| (text.clone(), HashMap::new()));
        let mut domains: HashMap<String, HashMap<String, Value>> = empty.collect();
        for (name, value) in values {
            let (domain, name) = name.split_once('/').unwrap_or((driver, name));
            domains.entry(domain.to_owned()).or_default().insert(name.to_owned(), value);
        }
        domains
            .into_iter()
            .map(|(domain, values)| (domain, Value::from(values)))
            .collect::<HashMap<_, _>>()
            .into()
    }
}

fn attribute(attribute: &DeviceAttribute) -> Option<Value> {
    let list = |values: Vec<Value>| Value::List(Arc::new(values));
    let version = |text: &String| made(&SEMVER, text);
    let text = attribute.string.clone().map(Value::from);
    text.or_else(|| attribute.bool.map(Value::Bool))
        .or_else(|| attribute.int.map(Value::Int))
        .or_else(|| attribute.version.as_ref().and_then(version))
        .or_else(|| attribute.strings.clone().map(|all| list(all.into_iter().map(Value::from).collect())))
        .or_else(|| attribute.bools.clone().map(|all| list(all.into_iter().map(Value::Bool).collect())))
        .or_else(|| attribute.ints.clone().map(|all| list(all.into_iter().map(Value::Int).collect())))
        .or_else(|| attribute.versions.as_ref().map(|all| list(all.iter().filter_map(version).collect())))
}

/// What a function of the library makes of a text; its types are its own.
fn made(function: &LazyLock<Option<Program>>, text: &str) -> Option<Value> {
    let mut scope = LIBRARY.new_inner_scope();
    scope.add_variable_from_value("text", text);
    (**function).as_ref()?.execute(&scope).ok()
}

fn first_line(errors: &str) -> String {
    errors.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("syntax error").to_owned()
}

fn collect_texts(expression: &IdedExpr, found: &mut HashSet<String>) {
    let mut each = |inner: &IdedExpr| collect_texts(inner, found);
    match &expression.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).for_each(each),
        Expr::Select(select) => each(&select.operand),
        Expr::List(list) => list.elements.iter().for_each(each),
        Expr::Map(map) => map.entries.iter().flat_map(values).for_each(each),
        Expr::Comprehension(inner) => {
            let parts =
                [&inner.iter_range, &inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result];
            parts.into_iter().for_each(each);
        }
        Expr::Literal(LiteralValue::String(text)) => drop(found.insert(text.inner().to_owned())),
        _ => {}
    }
}

fn values(entry: &IdedEntryExpr) -> Vec<&IdedExpr> {
    match &entry.expr {
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        EntryExpr::StructField(field) => vec![&field.value],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::devices::inventory::build::gpu;

    fn says(text: &str) -> Result<bool, String> {
        Selector::compile(text)?.matches(&gpu("n", "a", serde_json::json!({})))
    }

    #[test]
    fn a_selector_looks_at_driver_attributes_and_capacity() {
        for (text, expected) in [
            ("device.driver == 'gpu.clawbernetes.io'", true),
            ("device.attributes['gpu.clawbernetes.io'].productName == 'NVIDIA H100 80GB HBM3'", true),
            ("device.attributes['gpu.clawbernetes.io'].productName.startsWith('NVIDIA B')", false),
            ("device.attributes['gpu.clawbernetes.io'].driverVersion.isGreaterThan(semver('550.0.0'))", true),
            ("device.attributes['resource.kubernetes.io'].pcieRoot == 'pci0000:00'", true),
            ("device.capacity['gpu.clawbernetes.io'].memory.compareTo(quantity('40Gi')) >= 0", true),
            ("device.capacity['gpu.clawbernetes.io'].memory.isLessThan(quantity('40Gi'))", false),
            ("has(device.attributes['gpu.clawbernetes.io'].replayed)", false),
            ("'uuid' in device.attributes['gpu.clawbernetes.io']", true),
            ("has(device.attributes['somebody.else'].model)", false),
            ("['a', 'b'].exists(name, device.attributes['gpu.clawbernetes.io'].uuid == name)", true),
        ] {
            assert_eq!(says(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_said_in_words() {
        for (text, why) in [
            ("device.attributes['gpu.clawbernetes.io'].colour == 'red'", "colour"),
            ("device.driver", "must evaluate to bool, but is string"),
            ("device.driver ==", ""),
            ("object.spec == 1", "undeclared reference to 'object'"),
            ("'%s'.format([device.driver]) == ''", "undeclared reference to 'format'"),
            ("1 / 0 == 1", "zero"),
        ] {
            let error = says(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn what_may_run_for_long_or_deep_is_not_begun() {
        let list = (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let looped = format!("[{list}].all(a, [{list}].all(b, [{list}].all(c, a + b + c >= 0)))");
        let doubled = format!("[{list}].map(a, [{list}].map(b, [{list}])).size() > 0");
        let deep = format!("{}true{}", "(".repeat(3000), ")".repeat(3000));
        let nested = format!("{}{}.size() == 1", "[".repeat(80), "]".repeat(80));
        for text in [&looped, &doubled, &nested] {
            let error = Selector::compile(text).expect_err("it is refused");
            assert!(error.contains("it may cost") || error.contains("it nests deeper"), "{error}");
        }
        assert!(Selector::compile(&deep).is_err() || says(&deep) == Ok(true));
        assert!(Selector::compile(&"1".repeat(TEXT_BYTES_MAX + 1)).unwrap_err().contains("the limit is"));
    }
}
