//! What kubectl's YAML reader, which is of YAML 1.1, makes of plain words, and ours, of YAML 1.2, leaves texts:
//! `defaultMode: 0400` is a number, `readOnly: yes` is true.
//!
//! A text where a number or a flag has to be can mean nothing else, so the schema tells which texts those are.

use serde_json::Value;

use super::{Place, Scalar, Shape};

pub(super) fn read_plain_words(place: Place<'_>, value: &mut Value) {
    match (place.shape(), value) {
        (Shape::Scalar(scalar), value) => {
            if let Some(meant) = value.as_str().and_then(|text| meant(*scalar, text)) {
                *value = meant;
            }
        }
        (_, Value::Object(fields)) => {
            for (name, value) in fields {
                if let Some(place) = place.field(name) {
                    read_plain_words(place, value);
                }
            }
        }
        (_, Value::Array(values)) => {
            if let Some(place) = place.items() {
                values.iter_mut().for_each(|value| read_plain_words(place, value));
            }
        }
        _ => {}
    }
}

fn meant(scalar: Scalar, text: &str) -> Option<Value> {
    match scalar {
        Scalar::Int32 | Scalar::Int64 => octal(text).map(Value::from),
        Scalar::Boolean => match text {
            "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true.into()),
            "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false.into()),
            _ => None,
        },
        _ => None,
    }
}

/// `0400`, with a zero in front and nothing but digits after it.
fn octal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('0').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    i64::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::Registry;

    #[test]
    fn numbers_and_flags_are_read_where_the_schema_has_them_and_texts_stay_texts() {
        let registry = Registry::builtin();
        let schema = registry.kind("v1", "Pod").unwrap().compiled();
        let mut pod = json!({
            "metadata": {"labels": {"a": "0400", "b": "yes"}},
            "spec": {
                "hostNetwork": "no",
                "volumes": [{"secret": {"defaultMode": "0400", "items": [{"mode": "0x1"}, {"mode": "0800"}]}}],
                "containers": [{"name": "on", "tty": "yes", "stdin": "perhaps", "args": ["0400", "off"]}],
            },
        });
        schema.read_plain_words(&mut pod);
        assert_eq!(
            pod,
            json!({
                "metadata": {"labels": {"a": "0400", "b": "yes"}},
                "spec": {
                    "hostNetwork": false,
                    "volumes": [{"secret": {"defaultMode": 256, "items": [{"mode": "0x1"}, {"mode": "0800"}]}}],
                    "containers": [{"name": "on", "tty": true, "stdin": "perhaps", "args": ["0400", "off"]}],
                },
            })
        );
    }
}
