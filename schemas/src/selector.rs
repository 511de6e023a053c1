//! Label and field selectors: parsing, matching, and printing.
//!
//! Grammar of label selectors: `a=b,c!=d,e in (f,g),h notin (i),j,!k` (Kubernetes "Labels and Selectors").

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
    /// Names the part of the text that is not a requirement, or says that it is too long.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        check_length("label", text)?;
        split_outside_parentheses(text)
            .into_iter()
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(parse_requirement)
            .collect::<Result<_, _>>()
            .map(Self)
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
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|found| values.iter().any(|v| v == found)),
            Requirement::NotIn(key, values) => {
                label(key).is_none_or(|found| values.iter().all(|v| v != found))
            }
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
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

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_requirement(part: &str) -> Result<Requirement, SelectorError> {
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement::Absent(label_key(key, part)?));
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(label_key(key, part)?, vec![label_value(value, part)?]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Requirement::In(label_key(key, part)?, vec![label_value(value, part)?]));
    }
    let Some((key, rest)) = part.split_once(char::is_whitespace) else {
        return Ok(Requirement::Exists(label_key(part, part)?));
    };
    let key = label_key(key, part)?;
    let (operator, list) = rest.trim().split_once('(').unwrap_or((rest, ""));
    let values = list.strip_suffix(')').ok_or_else(|| bad(part))?;
    let values: Vec<String> =
        values.split(',').map(|value| label_value(value, part)).collect::<Result<_, _>>()?;
    match operator.trim() {
        "in" => Ok(Requirement::In(key, values)),
        "notin" => Ok(Requirement::NotIn(key, values)),
        _ => Err(bad(part)),
    }
}

fn bad(part: &str) -> SelectorError {
    SelectorError(format!(
        "unable to parse requirement \"{part}\": use key=value, key!=value, key in (a,b), key notin (a,b), key or !key"
    ))
}

fn label_key(text: &str, part: &str) -> Result<String, SelectorError> {
    let text = text.trim();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if text.is_empty() || text.len() > 317 || !text.chars().all(allowed) {
        return Err(bad(part));
    }
    Ok(text.to_owned())
}

fn label_value(text: &str, part: &str) -> Result<String, SelectorError> {
    let text = text.trim();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.len() > 63 || !text.chars().all(allowed) {
        return Err(bad(part));
    }
    Ok(text.to_owned())
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
    /// Names the part that has no operator, or says that the text is too long.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        check_length("field", text)?;
        let mut all = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (path, value, true)
            } else {
                return Err(SelectorError(format!(
                    "invalid field selector \"{part}\": use path=value or path!=value"
                )));
            };
            all.push(FieldRequirement {
                path: path.trim().to_owned(),
                value: value.trim().to_owned(),
                equal,
            });
        }
        Ok(Self(all))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_operator_selects_what_it_says() {
        let web = labels(&[("app", "web"), ("tier", "front")]);
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
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&web), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_offending_part() {
        for text in ["app=web,tier in front", "a b c", "=x", "app=sp ace", "x in (a"] {
            let error = LabelSelector::parse(text).unwrap_err().to_string();
            assert!(error.contains("unable to parse requirement"), "{text}: {error}");
        }
    }

    #[test]
    fn a_selector_is_no_longer_than_a_url_could_carry() {
        let (labels, fields) = ("!a,".repeat(SELECTOR_BYTES_MAX / 3), "a=b,".repeat(SELECTOR_BYTES_MAX / 4));
        assert!(LabelSelector::parse(&labels).is_ok() && FieldSelector::parse(&fields).is_ok());
        for error in [LabelSelector::parse(&(labels + "!a")), LabelSelector::parse(&"a".repeat(1 << 20))] {
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
        for text in ["a=b", "a!=b", "a in (b,c)", "a notin (b,c)", "a", "!a", "a=b,c"] {
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
        assert!(FieldSelector::parse("nonsense").is_err());
    }
}
