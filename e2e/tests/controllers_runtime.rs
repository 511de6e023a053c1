//! What the runtime promises to every controller, one promise a test, against the real server: how keys run, when plans
//! may be made, what happens after failures and after the lease is lost, and that events are written and counted.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use claw_client::{
    Client, Transport,
    object::revision_of,
    request::{DeleteOptions, ListOptions, PatchKind},
};
use claw_e2e::{
    gated::Gated,
    wait::{SOON, check, until_async},
};
use claw_runtime::{
    Action, Controller, Env, Leadership, ObjectKey, Plan, Recorder, Runtime, Watches, World,
    driver::RESYNC,
    env::ManualClock,
    events::reference_to,
    lease::{Election, LEASE},
    owner::reference_to as reference_to_owner,
    queue::RETRY_FIRST,
};
use claw_testing::{TestCluster, object};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Event, Namespace, Pod, Secret},
    jiff::Timestamp,
};
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

const NS: &str = "default";

/// Every ConfigMap gets a Secret of its name, but for those named `idle-*`; one named `sure` if the server still has it;
/// and one named `broken` cannot be planned.
#[derive(Clone, Default)]
struct Pairs {
    /// Name, and whether the plan saw the Secret.
    plans: Arc<Mutex<Vec<(String, bool)>>>,
}

impl Controller for Pairs {
    type Object = ConfigMap;

    fn name(&self) -> &'static str {
        "pairs"
    }

    fn watches(&self, watches: &mut Watches<ConfigMap>) {
        // Read, not owned: every plan in these tests is asked for by a test.
        watches.reads::<Secret>();
    }

    fn plan(&self, map: &Arc<ConfigMap>, world: &World, _now: Timestamp) -> Plan {
        let ObjectKey { namespace, name } = ObjectKey::of(&map.metadata);
        let there = world.kind::<Secret>().get(&namespace, &name).is_some();
        self.plans.lock().expect("no panic").push((name.clone(), there));
        assert_ne!(name, "broken", "a plan that cannot be made");
        if there || name.starts_with("idle-") {
            return Plan::nothing();
        }
        let plan =
            if name == "sure" { Plan::nothing().then(Action::confirm(&**map)) } else { Plan::nothing() };
        plan.then(Action::create(&secret(&name)))
    }
}

impl Pairs {
    fn of(&self, name: &str) -> Vec<bool> {
        let plans = self.plans.lock().expect("no panic");
        plans.iter().filter(|(planned, _)| planned == name).map(|(_, there)| *there).collect()
    }

    async fn planned(&self, name: &str, times: usize) {
        until_async(&format!("{name} is planned {times} times"), SOON, || async {
            check(self.of(name).len() >= times, self.of(name).len())
        })
        .await;
    }
}

fn config_map(name: &str) -> ConfigMap {
    object(json!({"metadata": {"name": name, "namespace": NS}}))
}

fn secret(name: &str) -> Secret {
    object(json!({"metadata": {"name": name, "namespace": NS}}))
}

/// A server, a wire that the test holds up, and the controller behind it on the test's clock.
struct Stage {
    cluster: TestCluster,
    wire: Arc<Gated>,
    pairs: Pairs,
    runtime: Runtime,
    clock: ManualClock,
    _running: DropGuard,
}

impl Stage {
    async fn set() -> Self {
        let cluster = TestCluster::start().await;
        let (env, clock) = Env::manual(Timestamp::now(), 7);
        Self::with(cluster, env, clock, Leadership::unchallenged(), |_| {}).await
    }

    /// The cache of secrets is synced, and then sees no change until the wire is opened.
    async fn with_lagging_secrets() -> Self {
        let cluster = TestCluster::start().await;
        let (env, clock) = Env::manual(Timestamp::now(), 7);
        let lag = |wire: &Gated| wire.close("watch secrets");
        Self::with(cluster, env, clock, Leadership::unchallenged(), lag).await
    }

    async fn with(
        cluster: TestCluster,
        env: Env,
        clock: ManualClock,
        leadership: Leadership,
        prepare: impl FnOnce(&Gated),
    ) -> Self {
        let wire = Gated::new(Arc::clone(cluster.client_for("pairs").transport()));
        prepare(&wire);
        let client = Client::new(Arc::clone(&wire) as Arc<dyn Transport>, "pairs");
        let cancel = CancellationToken::new();
        let runtime = Runtime::start(client, env, "pairs", leadership, cancel.clone());
        let pairs = Pairs::default();
        tokio::spawn(runtime.drive(pairs.clone()));
        Self { cluster, wire, pairs, runtime, clock, _running: cancel.drop_guard() }
    }

    async fn create(&self, name: &str) {
        self.cluster.client.namespaced::<ConfigMap>(NS).create(&config_map(name)).await.expect("it is new");
    }

    /// Changes a map, and waits until the controller's cache shows it.
    async fn touch(&self, name: &str, value: usize) {
        let patch = json!({"data": {"touched": value.to_string()}});
        let maps = self.cluster.client.namespaced::<ConfigMap>(NS);
        let touched = maps.patch(name, None, PatchKind::Merge, &patch).await.expect("a valid patch");
        let revision = revision_of(&touched.metadata);
        let cache = self.runtime.caches.of::<ConfigMap>();
        cache.wait_for_revision(revision).await.expect("the cache runs");
    }

    /// When this returns, whatever was ready before it has been planned: keys start in the order in which they were
    /// added.
    async fn everything_ready_has_run(&self, marker: &str) {
        let name = format!("idle-{marker}");
        self.create(&name).await;
        self.pairs.planned(&name, 1).await;
    }

    async fn secrets(&self) -> BTreeSet<String> {
        let all = self.cluster.client.namespaced::<Secret>(NS).list(ListOptions::default()).await;
        all.expect("lists").items.into_iter().filter_map(|secret| secret.metadata.name).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_plan_is_made_before_every_cache_it_reads_is_synced() {
    let cluster = TestCluster::start().await;
    cluster.client.namespaced::<ConfigMap>(NS).create(&config_map("a")).await.expect("it is new");
    cluster.client.namespaced::<Secret>(NS).create(&secret("a")).await.expect("it is new");
    let (env, clock) = Env::manual(Timestamp::now(), 7);
    let slow = |wire: &Gated| wire.close("list secrets");
    let stage = Stage::with(cluster, env, clock, Leadership::unchallenged(), slow).await;
    stage.runtime.caches.of::<ConfigMap>().synced().await.expect("the cache runs");
    // A change makes its way into the cache of maps: a driver that did not wait would have planned by now.
    stage.touch("a", 1).await;
    assert_eq!(stage.pairs.of("a"), [false; 0]);
    stage.wire.open("list secrets");
    stage.pairs.planned("a", 1).await;
    assert!(stage.pairs.of("a")[0], "the first plan saw a cache that was not complete");
    stage.cluster.stop().await;
}

/// Reads a kind that the server does not list.
struct Blocked;

impl Controller for Blocked {
    type Object = ConfigMap;

    fn name(&self) -> &'static str {
        "blocked"
    }

    fn watches(&self, watches: &mut Watches<ConfigMap>) {
        watches.reads::<Pod>();
    }

    fn plan(&self, _: &Arc<ConfigMap>, _: &World, _: Timestamp) -> Plan {
        panic!("it was planned without knowing all pods")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_cannot_be_listed_holds_up_only_those_who_need_it_and_they_say_so() {
    let cluster = TestCluster::start().await;
    let (env, clock) = Env::manual(Timestamp::now(), 7);
    let stage =
        Stage::with(cluster, env, clock, Leadership::unchallenged(), |wire| wire.refuse("list pods")).await;
    stage.runtime.spawn(Blocked);
    // It begins later, and shares a cache with the one that waits.
    let pairs = Pairs::default();
    stage.runtime.spawn(pairs.clone());
    stage.create("a").await;
    pairs.planned("a", 1).await;
    until_async("who waits says for what and why", SOON, || async {
        let waiting = stage.runtime.readiness.waiting();
        let told: Vec<_> = waiting
            .iter()
            .map(|one| (one.controller, one.kind.as_str(), one.error.as_ref().map(|error| error.code)))
            .collect();
        check(told == [("blocked", "pods", Some(403))], format!("{told:?}"))
    })
    .await;
    stage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_runs_once_at_a_time_and_its_triggers_meanwhile_become_one_run() {
    let stage = Stage::set().await;
    stage.wire.close("create secrets");
    stage.create("a").await;
    stage.wire.held_up(1).await;
    for value in 0..50 {
        stage.touch("a", value).await;
    }
    // Other keys go on meanwhile.
    stage.create("b").await;
    stage.wire.held_up(2).await;
    stage.everything_ready_has_run("triggers").await;
    assert_eq!(stage.pairs.of("a").len(), 1, "a second run of one key began before the first had ended");
    stage.wire.open("create secrets");
    until_async("the run that was asked for meanwhile", SOON, || async {
        stage.clock.advance(Duration::from_millis(100));
        check(stage.pairs.of("a").len() > 1, "not yet")
    })
    .await;
    stage.everything_ready_has_run("end").await;
    assert_eq!(stage.pairs.of("a"), [false, true], "fifty triggers are one run");
    stage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_planned_again_only_when_the_caches_show_what_its_last_run_wrote() {
    let stage = Stage::with_lagging_secrets().await;
    stage.create("a").await;
    until_async("the secret is written", SOON, || async {
        check(stage.secrets().await.contains("a"), "not yet")
    })
    .await;
    for value in 0..5 {
        stage.touch("a", value).await;
        stage.clock.advance(Duration::from_secs(1));
        stage.everything_ready_has_run(&value.to_string()).await;
    }
    assert_eq!(stage.pairs.of("a"), [false], "planned on a picture without its own write");
    stage.wire.open("watch secrets");
    until_async("the plan that sees it", SOON, || async {
        stage.clock.advance(Duration::from_millis(100));
        check(stage.pairs.of("a").len() > 1, "not yet")
    })
    .await;
    assert_eq!(stage.pairs.of("a"), [false, true]);
    stage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_fails_backs_off_further_each_time_and_alone() {
    let stage = Stage::set().await;
    stage.wire.refuse("create secrets");
    stage.create("a").await;
    for failures in 1..=5_usize {
        stage.pairs.planned("a", failures).await;
        stage.everything_ready_has_run(&format!("failed-{failures}")).await;
        // The delay is 20 ms doubled with each failure, spread by a fifth.
        let delay = RETRY_FIRST * (1 << (failures - 1));
        stage.clock.advance(delay.mul_f64(0.79));
        stage.everything_ready_has_run(&format!("early-{failures}")).await;
        assert_eq!(stage.pairs.of("a").len(), failures, "tried again before its time");
        stage.clock.advance(delay.mul_f64(0.42));
    }
    stage.wire.open("create secrets");
    stage.pairs.planned("a", 6).await;
    until_async("it succeeds in the end", SOON, || async {
        stage.clock.advance(Duration::from_secs(1));
        check(stage.secrets().await.contains("a"), "not yet")
    })
    .await;
    stage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_confirmation_is_not_done_for_an_object_that_is_gone() {
    let stage = Stage::set().await;
    stage.wire.refuse("create secrets");
    stage.create("sure").await;
    stage.pairs.planned("sure", 1).await;
    stage.wire.close("watch configmaps");
    let maps = stage.cluster.client.namespaced::<ConfigMap>(NS);
    maps.delete("sure", DeleteOptions::default()).await.expect("it is there");
    stage.create("sure").await;
    stage.wire.open("create secrets");
    let before = stage.pairs.of("sure").len();
    until_async("it is planned again, by the picture of the one that is gone", SOON, || async {
        stage.clock.advance(Duration::from_secs(1));
        check(stage.pairs.of("sure").len() >= before + 3, stage.pairs.of("sure").len())
    })
    .await;
    assert!(!stage.secrets().await.contains("sure"), "done for one that is gone");
    stage.wire.open("watch configmaps");
    until_async("it is done for its successor", SOON, || async {
        stage.clock.advance(Duration::from_secs(1));
        check(stage.secrets().await.contains("sure"), "not yet")
    })
    .await;
    stage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_panics_is_a_failure_of_its_key_alone() {
    let stage = Stage::set().await;
    stage.create("broken").await;
    stage.create("a").await;
    stage.pairs.planned("a", 1).await;
    until_async("it is tried again", SOON, || async {
        stage.clock.advance(RETRY_FIRST);
        check(stage.pairs.of("broken").len() >= 3, stage.pairs.of("broken").len())
    })
    .await;
    stage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_is_planned_again_after_a_while_even_if_nothing_changed() {
    let stage = Stage::set().await;
    for name in ["idle-a", "idle-b"] {
        stage.create(name).await;
        stage.pairs.planned(name, 1).await;
    }
    until_async("both are planned again", SOON, || async {
        stage.clock.advance(RESYNC);
        let plans = (stage.pairs.of("idle-a").len(), stage.pairs.of("idle-b").len());
        check(plans.0 > 1 && plans.1 > 1, format!("{plans:?}"))
    })
    .await;
    stage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_once_the_lease_is_lost() {
    let cluster = TestCluster::start().await;
    let (env, clock) = Env::manual(Timestamp::now(), 7);
    let renewals = Gated::new(Arc::clone(cluster.client_for("election").transport()));
    let elector = Client::new(Arc::clone(&renewals) as Arc<dyn Transport>, "election");
    let election = Election::new(&elector, env.clone(), "kube-system", "pairs", "me");
    let (terms, mut term) = tokio::sync::watch::channel::<Option<Leadership>>(None);
    let over = CancellationToken::new();
    let standing = tokio::spawn({
        let over = over.clone();
        async move {
            let work = |leadership, term: CancellationToken| {
                terms.send_replace(Some(leadership));
                async move { term.cancelled().await }
            };
            election.lead(over, work).await;
        }
    });
    let leadership = term.wait_for(Option::is_some).await.expect("it leads").clone().expect("some");
    let stage = Stage::with(cluster, env, clock, leadership.clone(), |_| {}).await;
    stage.create("before").await;
    until_async("a holder acts", SOON, || async {
        check(stage.secrets().await.contains("before"), "not yet")
    })
    .await;

    renewals.refuse("update leases");
    stage.clock.advance(LEASE);
    assert!(!leadership.is_held());
    stage.create("after").await;
    until_async("it is planned, in vain", SOON, || async {
        stage.clock.advance(Duration::from_secs(2));
        check(stage.pairs.of("after").len() >= 3, stage.pairs.of("after").len())
    })
    .await;
    assert_eq!(stage.secrets().await, BTreeSet::from(["before".to_owned()]));
    let asked = stage.wire.asked("create secrets");
    assert_eq!(asked, 1, "a write left the process after the lease was lost");
    over.cancel();
    stage.clock.advance(LEASE);
    standing.await.expect("it ends");
    stage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_events_is_written_whole_and_repeats_are_counted() {
    const OBJECTS: usize = 300;
    let cluster = TestCluster::start().await;
    let cancel = CancellationToken::new();
    let recorder = Recorder::start(cluster.client_for("probe"), Env::real(), "probe", cancel.clone());
    for number in 0..OBJECTS {
        let map: ConfigMap = object(json!({"metadata": {
            "name": format!("map-{number}"), "namespace": NS, "uid": format!("uid-{number}"),
        }}));
        // The first object has the same news three times.
        for _ in 0..if number == 0 { 3 } else { 1 } {
            recorder.record(reference_to(&map), false, "Seen", "something happened");
        }
    }
    let events = cluster.client.namespaced::<Event>(NS);
    until_async("all events", SOON, || async {
        let all = events.list(ListOptions::default()).await.map_err(|error| error.to_string())?.items;
        let repeats: Vec<_> = all.iter().filter(|event| event.count != Some(1)).collect();
        let counted = repeats.len() == 1 && repeats[0].count == Some(3);
        check(all.len() == OBJECTS && counted, format!("{} events, repeats: {repeats:?}", all.len()))
    })
    .await;
    cancel.cancel();
    cluster.stop().await;
}

/// Every namespace gets a map that greets it.
struct Greeter;

impl Controller for Greeter {
    type Object = Namespace;

    fn name(&self) -> &'static str {
        "greeter"
    }

    fn watches(&self, watches: &mut Watches<Namespace>) {
        watches.owned::<ConfigMap>();
    }

    fn plan(&self, namespace: &Arc<Namespace>, world: &World, _now: Timestamp) -> Plan {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        if world.kind::<ConfigMap>().get(name, "greeting").is_some() {
            return Plan::nothing();
        }
        let owner = reference_to_owner(&**namespace);
        let map: ConfigMap = object(json!({"metadata": {
            "name": "greeting", "namespace": name, "ownerReferences": [owner],
        }}));
        Plan::nothing().then(Action::create(&map))
    }
}

/// Plans maps as secrets of their name change; cannot make sense of one named `poison`.
#[derive(Clone, Default)]
struct Fragile {
    plans: Arc<Mutex<Vec<String>>>,
}

impl Controller for Fragile {
    type Object = ConfigMap;

    fn name(&self) -> &'static str {
        "fragile"
    }

    fn watches(&self, watches: &mut Watches<ConfigMap>) {
        watches.mapped::<Secret>(|secret, _| {
            let key = ObjectKey::of(&secret.metadata);
            assert_ne!(key.name, "poison", "a mapping that cannot be made");
            vec![key]
        });
    }

    fn plan(&self, map: &Arc<ConfigMap>, _world: &World, _now: Timestamp) -> Plan {
        self.plans.lock().expect("no panic").push(map.metadata.name.clone().unwrap_or_default());
        Plan::nothing()
    }
}

/// Runs a controller on a clock that stands still: what happens, something led to.
fn drive<C: Controller>(cluster: &TestCluster, controller: C) -> DropGuard {
    let (env, _) = Env::manual(Timestamp::now(), 7);
    let cancel = CancellationToken::new();
    let client = cluster.client_for(controller.name());
    let runtime = Runtime::start(client, env, "test", Leadership::unchallenged(), cancel.clone());
    tokio::spawn(runtime.drive(controller));
    cancel.drop_guard()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_object_outside_of_namespaces_owns_leads_back_to_it() {
    let cluster = TestCluster::start().await;
    let _running = drive(&cluster, Greeter);
    let first = cluster.until("a greeting", NS, "greeting", |_: &ConfigMap| true).await;
    let maps = cluster.client.namespaced::<ConfigMap>(NS);
    maps.delete("greeting", DeleteOptions::default()).await.expect("deletes");
    let another = |map: &ConfigMap| map.metadata.uid != first.metadata.uid;
    cluster.until("another greeting", NS, "greeting", another).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_panics_costs_its_own_trigger_and_no_other() {
    let cluster = TestCluster::start().await;
    let fragile = Fragile::default();
    let _running = drive(&cluster, fragile.clone());
    let planned = async |times: usize| {
        until_async(&format!("the map is planned {times} times"), SOON, || async {
            let plans = fragile.plans.lock().expect("no panic").clone();
            check(plans.iter().filter(|name| *name == "a").count() >= times, format!("{plans:?}"))
        })
        .await;
    };
    cluster.client.namespaced::<ConfigMap>(NS).create(&config_map("a")).await.expect("it is new");
    planned(1).await;
    let secrets = cluster.client.namespaced::<Secret>(NS);
    secrets.create(&secret("poison")).await.expect("it is new");
    secrets.create(&secret("a")).await.expect("it is new");
    planned(2).await;
    cluster.stop().await;
}
