//! The plan, without any server: sweeps and pods go in, a list of actions comes out.

use claw_runtime::Caches;
use claw_testing::object;
use serde_json::{Value, json};

use super::*;

/// Three values, two at a time.
fn sweep(changes: &Value) -> Arc<Sweep> {
    let mut sweep = json!({
        "metadata": {"name": "rate", "namespace": "default", "uid": "u", "generation": 1},
        "spec": {"image": "train", "args": ["--rate=$(VALUE)"], "values": ["0.1", "0.2", "0.3"], "parallelism": 2},
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        sweep["spec"][name] = value.clone();
    }
    Arc::new(object(sweep))
}

/// The pod of a value, in a phase.
fn pod(value: &str, phase: &str) -> Pod {
    let sweep = sweep(&json!({}));
    let mut pod = new_pod(&sweep, &pod_name(&sweep, value), value);
    pod.status = Some(object(json!({"phase": phase})));
    pod
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn plan(sweep: &Arc<Sweep>, pods: Vec<Pod>, now: Timestamp) -> Plan {
    let caches = Caches::offline();
    caches.set(pods);
    Sweeps.plan(sweep, &caches.world(), now)
}

/// What a plan does, each action in a line; pods by the value they run, which their names do not tell.
fn actions(plan: &Plan) -> Vec<String> {
    let value_of = |line: String| {
        let values = ["0.1", "0.2", "0.3", "old"];
        let named = |value: &&str| line.ends_with(&pod_name(&sweep(&json!({})), value));
        let value = values.into_iter().find(named).map_or_else(|| line.clone(), str::to_owned);
        format!("{} {value}", line.split(' ').next().unwrap())
    };
    plan.actions.iter().map(|action| value_of(action.to_string())).collect()
}

fn condition(plan: &Plan) -> (String, String, String) {
    let found = &plan.status.as_ref().unwrap()["conditions"][0];
    assert_eq!(found["type"], COMPLETE);
    let text = |name: &str| found[name].as_str().unwrap().to_owned();
    (text("status"), text("reason"), text("message"))
}

fn says(status: &str, reason: &str, message: &str) -> (String, String, String) {
    (status.to_owned(), reason.to_owned(), message.to_owned())
}

#[test]
fn as_many_pods_are_started_as_may_run_at_a_time() {
    let fresh = plan(&sweep(&json!({})), vec![], at(0));
    let created = actions(&fresh);
    assert!(created.len() == 2 && created.iter().all(|line| line.starts_with("create ")), "{created:?}");
    assert_eq!(condition(&fresh), says("False", "Running", "3 to go"));
    let busy = plan(&sweep(&json!({})), vec![pod("0.1", "Running"), pod("0.3", "Pending")], at(0));
    assert_eq!(actions(&busy), [""; 0]);
    let room = plan(&sweep(&json!({})), vec![pod("0.1", "Failed"), pod("0.3", "Running")], at(0));
    assert_eq!(actions(&room), ["create 0.2"]);
    assert_eq!(condition(&room), says("False", "Running", "2 to go"));
}

#[test]
fn a_value_that_was_taken_away_takes_its_pod_along_and_its_room_until_it_is_gone() {
    let pods = vec![pod("old", "Running"), pod("0.1", "Running")];
    assert_eq!(actions(&plan(&sweep(&json!({})), pods, at(0))), ["delete old"]);
    let mut leaving = pod("old", "Running");
    leaving.metadata.deletion_timestamp = Some(object(json!("2026-01-01T00:00:00Z")));
    assert_eq!(actions(&plan(&sweep(&json!({})), vec![leaving, pod("0.1", "Running")], at(0))), [""; 0]);
}

#[test]
fn pods_of_others_are_none_of_its_business() {
    let mut other = pod("0.1", "Running");
    other.metadata.owner_references.as_mut().unwrap()[0].uid = "another".to_owned();
    other.metadata.name = Some("other".to_owned());
    assert_eq!(plan(&sweep(&json!({"parallelism": 1})), vec![other], at(0)).actions.len(), 1);
}

#[test]
fn a_sweep_is_complete_when_every_value_was_run_and_says_how_it_went() {
    let pods = |last: &str| vec![pod("0.1", "Succeeded"), pod("0.2", "Succeeded"), pod("0.3", last)];
    let good = plan(&sweep(&json!({})), pods("Succeeded"), at(0));
    assert_eq!(condition(&good), says("True", "AllSucceeded", ""));
    let bad = plan(&sweep(&json!({})), pods("Failed"), at(0));
    assert_eq!(condition(&bad), says("True", "SomeFailed", "1 failed"));
    let status = bad.status.as_ref().unwrap();
    assert_eq!(
        (&status["succeeded"], &status["failed"], &status["active"]),
        (&json!(2), &json!(1), &json!(0))
    );
    assert_eq!((actions(&bad).len(), bad.requeue_after), (0, None));
}

#[test]
fn a_complete_sweep_goes_when_its_time_has_come() {
    let kept = |now| {
        let mut sweep = sweep(&json!({"ttlSecondsAfterFinished": 60, "values": ["0.1"]}));
        let complete = Condition::build(COMPLETE, "True", "AllSucceeded", "");
        let all = &mut Arc::make_mut(&mut sweep).status.get_or_insert_default().conditions;
        conditions::set(all, complete, Some(1), at(100));
        plan(&sweep, vec![pod("0.1", "Succeeded")], at(now))
    };
    assert_eq!((kept(130).requeue_after, kept(130).actions.len()), (Some(Duration::from_secs(30)), 0));
    assert_eq!(
        kept(160).actions.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["delete sweeps default/rate"]
    );
}

#[test]
fn nothing_is_started_for_a_sweep_that_is_going() {
    let mut going = sweep(&json!({}));
    Arc::make_mut(&mut going).metadata.deletion_timestamp = Some(object(json!("2026-01-01T00:00:00Z")));
    let plan = plan(&going, vec![], at(0));
    assert!(plan.actions.is_empty() && plan.status.is_none(), "{plan:?}");
}

#[test]
fn the_definition_beside_it_is_that_of_the_type() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/definition.yaml");
    let derived = serde_yaml::to_string(&claw_client::custom::definition::<kind::SweepSpec>()).unwrap();
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(file, format!("# Made from src/kind.rs: sweep-controller definition\n{derived}"))
            .unwrap();
    }
    let written: Value = serde_yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let derived: Value = serde_yaml::from_str(&derived).unwrap();
    assert_eq!(written, derived, "write it anew: UPDATE_GENERATED=1 cargo test -p sweep-controller");
}
