//! The patch that `apply` sends: from what was applied last, what is wanted now, and what is there.
//!
//! Fields that were applied last and are no longer wanted are deleted; wanted ones are set; all others,
//! which defaults, controllers and people added, are left alone. With a schema the patch is a strategic
//! merge patch, whose lists merge by key; without one it is a JSON merge patch, whose lists are whole.
//! Format: Kubernetes "Strategic Merge Patch" (sig-api-machinery) and RFC 7386. Pure.

use claw_schemas::schema::{MergeRule, Place};
use serde_json::{Map, Value, json};

/// An empty map when there is nothing to change.
pub fn patch(last: &Value, wanted: &Value, current: &Value, schema: Option<Place<'_>>) -> Value {
    Value::Object(maps(last, wanted, current, schema))
}

type Patch = Map<String, Value>;

fn maps(last: &Value, wanted: &Value, current: &Value, place: Option<Place<'_>>) -> Patch {
    let mut patch = Patch::new();
    for (key, wanted) in wanted.as_object().into_iter().flatten() {
        let place = place.and_then(|place| place.field(key));
        match current.get(key) {
            None | Some(Value::Null) if wanted.is_null() => {}
            None => {
                patch.insert(key.clone(), wanted.clone());
            }
            Some(current) => field(&mut patch, key, &last[key], wanted, current, place),
        }
    }
    for key in last.as_object().into_iter().flatten().map(|(key, _)| key) {
        if wanted.get(key).is_none() && current.get(key).is_some() {
            patch.insert(key.clone(), Value::Null);
        }
    }
    patch
}

/// A field that exists and is wanted.
fn field(
    patch: &mut Patch,
    key: &str,
    last: &Value,
    wanted: &Value,
    current: &Value,
    place: Option<Place<'_>>,
) {
    let rule = place.and_then(Place::rule);
    match (wanted, current) {
        (Value::Object(fields), Value::Object(_)) => {
            let mut inner = maps(last, wanted, current, place);
            if !inner.is_empty() {
                if rule.is_some_and(|rule| rule.retain_keys) {
                    inner.insert("$retainKeys".to_owned(), keys_of(fields));
                }
                patch.insert(key.to_owned(), Value::Object(inner));
            }
        }
        (Value::Array(items), Value::Array(there)) if rule.is_some_and(|rule| rule.merge) => {
            let empty = Vec::new();
            let lists = Lists { last: last.as_array().unwrap_or(&empty), wanted: items, current: there };
            let rule = rule.expect("the guard saw a rule");
            match rule.merge_key {
                Some(merge_key) => lists.by_key(patch, key, merge_key, rule, place),
                None => lists.of_scalars(patch, key),
            }
        }
        _ if wanted != current => {
            patch.insert(key.to_owned(), wanted.clone());
        }
        _ => {}
    }
}

fn keys_of(fields: &Map<String, Value>) -> Value {
    fields.keys().cloned().collect()
}

/// One list that merges, as it was applied last, is wanted, and is.
struct Lists<'a> {
    last: &'a [Value],
    wanted: &'a [Value],
    current: &'a [Value],
}

impl Lists<'_> {
    /// Items are told apart by a field.
    fn by_key(&self, patch: &mut Patch, field: &str, key: &str, rule: &MergeRule, place: Option<Place<'_>>) {
        if !(distinct(self.wanted, key) && distinct(self.current, key)) {
            // Two items under one key cannot be addressed one by one.
            return self.whole(patch, field);
        }
        let items = place.and_then(Place::items);
        let mut changes = Vec::new();
        for wanted in self.wanted {
            let Some(current) = find(self.current, key, &wanted[key]) else {
                changes.push(wanted.clone());
                continue;
            };
            let last = find(self.last, key, &wanted[key]).unwrap_or(&Value::Null);
            let mut change = maps(last, wanted, current, items);
            if !change.is_empty() {
                if let (true, Value::Object(fields)) = (rule.retain_keys, wanted) {
                    change.insert("$retainKeys".to_owned(), keys_of(fields));
                }
                change.insert(key.to_owned(), wanted[key].clone());
                changes.push(Value::Object(change));
            }
        }
        for last in self.last {
            let id = &last[key];
            if find(self.wanted, key, id).is_none() && find(self.current, key, id).is_some() {
                changes.push(json!({key: id, "$patch": "delete"}));
            }
        }
        if changes.is_empty() && self.in_order(key) {
            return;
        }
        let order = self.wanted.iter().map(|item| json!({key: item[key]})).collect();
        patch.insert(format!("$setElementOrder/{field}"), Value::Array(order));
        if !changes.is_empty() {
            patch.insert(field.to_owned(), Value::Array(changes));
        }
    }

    /// Items are texts, each at most once.
    fn of_scalars(&self, patch: &mut Patch, field: &str) {
        let added: Vec<Value> =
            self.wanted.iter().filter(|item| !self.current.contains(item)).cloned().collect();
        let removed: Vec<Value> = self
            .last
            .iter()
            .filter(|item| !self.wanted.contains(item) && self.current.contains(item))
            .cloned()
            .collect();
        if !removed.is_empty() {
            patch.insert(format!("$deleteFromPrimitiveList/{field}"), Value::Array(removed));
        }
        if !added.is_empty() {
            patch.insert(field.to_owned(), Value::Array(added));
        }
    }

    /// Replaces the list, unless every wanted item is there already, in place.
    fn whole(&self, patch: &mut Patch, field: &str) {
        let same = self.wanted.len() == self.current.len()
            && self.wanted.iter().zip(self.current).all(|(wanted, current)| covers(current, wanted));
        if !same {
            let mut items = vec![json!({"$patch": "replace"})];
            items.extend_from_slice(self.wanted);
            patch.insert(field.to_owned(), Value::Array(items));
        }
    }

    /// Whether the wanted items stand in the wanted order already.
    fn in_order(&self, key: &str) -> bool {
        let wanted: Vec<&Value> = self.wanted.iter().map(|item| &item[key]).collect();
        let current = self.current.iter().map(|item| &item[key]).filter(|id| wanted.contains(id));
        current.eq(wanted.iter().copied())
    }
}

fn find<'a>(items: &'a [Value], key: &str, id: &Value) -> Option<&'a Value> {
    items.iter().find(|item| item[key] == *id)
}

/// Whether every item has the key, and no two the same.
fn distinct(items: &[Value], key: &str) -> bool {
    items
        .iter()
        .enumerate()
        .all(|(i, item)| item.get(key).is_some() && items[..i].iter().all(|before| before[key] != item[key]))
}

/// Whether all that is wanted is there; more may be.
fn covers(current: &Value, wanted: &Value) -> bool {
    match (current, wanted) {
        (Value::Object(current), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| current.get(key).is_some_and(|current| covers(current, wanted)))
        }
        (current, wanted) => current == wanted,
    }
}

#[cfg(test)]
mod tests {
    use claw_schemas::Registry;

    use super::*;

    fn deployment(last: Value, wanted: Value, current: Value) -> Value {
        let registry = Registry::builtin();
        let schema = registry.named("deploy").unwrap().compiled();
        let pod = |pod: Value| json!({"spec": {"template": {"spec": pod}}});
        let patch = patch(&pod(last), &pod(wanted), &pod(current), Some(schema.root()));
        patch.pointer("/spec/template/spec").cloned().unwrap_or(Value::Null)
    }

    #[test]
    fn what_is_applied_again_changes_nothing_even_where_defaults_were_added() {
        let wanted = json!({"containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 80}]}]});
        let current = json!({
            "containers": [{
                "name": "a", "image": "x", "imagePullPolicy": "Always", "resources": {},
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
            }],
            "restartPolicy": "Always",
        });
        assert_eq!(deployment(wanted.clone(), wanted, current), Value::Null);
    }

    #[test]
    fn a_new_image_touches_that_container_alone() {
        let last = json!({"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y"}]});
        let wanted = json!({"containers": [{"name": "a", "image": "x:2"}, {"name": "b", "image": "y"}]});
        assert_eq!(
            deployment(last.clone(), wanted, last),
            json!({
                "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
                "containers": [{"name": "a", "image": "x:2"}],
            })
        );
    }

    #[test]
    fn what_was_applied_and_is_no_longer_wanted_goes_and_nothing_else() {
        let last = json!({"containers": [
            {"name": "a", "env": [{"name": "K", "value": "1"}, {"name": "L", "value": "2"}]},
            {"name": "b"},
        ], "nodeSelector": {"disk": "ssd"}});
        let wanted = json!({"containers": [{"name": "a", "env": [{"name": "L", "value": "2"}]}]});
        let current = json!({"containers": [
            {"name": "a", "env": [{"name": "K", "value": "1"}, {"name": "L", "value": "2"}]},
            {"name": "b"},
            {"name": "injected-by-somebody"},
        ], "nodeSelector": {"disk": "ssd"}});
        assert_eq!(
            deployment(last, wanted, current),
            json!({
                "$setElementOrder/containers": [{"name": "a"}],
                "containers": [
                    {
                        "name": "a",
                        "$setElementOrder/env": [{"name": "L"}],
                        "env": [{"name": "K", "$patch": "delete"}],
                    },
                    {"name": "b", "$patch": "delete"},
                ],
                "nodeSelector": null,
            })
        );
    }

    #[test]
    fn a_union_keeps_only_the_wanted_member() {
        let last = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
        let wanted = json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]});
        let patch = deployment(last.clone(), wanted, last);
        assert_eq!(
            patch["volumes"][0],
            json!({
                "name": "v", "configMap": {"name": "c"}, "emptyDir": null,
                "$retainKeys": ["configMap", "name"],
            })
        );
    }

    #[test]
    fn a_new_order_alone_is_a_change() {
        let last = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let wanted = json!({"containers": [{"name": "b"}, {"name": "a"}]});
        assert_eq!(
            deployment(last.clone(), wanted, last),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]})
        );
    }

    #[test]
    fn two_ports_of_one_number_are_replaced_whole_and_only_when_they_differ() {
        let port =
            |protocol: &str, name: &str| json!({"containerPort": 53, "protocol": protocol, "name": name});
        let pod = |ports: Vec<Value>| json!({"containers": [{"name": "dns", "ports": ports}]});
        let two = pod(vec![port("TCP", "t"), port("UDP", "u")]);
        assert_eq!(deployment(two.clone(), two.clone(), two.clone()), Value::Null);
        let renamed = pod(vec![port("TCP", "t"), port("UDP", "other")]);
        let patch = deployment(two.clone(), renamed, two);
        assert_eq!(patch["containers"][0]["ports"][0], json!({"$patch": "replace"}));
        assert_eq!(patch["containers"][0]["ports"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn lists_of_texts_gain_and_lose_items_one_by_one() {
        let registry = Registry::builtin();
        let schema = registry.named("cm").unwrap().compiled();
        let finalizers = |list: &[&str]| json!({"metadata": {"finalizers": list}});
        let patch = patch(
            &finalizers(&["a", "b"]),
            &finalizers(&["b", "c"]),
            &finalizers(&["a", "b", "theirs"]),
            Some(schema.root()),
        );
        assert_eq!(
            patch["metadata"],
            json!({"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]})
        );
    }

    #[test]
    fn without_a_schema_lists_are_whole() {
        let last = json!({"spec": {"list": [1, 2], "gone": true}});
        let wanted = json!({"spec": {"list": [1, 3], "cleared": null}});
        let current = json!({"spec": {"list": [1, 2], "gone": true, "cleared": 1, "theirs": 1}});
        assert_eq!(
            patch(&last, &wanted, &current, None),
            json!({"spec": {"list": [1, 3], "gone": null, "cleared": null}})
        );
    }

    #[test]
    fn without_a_last_one_nothing_is_deleted() {
        let wanted = json!({"data": {"a": "1"}});
        let current = json!({"data": {"a": "1", "b": "2"}});
        assert_eq!(patch(&Value::Null, &wanted, &current, None), json!({}));
    }
}
