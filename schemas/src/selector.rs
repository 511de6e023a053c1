//! Label and field selectors: parsing, matching, and printing.
//!
//! Grammar of label selectors: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2` (Kubernetes "Labels and Selectors").

mod labels;

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

/// Bytes of a selector: as many as the headers of a request may have, and so as much as a URL could ever carry. Each of
/// its conditions is looked at for every object of a list, and again for every change that a watch sees.
pub const SELECTOR_BYTES_MAX: usize = 64 * 1024;

/// One condition on labels.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    /// The value is a whole number above this one.
    Above(String, i64),
    /// The value is a whole number below this one.
    Below(String, i64),
}

/// A conjunction of label conditions. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

/// What is wrong with a selector, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

impl LabelSelector {
    /// Parses the text form. An empty string selects everything.
    ///
    /// # Errors
    /// Names the text that is no selector, or says that it is too long.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        check_length("label", text)?;
        labels::requirements(text).map(Self)
    }

    /// From the structured form that workloads carry in `spec.selector`.
    ///
    /// # Errors
    /// Names an operator that is not one of In, NotIn, Exists, DoesNotExist.
    pub fn from_meta(selector: &meta::LabelSelector) -> Result<Self, SelectorError> {
        let mut all: Vec<Requirement> = selector
            .match_labels
            .iter()
            .flatten()
            .map(|(key, value)| Requirement::In(key.clone(), vec![value.clone()]))
            .collect();
        for expression in selector.match_expressions.iter().flatten() {
            let (key, values) = (expression.key.clone(), expression.values.clone().unwrap_or_default());
            all.push(match expression.operator.as_str() {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::Absent(key),
                other => {
                    return Err(SelectorError(format!(
                        "\"{other}\" is not a label selector operator: use In, NotIn, Exists or DoesNotExist"
                    )));
                }
            });
        }
        Ok(Self(all))
    }

    /// Whether it selects every object.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Like [`Self::matches`], over any way to look a label up.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let number = |key: &str| label(key).and_then(|found| found.parse::<i64>().ok());
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|found| values.iter().any(|v| v == found)),
            Requirement::NotIn(key, values) => {
                label(key).is_none_or(|found| values.iter().all(|v| v != found))
            }
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
            Requirement::Above(key, bound) => number(key).is_some_and(|found| found > *bound),
            Requirement::Below(key, bound) => number(key).is_some_and(|found| found < *bound),
        })
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match requirement {
                Requirement::In(key, values) => match values.as_slice() {
                    [one] => write!(f, "{key}={one}")?,
                    many => write!(f, "{key} in ({})", many.join(","))?,
                },
                Requirement::NotIn(key, values) => match values.as_slice() {
                    [one] => write!(f, "{key}!={one}")?,
                    many => write!(f, "{key} notin ({})", many.join(","))?,
                },
                Requirement::Exists(key) => f.write_str(key)?,
                Requirement::Absent(key) => write!(f, "!{key}")?,
                Requirement::Above(key, bound) => write!(f, "{key}>{bound}")?,
                Requirement::Below(key, bound) => write!(f, "{key}<{bound}")?,
            }
        }
        Ok(())
    }
}

fn check_length(which: &str, text: &str) -> Result<(), SelectorError> {
    if text.len() <= SELECTOR_BYTES_MAX {
        return Ok(());
    }
    Err(SelectorError(format!(
        "the {which} selector has {} bytes, and may have {SELECTOR_BYTES_MAX}: ask for less at a time",
        text.len()
    )))
}

/// A conjunction of `path=value` and `path!=value` on declared fields. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<FieldRequirement>);

/// One condition of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// `spec.nodeName`
    pub path: String,
    /// The value compared with, as text.
    pub value: String,
    /// `false` for `!=`.
    pub equal: bool,
}

impl FieldSelector {
    /// Parses the text form. Which paths a kind allows is the caller's to check.
    ///
    /// # Errors
    /// Names the part that has no operator or a backslash that stands for nothing, or says that the text is too long.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        check_length("field", text)?;
        let parts = terms(text).into_iter().filter(|part| !part.is_empty());
        parts
            .map(|part| field_requirement(part).ok_or_else(|| bad_field(part)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The conditions, all of which must hold.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.0
    }

    /// Whether it selects every object.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object whose fields read so is selected. A missing field reads as the empty string.
    pub fn matches_with(&self, mut field: impl FnMut(&str) -> String) -> bool {
        self.0.iter().all(|requirement| (field(&requirement.path) == requirement.value) == requirement.equal)
    }

    /// The value that `path` must equal, if the selector pins it.
    pub fn pinned(&self, path: &str) -> Option<&str> {
        self.0.iter().find(|r| r.equal && r.path == path).map(|r| r.value.as_str())
    }
}

/// The parts between commas. One after a backslash belongs to a value.
fn terms(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        if byte == b',' && !escaped {
            parts.push(text[start..at].trim());
            start = at + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    parts.push(text[start..].trim());
    parts
}

/// Splits at the first operator.
fn field_requirement(part: &str) -> Option<FieldRequirement> {
    let at = part.find("!=").into_iter().chain(part.find('=')).min()?;
    let (path, rest) = part.split_at(at);
    let equal = !rest.starts_with('!');
    let value =
        rest.strip_prefix("!=").or_else(|| rest.strip_prefix("==")).or_else(|| rest.strip_prefix('='))?;
    Some(FieldRequirement { path: path.trim().to_owned(), value: unescaped(value.trim())?, equal })
}

/// A value in which backslashes, commas and equals signs stand behind a backslash.
fn unescaped(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => letters.next().filter(|next| matches!(next, '\\' | ',' | '='))?,
            ',' | '=' => return None,
            other => other,
        });
    }
    Some(plain)
}

fn bad_field(part: &str) -> SelectorError {
    SelectorError(format!(
        "invalid field selector \"{part}\": use path=value or path!=value, with \\ before each of \\ , = in the value"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_operator_selects_what_it_says() {
        let web = labels(&[("app", "web"), ("tier", "front"), ("cards", "8")]);
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app!=web", false),
            ("app in (web, db)", true),
            ("app notin (web,db)", false),
            ("missing notin (a)", true),
            ("tier", true),
            ("!tier", false),
            ("app=web,tier=back", false),
            ("app in (web),tier", true),
            ("app in(web , db),  ! missing", true),
            ("tier in (,front)", true),
            ("cards>7,cards<9", true),
            ("cards>8", false),
            ("app>1", false),
            ("missing<1", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&web), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_offending_part() {
        for text in [
            "app=web,tier in front",
            "a b c",
            "=x",
            "app=sp ace",
            "x in (a",
            "x in ()",
            "a,",
            ",a",
            "a>x",
            "!a=b",
            "-a",
            "a=b-",
            "UP.example/a",
            "a/b/c",
            "a=!b",
        ] {
            let error = LabelSelector::parse(text).unwrap_err().to_string();
            assert!(error.contains("unable to parse requirement"), "{text}: {error}");
        }
    }

    #[test]
    fn a_selector_is_no_longer_than_a_url_could_carry() {
        let labels = "!a,".repeat(SELECTOR_BYTES_MAX / 3 - 1) + "!a";
        let fields = "a=b,".repeat(SELECTOR_BYTES_MAX / 4);
        assert!(LabelSelector::parse(&labels).is_ok() && FieldSelector::parse(&fields).is_ok());
        for error in [LabelSelector::parse(&(labels + ",!a")), LabelSelector::parse(&"a".repeat(1 << 20))] {
            assert!(error.unwrap_err().to_string().starts_with("the label selector has"));
        }
        let error = FieldSelector::parse(&(fields + "a=b")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the field selector has 65539 bytes, and may have 65536: ask for less at a time"
        );
    }

    #[test]
    fn printing_and_parsing_agree() {
        for text in ["a=b", "a!=b", "a in (b,c)", "a notin (b,c)", "a", "!a", "a=b,c", "a>1,b<2"] {
            assert_eq!(LabelSelector::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn field_selectors_compare_text() {
        let selector = FieldSelector::parse("spec.nodeName=n1,status.phase!=Running").unwrap();
        let read = |phase: &'static str| {
            move |path: &str| if path == "spec.nodeName" { "n1".to_owned() } else { phase.to_owned() }
        };
        assert!(selector.matches_with(read("Pending")));
        assert!(!selector.matches_with(read("Running")));
        assert_eq!(selector.pinned("spec.nodeName"), Some("n1"));
        let escaped = FieldSelector::parse(r"metadata.name=a\,b\=\\").unwrap();
        assert_eq!(escaped.pinned("metadata.name"), Some(r"a,b=\"));
        for text in ["nonsense", "a=b=c", r"a=\b", r"a=b\"] {
            assert!(FieldSelector::parse(text).is_err(), "{text}");
        }
    }
}
