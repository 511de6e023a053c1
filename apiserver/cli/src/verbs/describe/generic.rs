//! Any kind: metadata, then every field under its own name.

use serde_json::Value;

use super::{Sheet, describe_metadata, sheet::plain};
use crate::verbs::session::text;

pub fn describe(sheet: &mut Sheet, object: &Value) {
    describe_metadata(sheet, object);
    sheet.known(0, "API Version", text(object, "/apiVersion"));
    sheet.known(0, "Kind", text(object, "/kind"));
    let secret = text(object, "/kind") == "Secret";
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            "metadata" | "apiVersion" | "kind" => {}
            // Secrets are for their readers, not for whoever looks over a shoulder.
            "data" | "stringData" if secret => sizes(sheet, value),
            _ => field(sheet, 0, key, value),
        }
    }
}

fn field(sheet: &mut Sheet, level: usize, key: &str, value: &Value) {
    let title = title(key);
    match value {
        Value::Object(map) if map.is_empty() => sheet.pair(level, &title, "<none>"),
        Value::Object(map) => {
            sheet.heading(level, &title);
            for (key, value) in map {
                // Keys of data are names, not words.
                if title == "Data" {
                    sheet.pair(level + 1, key, plain(value))
                } else {
                    field(sheet, level + 1, key, value)
                }
            }
        }
        Value::Array(list) if list.is_empty() => sheet.pair(level, &title, "<none>"),
        Value::Array(list) if list.iter().all(|item| !item.is_object() && !item.is_array()) => {
            sheet.pair(level, &title, list.iter().map(plain).collect::<Vec<_>>().join("\n"));
        }
        Value::Array(list) => {
            sheet.heading(level, &title);
            for (i, item) in list.iter().enumerate() {
                field(sheet, level + 1, &format!("{}", i + 1), item);
            }
        }
        leaf => sheet.pair(level, &title, plain(leaf)),
    }
}

fn sizes(sheet: &mut Sheet, data: &Value) {
    sheet.heading(0, "Data");
    for (key, value) in data.as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
        sheet.pair(1, key, format!("{} bytes", (text.len() / 4 * 3).saturating_sub(padding)));
    }
}

/// `renewTime` → `Renew Time`
fn title(key: &str) -> String {
    let mut title = String::new();
    let mut after_lower = false;
    for (i, c) in key.chars().enumerate() {
        if i == 0 {
            title.extend(c.to_uppercase());
        } else {
            if c.is_uppercase() && after_lower {
                title.push(' ');
            }
            title.push(c);
        }
        after_lower = c.is_lowercase();
    }
    title
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_is_shown_under_its_own_name() {
        let mut sheet = Sheet::default();
        describe(
            &mut sheet,
            &json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "l", "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"renewTime": "now", "list": [{"a": 1}], "words": ["x", "y"], "none": {}},
            }),
        );
        assert_eq!(
            sheet.render(),
            "Name:               l\n\
             Namespace:          n\n\
             Labels:             <none>\n\
             Annotations:        <none>\n\
             CreationTimestamp:  2026-01-01T00:00:00Z\n\
             API Version:        coordination.k8s.io/v1\n\
             Kind:               Lease\n\
             Spec:\n\
             \u{20} List:\n\
             \u{20}   1:\n\
             \u{20}     A:  1\n\
             \u{20} None:        <none>\n\
             \u{20} Renew Time:  now\n\
             \u{20} Words:       x\n\
             \u{20}              y\n"
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut sheet = Sheet::default();
        describe(&mut sheet, &json!({"kind": "Secret", "metadata": {}, "data": {"k": "c2VzYW1l"}}));
        let text = sheet.render();
        assert!(text.contains("k:  6 bytes") && !text.contains("c2VzYW1l"), "{text}");
    }
}
