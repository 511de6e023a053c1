//! Server-side apply as its documents tell it: who owns what, what conflicts, what goes when it is given up.

use std::sync::LazyLock;

use claw_schemas::{Registry, schema::Schema};
use serde_json::{Value, json};

use super::{element::display, *};

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::builtin);

const NOW: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-01T00:00:05Z";

fn subject(kind: &str, scope: Scope) -> Subject<'static> {
    let version = if kind == "Deployment" { "apps/v1" } else { "v1" };
    Subject { schema: REGISTRY.kind(version, kind).unwrap().compiled(), scope, builtin: true }
}

fn manager(name: &str, operation: Operation) -> Manager {
    let api_version = "apps/v1".to_owned();
    Manager { name: name.to_owned(), operation, api_version, subresource: String::new() }
}

/// An object and its owners, written by turns.
struct Tale {
    subject: Subject<'static>,
    object: Value,
    entries: Vec<Entry>,
    now: &'static str,
}

impl Tale {
    fn of(kind: &str) -> Self {
        let subject = subject(kind, Scope::Main);
        Self { subject, object: Value::Null, entries: Vec::new(), now: NOW }
    }

    fn apply(&mut self, name: &str, config: &Value) -> Result<(), Refusal> {
        self.apply_with(name, config, false)
    }

    fn apply_with(&mut self, name: &str, config: &Value, force: bool) -> Result<(), Refusal> {
        let manager = manager(name, Operation::Apply);
        let entries = self.entries.clone();
        let done = apply(&self.subject, &self.object, config, entries, &manager, force, self.now)?;
        (self.object, self.entries) = (done.object, done.entries);
        Ok(())
    }

    fn update(&mut self, name: &str, object: Value) {
        let manager = manager(name, Operation::Update);
        track(&self.subject, &self.object, &object, &mut self.entries, &manager, self.now);
        self.object = object;
    }

    fn owned(&self, name: &str) -> Vec<String> {
        let entries = self.entries.iter().filter(|entry| entry.manager.name == name);
        entries.flat_map(|entry| entry.set().paths()).map(|path| display(&path)).collect()
    }
}

fn conflicts(refusal: &Refusal) -> Vec<(String, String)> {
    let Refusal::Conflicts(conflicts) = refusal else { panic!("{refusal:?}") };
    conflicts.iter().map(|one| (one.manager.name.clone(), display(&one.path))).collect()
}

fn replicas(count: i64) -> Value {
    json!({"spec": {"replicas": count}})
}

fn containers(items: &Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": items}}}})
}

#[test]
fn an_applier_owns_what_it_names_and_nothing_else() {
    let mut tale = Tale::of("Deployment");
    let config = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}, "finalizers": ["a/b"]},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {
                "nodeSelector": {"disk": "ssd"},
                "containers": [{"name": "web", "image": "web:1", "args": ["a"], "ports": [{"containerPort": 80}], "resources": {}}],
            }},
        },
    });
    tale.apply("kubectl", &config).unwrap();
    let container = ".spec.template.spec.containers[name=\"web\"]";
    assert_eq!(
        tale.entries[0].set().to_json(),
        json!({
            "f:metadata": {"f:finalizers": {"v:\"a/b\"": {}}, "f:labels": {"f:app": {}}},
            "f:spec": {
                "f:selector": {},
                "f:template": {"f:spec": {
                    "f:nodeSelector": {},
                    "f:containers": {"k:{\"name\":\"web\"}": {
                        ".": {}, "f:name": {}, "f:image": {}, "f:args": {}, "f:resources": {},
                        "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                    }},
                }},
            },
        }),
        "{container}"
    );
    assert_eq!(tale.object, config);
}

#[test]
fn whoever_updates_a_field_owns_it() {
    let mut tale = Tale::of("ConfigMap");
    tale.update("a", json!({"metadata": {"name": "x", "uid": "u"}, "data": {"k": "1", "l": "1"}}));
    assert_eq!(tale.owned("a"), [".data", ".data.k", ".data.l"]);
    tale.now = LATER;
    tale.update("b", json!({"metadata": {"name": "x", "uid": "u"}, "data": {"k": "2", "l": "1", "m": "2"}}));
    assert_eq!(tale.owned("a"), [".data", ".data.l"]);
    assert_eq!(tale.owned("b"), [".data.k", ".data.m"]);
    let times: Vec<_> = tale.entries.iter().map(|entry| entry.time.as_deref().unwrap()).collect();
    assert_eq!(times, [NOW, LATER], "losing a field is no act of one's own");
    tale.update("a", json!({"metadata": {"name": "x", "uid": "u"}, "data": {"l": "1"}}));
    assert_eq!(tale.owned("b"), Vec::<String>::new());
    assert_eq!(tale.entries.len(), 1, "who owns nothing is forgotten");
}

#[test]
fn a_write_that_changes_nothing_changes_no_owner() {
    let mut tale = Tale::of("ConfigMap");
    let object = json!({"metadata": {"name": "x"}, "data": {"k": "1"}});
    tale.update("a", object.clone());
    let before = tale.entries.clone();
    let mut numbered = object;
    numbered["metadata"]["resourceVersion"] = json!("9");
    numbered["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    tale.update("b", numbered);
    assert_eq!(tale.entries, before);
}

#[test]
fn changing_what_another_owns_is_a_conflict_and_forcing_takes_it() {
    let mut tale = Tale::of("Deployment");
    tale.apply("a", &json!({"spec": {"replicas": 1, "paused": true}})).unwrap();
    tale.update("hpa", json!({"spec": {"replicas": 5, "paused": true}}));
    assert_eq!(tale.owned("a"), [".spec.paused"]);
    let refusal = tale.apply("a", &json!({"spec": {"replicas": 1, "paused": true}})).unwrap_err();
    assert_eq!(conflicts(&refusal), [("hpa".to_owned(), ".spec.replicas".to_owned())]);
    tale.apply_with("a", &json!({"spec": {"replicas": 1, "paused": true}}), true).unwrap();
    assert_eq!(tale.object["spec"]["replicas"], 1);
    assert_eq!(tale.owned("a"), [".spec.paused", ".spec.replicas"]);
    assert_eq!(tale.entries.len(), 1);
}

#[test]
fn each_of_the_three_ways_out_of_a_conflict_leads_out_of_it() {
    let in_conflict = || {
        let mut tale = Tale::of("Deployment");
        tale.apply("a", &json!({"spec": {"replicas": 1, "paused": true}})).unwrap();
        tale.apply_with("b", &json!({"spec": {"replicas": 2, "paused": true}}), true).unwrap();
        assert!(tale.apply("a", &json!({"spec": {"replicas": 1, "paused": true}})).is_err());
        tale
    };
    let owners = |tale: &Tale| (tale.owned("a"), tale.owned("b"));
    let (paused, both) =
        (".spec.paused".to_owned(), vec![".spec.paused".to_owned(), ".spec.replicas".to_owned()]);

    let mut alone = in_conflict();
    alone.apply_with("a", &json!({"spec": {"replicas": 1, "paused": true}}), true).unwrap();
    assert_eq!(
        (&alone.object["spec"]["replicas"], owners(&alone)),
        (&json!(1), (both.clone(), vec![paused.clone()]))
    );
    let mut nobody = in_conflict();
    nobody.apply("a", &json!({"spec": {"paused": true}})).unwrap();
    assert_eq!(
        (&nobody.object["spec"]["replicas"], owners(&nobody)),
        (&json!(2), (vec![paused], both.clone()))
    );
    let mut shared = in_conflict();
    shared.apply("a", &json!({"spec": {"replicas": 2, "paused": true}})).unwrap();
    assert_eq!((&shared.object["spec"]["replicas"], owners(&shared)), (&json!(2), (both.clone(), both)));
}

#[test]
fn a_shared_field_is_changed_by_neither_of_its_owners_without_a_conflict() {
    let mut tale = Tale::of("Deployment");
    tale.apply("a", &replicas(3)).unwrap();
    tale.apply("b", &replicas(3)).unwrap();
    for (who, other) in [("a", "b"), ("b", "a")] {
        let refusal = tale.apply(who, &replicas(4)).unwrap_err();
        assert_eq!(conflicts(&refusal), [(other.to_owned(), ".spec.replicas".to_owned())]);
    }
}

#[test]
fn what_an_applier_never_named_it_cannot_remove() {
    let mut tale = Tale::of("ConfigMap");
    tale.update("u", json!({"data": {"k": "1", "l": "1"}}));
    tale.apply("a", &json!({"data": {"k": "1"}})).unwrap();
    tale.apply("a", &json!({})).unwrap();
    assert_eq!(tale.object, json!({"data": {"k": "1", "l": "1"}}));
}

#[test]
fn conflicts_are_listed_for_every_manager_and_field() {
    let mut tale = Tale::of("Deployment");
    tale.apply("b", &containers(&json!([{"name": "x", "image": "1", "tty": true}]))).unwrap();
    tale.apply("a", &replicas(1)).unwrap();
    let mut config = containers(&json!([{"name": "x", "image": "2", "tty": false}]));
    config["spec"]["replicas"] = json!(2);
    let refusal = tale.apply("c", &config).unwrap_err();
    let item = ".spec.template.spec.containers[name=\"x\"]";
    let expected = [("a", ".spec.replicas"), ("b", &format!("{item}.image")), ("b", &format!("{item}.tty"))];
    let expected: Vec<_> =
        expected.iter().map(|(who, path)| ((*who).to_owned(), (*path).to_owned())).collect();
    assert_eq!(conflicts(&refusal), expected);
}

#[test]
fn equal_values_are_shared_and_stay_until_the_last_owner_gives_up() {
    let mut tale = Tale::of("Deployment");
    tale.apply("a", &replicas(3)).unwrap();
    tale.apply("b", &replicas(3)).unwrap();
    assert_eq!((tale.owned("a"), tale.owned("b")), (vec![".spec.replicas".to_owned()], tale.owned("a")));
    tale.apply("a", &json!({"spec": {}})).unwrap();
    assert_eq!(tale.object["spec"]["replicas"], 3);
    tale.apply("b", &json!({})).unwrap();
    assert!(tale.object["spec"].get("replicas").is_none());
}

#[test]
fn what_an_updater_owns_too_stays_when_an_applier_gives_it_up() {
    let mut tale = Tale::of("Deployment");
    tale.update("u", json!({"spec": {"replicas": 3, "paused": true}}));
    tale.apply("a", &replicas(3)).unwrap();
    tale.apply("a", &json!({})).unwrap();
    assert_eq!(tale.object, json!({"spec": {"replicas": 3, "paused": true}}));
    assert_eq!(tale.owned("u"), [".spec.paused", ".spec.replicas"]);
}

#[test]
fn items_that_are_given_up_go_with_what_others_left_unowned_in_them() {
    let mut tale = Tale::of("Deployment");
    tale.apply("a", &containers(&json!([{"name": "x", "image": "1"}, {"name": "y", "image": "1"}]))).unwrap();
    // What defaults fill in belongs to nobody.
    let defaulted = containers(
        &json!([{"name": "x", "image": "1", "tty": true}, {"name": "y", "image": "1", "tty": true}]),
    );
    tale.object = defaulted;
    tale.apply("a", &containers(&json!([{"name": "y", "image": "1"}]))).unwrap();
    assert_eq!(tale.object, containers(&json!([{"name": "y", "image": "1", "tty": true}])));
}

#[test]
fn an_item_that_another_applier_owns_too_keeps_only_what_is_owned() {
    let mut tale = Tale::of("Deployment");
    tale.apply("a", &containers(&json!([{"name": "x", "image": "1"}]))).unwrap();
    tale.apply("b", &containers(&json!([{"name": "x", "tty": true}]))).unwrap();
    tale.apply("a", &json!({})).unwrap();
    assert_eq!(tale.object, containers(&json!([{"name": "x", "tty": true}])));
    tale.apply("b", &json!({})).unwrap();
    assert!(tale.object["spec"]["template"]["spec"].get("containers").is_none(), "{}", tale.object);
}

#[test]
fn entries_of_maps_and_values_of_sets_are_owned_one_by_one() {
    let mut tale = Tale::of("ConfigMap");
    tale.apply("a", &json!({"metadata": {"labels": {"a": "1"}, "finalizers": ["a/a"]}, "data": {"k": "1"}}))
        .unwrap();
    tale.apply("b", &json!({"metadata": {"labels": {"b": "1"}, "finalizers": ["b/b"]}, "data": {"l": "1"}}))
        .unwrap();
    tale.apply("a", &json!({})).unwrap();
    assert_eq!(
        tale.object,
        json!({"metadata": {"labels": {"b": "1"}, "finalizers": ["b/b"]}, "data": {"l": "1"}})
    );
}

#[test]
fn atomic_parts_change_owner_as_a_whole() {
    let mut tale = Tale::of("Pod");
    let config = |selector: Value| json!({"spec": {"nodeSelector": selector}});
    tale.apply("a", &config(json!({"x": "1"}))).unwrap();
    let refusal = tale.apply("b", &config(json!({"y": "1"}))).unwrap_err();
    assert_eq!(conflicts(&refusal), [("a".to_owned(), ".spec.nodeSelector".to_owned())]);
    tale.apply_with("b", &config(json!({"y": "1"})), true).unwrap();
    assert_eq!(tale.object, config(json!({"y": "1"})));
    assert!(tale.owned("a").is_empty());
}

#[test]
fn lists_that_are_told_apart_merge_in_the_order_of_the_configuration() {
    let items = |names: &str| -> Value {
        let items: Vec<Value> = names.split_whitespace().map(|name| json!({"name": name})).collect();
        containers(&items.into())
    };
    for (live, config, merged) in [
        ("a b c", "b", "a b c"),
        ("a b c", "c a", "b c a"),
        ("x s", "n s", "x n s"),
        ("s x", "s n", "s x n"),
        ("b x a", "a b", "x a b"),
        ("b a x", "a b", "a x b"),
        ("a b", "c d", "a b c d"),
        ("", "a b", "a b"),
    ] {
        let mut tale = Tale::of("Deployment");
        tale.update("u", items(live));
        tale.apply("a", &items(config)).unwrap();
        assert_eq!(tale.object, items(merged), "{live} + {config}");
    }
}

#[test]
fn ports_are_told_apart_by_the_protocol_that_they_leave_out() {
    let ports = |ports: Value| containers(&json!([{"name": "x", "ports": ports}]));
    let mut tale = Tale::of("Deployment");
    tale.update(
        "u",
        ports(json!([{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}])),
    );
    tale.apply("a", &ports(json!([{"containerPort": 53, "name": "dns"}]))).unwrap();
    assert_eq!(
        tale.object,
        ports(
            json!([{"containerPort": 53, "protocol": "TCP", "name": "dns"}, {"containerPort": 53, "protocol": "UDP"}])
        )
    );
}

#[test]
fn a_configuration_with_items_that_cannot_be_told_apart_is_refused() {
    let item = ".spec.template.spec.containers";
    for (config, why) in [
        (json!([{"name": "x"}, {"name": "x"}]), format!("{item}: duplicate entries for key [name=\"x\"]")),
        (
            json!([{"image": "x"}]),
            format!(
                "{item}: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)"
            ),
        ),
        (
            json!([{"name": "x", "env": [{"name": "A"}, {"name": "A"}]}]),
            format!("{item}[name=\"x\"].env: duplicate entries for key [name=\"A\"]"),
        ),
    ] {
        let refusal = Tale::of("Deployment").apply("a", &containers(&config)).unwrap_err();
        let Refusal::Fault(fault) = refusal else { panic!("{refusal:?}") };
        assert_eq!(fault.to_string(), why);
    }
}

#[test]
fn duplicates_that_are_there_already_are_one_piece() {
    let env = |values: &[&str]| -> Value {
        let items: Vec<Value> = values.iter().map(|value| json!({"name": "A", "value": value})).collect();
        containers(&json!([{"name": "x", "env": items}]))
    };
    let mut tale = Tale::of("Deployment");
    tale.update("u", env(&["1", "2"]));
    let item = ".spec.template.spec.containers[name=\"x\"].env[name=\"A\"]";
    assert!(tale.owned("u").contains(&item.to_owned()), "{:?}", tale.owned("u"));
    tale.apply_with("a", &env(&["3"]), true).unwrap();
    assert_eq!(tale.object, env(&["3"]), "one that is named replaces them all");
}

#[test]
fn an_object_that_nobody_kept_account_of_belongs_to_whoever_was_before() {
    let mut tale = Tale::of("Deployment");
    tale.object = replicas(1);
    let refusal = tale.apply("a", &replicas(2)).unwrap_err();
    assert_eq!(conflicts(&refusal), [(BEFORE_APPLY.to_owned(), ".spec.replicas".to_owned())]);
    tale.apply("a", &replicas(1)).unwrap();
    assert_eq!(
        (tale.owned("a"), tale.owned(BEFORE_APPLY)),
        (vec![".spec.replicas".to_owned()], tale.owned("a"))
    );
}

#[test]
fn applying_again_changes_nothing_not_even_the_time() {
    let mut tale = Tale::of("Deployment");
    let config = containers(&json!([{"name": "x", "image": "1"}]));
    tale.apply("a", &config).unwrap();
    let before = (tale.object.clone(), tale.entries.clone());
    tale.now = LATER;
    tale.apply("a", &config).unwrap();
    assert_eq!((tale.object, tale.entries), before);
}

#[test]
fn what_a_path_does_not_reach_is_not_owned_through_it() {
    let both = json!({"spec": {"replicas": 1}, "status": {"replicas": 1}});
    for (scope, owned) in [(Scope::Main, ".spec.replicas"), (Scope::Status, ".status.replicas")] {
        let mut tale = Tale::of("Deployment");
        tale.subject = subject("Deployment", scope);
        tale.update("u", both.clone());
        assert_eq!(tale.owned("u"), [owned]);
    }
}

#[test]
fn what_no_schema_knows_is_owned_entry_by_entry_and_list_by_list() {
    let schema: &'static Schema =
        Box::leak(Box::new(Schema::compile(&json!({"type": "object", "properties": {
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}))));
    let mut tale = Tale::of("Pod");
    tale.subject = Subject { schema, scope: Scope::Main, builtin: false };
    tale.apply("a", &json!({"spec": {"deep": {"x": 1}, "list": [{"name": "a"}]}})).unwrap();
    assert_eq!(
        tale.entries[0].set().to_json(),
        json!({"f:spec": {"f:deep": {".": {}, "f:x": {}}, "f:list": {}}})
    );
    tale.apply("b", &json!({"spec": {"deep": {"y": 2}}})).unwrap();
    let refusal = tale.apply("b", &json!({"spec": {"list": [{"name": "b"}]}})).unwrap_err();
    assert_eq!(conflicts(&refusal), [("a".to_owned(), ".spec.list".to_owned())]);
    tale.apply("a", &json!({})).unwrap();
    assert_eq!(tale.object["spec"], json!({"deep": {"y": 2}}));
}

/// A kind with one map, which is taken apart or is one piece.
fn with_map(ty: &str) -> Subject<'static> {
    let map =
        json!({"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": ty});
    let spec = json!({"type": "object", "properties": {"map": map}});
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    let schema: &'static Schema = Box::leak(Box::new(Schema::compile_custom(&schema)));
    Subject { schema, scope: Scope::Main, builtin: false }
}

fn map(entries: &Value) -> Value {
    json!({"spec": {"map": entries}})
}

#[test]
fn a_map_that_became_one_piece_belongs_to_everybody_who_owned_a_part_of_it() {
    let mut tale = Tale { subject: with_map("granular"), ..Tale::of("Pod") };
    tale.apply("a", &map(&json!({"x": "1"}))).unwrap();
    tale.apply("b", &map(&json!({"y": "1"}))).unwrap();
    tale.subject = with_map("atomic");
    let refusal = tale.apply("c", &map(&json!({"z": "1"}))).unwrap_err();
    let whole = |who: &str| (who.to_owned(), ".spec.map".to_owned());
    assert_eq!(conflicts(&refusal), [whole("a"), whole("b")]);
    tale.update("u", map(&json!({"z": "2"})));
    assert_eq!(tale.owned("u"), [".spec.map"]);
    assert_eq!(tale.entries.len(), 1, "and an update takes it from all of them");
}

#[test]
fn of_a_map_that_is_no_longer_one_piece_its_owner_owns_the_map_and_nobody_the_parts() {
    let mut tale = Tale { subject: with_map("atomic"), ..Tale::of("Pod") };
    tale.apply("one", &map(&json!({"key1": "1", "key2": "1"}))).unwrap();
    tale.subject = with_map("granular");
    tale.apply("two", &map(&json!({"key1": "2"}))).unwrap();
    assert_eq!(tale.object, map(&json!({"key1": "2", "key2": "1"})));
    assert_eq!(
        (tale.owned("one"), tale.owned("two")),
        (vec![".spec.map".to_owned()], vec![".spec.map.key1".to_owned()])
    );
}

/// What kubectl's client-side apply leaves behind.
fn applied_by_the_client(replicas: i64, image: &str) -> (Value, Value) {
    let mut config = containers(&json!([{"name": "x", "image": image}]));
    config["apiVersion"] = json!("apps/v1");
    config["kind"] = json!("Deployment");
    config["metadata"] = json!({"name": "web"});
    config["spec"]["replicas"] = json!(replicas);
    let mut object = config.clone();
    object["metadata"]["annotations"] = json!({LAST_APPLIED: format!("{config}\n")});
    (object, config)
}

fn by_kubectl(tale: &mut Tale, config: &Value) -> Result<(), Halt> {
    let (manager, versions) = (manager("kubectl", Operation::Apply), Versions::alone(tale.subject));
    let entries = tale.entries.clone();
    let done = apply_over_last(&versions, &tale.object, config, entries, &manager, false, LATER)?;
    (tale.object, tale.entries) = (done.object, done.entries);
    Ok(())
}

#[test]
fn kubectl_goes_on_from_its_client_side_apply_without_a_conflict() {
    let mut tale = Tale::of("Deployment");
    let (object, _) = applied_by_the_client(1, "web:1");
    tale.update("kubectl-client-side-apply", object);
    let (_, next) = applied_by_the_client(2, "web:2");
    by_kubectl(&mut tale, &next).unwrap();
    assert_eq!(tale.object["spec"]["replicas"], 2);
    let kept: Value =
        serde_json::from_str(tale.object["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap()).unwrap();
    assert_eq!(kept, next, "the annotation follows");
}

#[test]
fn who_is_not_kubectl_does_not_go_on_from_client_side_apply() {
    let mut tale = Tale::of("Deployment");
    let (object, _) = applied_by_the_client(1, "web:1");
    tale.update("kubectl-client-side-apply", object);
    let refusal = tale.apply("my-manager", &replicas(2)).unwrap_err();
    assert_eq!(conflicts(&refusal), [("kubectl-client-side-apply".to_owned(), ".spec.replicas".to_owned())]);
}

#[test]
fn kubectl_does_not_take_what_others_changed_after_its_client_side_apply() {
    let mut tale = Tale::of("Deployment");
    let (mut object, _) = applied_by_the_client(1, "web:1");
    tale.update("kubectl-client-side-apply", object.clone());
    object["spec"]["replicas"] = json!(5);
    tale.update("hpa", object);
    let (_, next) = applied_by_the_client(2, "web:2");
    let Halt::Refused(refusal) = by_kubectl(&mut tale, &next).unwrap_err() else { panic!("no refusal") };
    assert_eq!(conflicts(&refusal), [("hpa".to_owned(), ".spec.replicas".to_owned())]);
}

#[test]
fn giving_up_the_last_label_leaves_the_name() {
    let mut tale = Tale::of("ConfigMap");
    tale.apply("a", &json!({"metadata": {"name": "x", "labels": {"l": "1"}}})).unwrap();
    tale.apply("a", &json!({"metadata": {"name": "x"}})).unwrap();
    assert_eq!(tale.object, json!({"metadata": {"name": "x"}}));
}
