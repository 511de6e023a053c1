//! The part of JSONPath that columns and `wait` use: fields, indices, wildcards and comparing filters.
//!
//! Source: the documentation "JSONPath Support" of Kubernetes. Left out are recursive descent (`..`), ranges and unions,
//! of which both could use only the first result anyway.

use serde_json::Value;

/// Steps of one path, which bounds the work of a cell: no sane path has more.
const STEPS_MAX: usize = 64;
/// Filters within filters: each is a call of this parser by itself, whose stack is not for the writer to choose.
const FILTERS_MAX: usize = 8;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// From the end, when negative.
    Index(i64),
    Every,
    Filter(Filter),
}

/// `?(@.type=="Ready")`, or `?(@.type)` for those that have the field.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    path: Vec<Step>,
    compare: Option<(Operator, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

const OPERATORS: [(&str, Operator); 6] = [
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

impl JsonPath {
    /// Parses `.spec.list[0].name`, with or without braces around it; `None` when it is no such path.
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text).trim();
        let mut reader = Reader(bare);
        let steps = reader.steps(FILTERS_MAX)?;
        (reader.0.is_empty() && !bare.is_empty()).then_some(Self(steps))
    }

    /// The first value that the path leads to.
    pub fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        first(&self.0, value)
    }
}

fn first<'v>(steps: &[Step], value: &'v Value) -> Option<&'v Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    match step {
        Step::Field(name) => first(rest, value.get(name)?),
        Step::Index(index) => {
            let items = value.as_array()?;
            let from_end = usize::try_from(index.unsigned_abs()).ok()?;
            let at = if *index < 0 { items.len().checked_sub(from_end)? } else { from_end };
            first(rest, items.get(at)?)
        }
        Step::Every => match value {
            Value::Array(items) => items.iter().find_map(|item| first(rest, item)),
            Value::Object(fields) => fields.values().find_map(|field| first(rest, field)),
            _ => None,
        },
        Step::Filter(filter) => {
            value.as_array()?.iter().filter(|item| filter.holds(item)).find_map(|item| first(rest, item))
        }
    }
}

impl Filter {
    fn holds(&self, item: &Value) -> bool {
        let found = first(&self.path, item);
        match (&self.compare, found) {
            (None, found) => found.is_some(),
            (Some(_), None) => false,
            (Some((operator, wanted)), Some(found)) => operator.holds(found, wanted),
        }
    }
}

impl Operator {
    fn holds(self, found: &Value, wanted: &Value) -> bool {
        let order = match (found, wanted) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (a, b) => (a == b).then_some(std::cmp::Ordering::Equal),
        };
        match self {
            Self::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
            Self::NotEqual => !order.is_some_and(std::cmp::Ordering::is_eq),
            Self::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Self::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Self::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
            Self::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    }
}

/// What is left to read.
struct Reader<'t>(&'t str);

impl<'t> Reader<'t> {
    fn take(&mut self, prefix: &str) -> bool {
        match self.0.strip_prefix(prefix) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn spaces(&mut self) {
        self.0 = self.0.trim_start();
    }

    fn until(&mut self, end: impl Fn(char) -> bool) -> &'t str {
        let at = self.0.find(end).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(at);
        self.0 = rest;
        word
    }

    /// Steps, in which so many filters may lie within each other.
    fn steps(&mut self, filters: usize) -> Option<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            if self.take("[") {
                steps.push(self.bracket(filters)?);
            } else if self.take(".") {
                // A dot alone is the object itself; `.[0]` is `[0]`.
                if !self.0.is_empty() && !self.0.starts_with('[') {
                    steps.push(self.field()?);
                }
            } else {
                return (steps.len() <= STEPS_MAX).then_some(steps);
            }
        }
    }

    /// A field name, in which a dot is written `\.`.
    fn field(&mut self) -> Option<Step> {
        if self.take("*") {
            return Some(Step::Every);
        }
        let mut name = String::new();
        loop {
            name += self.until(|c| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '/')));
            if !self.take("\\") {
                break;
            }
            let mut letters = self.0.chars();
            name.push(letters.next()?);
            self.0 = letters.as_str();
        }
        (!name.is_empty()).then_some(Step::Field(name))
    }

    fn bracket(&mut self, filters: usize) -> Option<Step> {
        self.spaces();
        let step = if self.take("*") {
            Step::Every
        } else if self.take("?(") {
            let filter = self.filter(filters.checked_sub(1)?)?;
            self.spaces();
            self.take(")").then_some(Step::Filter(filter))?
        } else if self.0.starts_with(['\'', '"']) {
            Step::Field(self.text()?)
        } else {
            Step::Index(self.until(|c| c == ']').trim().parse().ok()?)
        };
        self.spaces();
        self.take("]").then_some(step)
    }

    fn filter(&mut self, filters: usize) -> Option<Filter> {
        self.spaces();
        self.take("@").then_some(())?;
        let path = self.steps(filters)?;
        self.spaces();
        let operator = OPERATORS.iter().find(|(sign, _)| self.take(sign)).map(|(_, operator)| *operator);
        let compare = match operator {
            Some(operator) => Some((operator, self.literal()?)),
            None => None,
        };
        Some(Filter { path, compare })
    }

    fn literal(&mut self) -> Option<Value> {
        self.spaces();
        if self.0.starts_with(['\'', '"']) {
            return self.text().map(Value::String);
        }
        let word = self.until(|c| c == ')').trim();
        serde_json::from_str(word).ok()
    }

    fn text(&mut self) -> Option<String> {
        let quote = self.0.chars().next()?;
        self.0 = &self.0[1..];
        let mut text = String::new();
        loop {
            text += self.until(|c| c == quote || c == '\\');
            if self.take("\\") {
                let mut letters = self.0.chars();
                text.push(letters.next()?);
                self.0 = letters.as_str();
            } else {
                return self.take(&quote.to_string()).then_some(text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_their_first_value() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "dotted"}},
            "spec": {"list": [{"n": 1, "v": "x"}, {"n": 2, "v": "y"}, {"n": 3}], "map": {"k": {"v": true}}},
        });
        for (path, expected) in [
            (".spec.list[0].v", json!("x")),
            ("{.spec.list[1].v}", json!("y")),
            (".spec.list[-1].n", json!(3)),
            (".spec.list[*].v", json!("x")),
            (".spec.map.*.v", json!(true)),
            (".spec.list[?(@.n==2)].v", json!("y")),
            (".spec.list[?(@.n > 2)].n", json!(3)),
            (".spec.list[?( @.v == 'y' )].n", json!(2)),
            (".spec.list[?(@.v)].n", json!(1)),
            (r".metadata.labels.a\.b/c", json!("dotted")),
            (".metadata.labels['a.b/c']", json!("dotted")),
        ] {
            assert_eq!(JsonPath::parse(path).unwrap().first(&object), Some(&expected), "{path}");
        }
        for path in [".spec.list[7]", ".spec.list[-4]", ".nope", ".spec.list[?(@.n==9)].v"] {
            assert_eq!(JsonPath::parse(path).unwrap().first(&object), None, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["", "spec", ".spec[", ".spec[a]", ".spec[?(@.x==)]", ".a.['b", ".a b", ".spec..x", "{.a"]
        {
            assert_eq!(JsonPath::parse(text), None, "{text}");
        }
    }

    #[test]
    fn filters_within_filters_end_before_the_stack_does() {
        let nested = |depth: usize| format!(".a{}{}", "[?(@.a".repeat(depth), ")]".repeat(depth));
        assert!(JsonPath::parse(&nested(FILTERS_MAX)).is_some());
        assert_eq!(JsonPath::parse(&nested(FILTERS_MAX + 1)), None);
        assert_eq!(JsonPath::parse(&nested(1_000_000)), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fall_over(text in r"[\.\[\]\(\)\?@*'a-c0-9=<\\ -]{0,40}") {
            if let Some(path) = JsonPath::parse(&text) {
                path.first(&json!({"a": [{"b": 1}, {"c": [2]}]}));
            }
        }
    }
}
