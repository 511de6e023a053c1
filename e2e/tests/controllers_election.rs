//! Leader election against the real server: one acts, the next takes over, a deposed one stops.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use claw_client::{Client, Transport, request::PatchKind};
use claw_controllers::Options;
use claw_e2e::{
    gated::Gated,
    wait::{SOON, check, until_async},
    warp::Warp,
};
use claw_runtime::{
    Env, Leadership,
    env::ManualClock,
    lease::{Election, LEASE},
};
use claw_testing::{TestCluster, healthy, object};
use k8s_openapi::{
    api::{apps::v1::Deployment, coordination::v1::Lease},
    jiff::Timestamp,
};
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const LEASES: &str = "kube-system";
const NAME: &str = "clawbernetes-controllers";

fn candidate(name: &str) -> Options {
    Options { elect_as: Some(name.to_owned()), ..Options::default() }
}

fn holder(lease: &Lease) -> (String, i32) {
    let spec = lease.spec.clone().unwrap_or_default();
    (spec.holder_identity.unwrap_or_default(), spec.lease_transitions.unwrap_or(0))
}

async fn deploy(cluster: &TestCluster, name: &str) {
    let deployment: Deployment = object(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "app:1"}]}},
        },
    }));
    cluster.client.namespaced::<Deployment>("default").create(&deployment).await.expect("a valid deployment");
    cluster
        .until("it runs", "default", name, |d: &Deployment| {
            d.status.as_ref().is_some_and(|s| s.available_replicas == Some(2))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_leaves_the_other_takes_over_under_a_new_epoch() {
    let mut cluster = TestCluster::start().await;
    cluster.machine("n1", healthy).await;
    let env = || Warp::env(Duration::ZERO, 10);
    let first = cluster.controllers_with(env(), candidate("first"));
    let lease = cluster.until("a leader", LEASES, NAME, |lease: &Lease| holder(lease).0 == "first").await;
    cluster.controllers_with(env(), candidate("second"));
    deploy(&cluster, "before").await;
    first.cancel();
    let next =
        cluster.until("the next leader", LEASES, NAME, |lease: &Lease| holder(lease).0 == "second").await;
    assert!(holder(&next).1 > holder(&lease).1, "{next:?}");
    deploy(&cluster, "after").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_leader_is_replaced_when_its_lease_has_run_out() {
    let mut cluster = TestCluster::start().await;
    cluster.machine("n1", healthy).await;
    let dead: Lease = object(json!({
        "metadata": {"name": NAME, "namespace": LEASES},
        // Its clock was wrong by decades, which must not matter.
        "spec": {"holderIdentity": "dead", "leaseDurationSeconds": 15, "leaseTransitions": 7,
            "renewTime": "2077-01-01T00:00:00.000000Z"},
    }));
    cluster.client.namespaced::<Lease>(LEASES).create(&dead).await.expect("a valid lease");
    cluster.controllers_with(Warp::env(Duration::ZERO, 10), candidate("heir"));
    let lease = cluster.until("a new leader", LEASES, NAME, |lease: &Lease| holder(lease).0 == "heir").await;
    assert_eq!(holder(&lease).1, 8);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_stops_before_it_learns_why() {
    let cluster = TestCluster::start().await;
    let cancel = CancellationToken::new();
    let (env, clock) = Env::manual(Timestamp::now(), 7);
    let election = Election::new(&cluster.client_for("a"), env, LEASES, NAME, "a");
    let (terms, mut seen) = watch::channel::<Option<(Leadership, CancellationToken)>>(None);
    let (terms, running) = (Arc::new(terms), Arc::new(AtomicUsize::new(0)));
    let at_work = Arc::clone(&running);
    let stopping = cancel.clone();
    let candidate = tokio::spawn(async move {
        let work = |leadership, term: CancellationToken| {
            terms.send_replace(Some((leadership, term.clone())));
            let running = Arc::clone(&at_work);
            async move {
                running.fetch_add(1, Ordering::SeqCst);
                term.cancelled().await;
                running.fetch_sub(1, Ordering::SeqCst);
            }
        };
        election.lead(stopping, work).await;
    });
    let (leadership, term) = seen.wait_for(Option::is_some).await.expect("it leads").clone().expect("some");
    assert!(leadership.is_held() && !term.is_cancelled());
    let usurp = json!({"spec": {"holderIdentity": "b", "leaseTransitions": leadership.epoch() + 1}});
    let leases = cluster.client.namespaced::<Lease>(LEASES);
    leases.patch(NAME, None, PatchKind::Merge, &usurp).await.expect("usurps");
    until_async("the term ends", SOON, || async {
        clock.advance(Duration::from_millis(100));
        check(term.is_cancelled(), "it goes on")
    })
    .await;
    until_async("the work ends", SOON, || async {
        check(running.load(Ordering::SeqCst) == 0 && !leadership.is_held(), "still at work")
    })
    .await;
    assert_eq!(
        holder(&leases.get(NAME).await.expect("reads")).0,
        "b",
        "it does not take the lease back at once"
    );
    cancel.cancel();
    clock.advance(LEASE);
    candidate.await.expect("it ends");
    cluster.stop().await;
}

/// Stands for election on the test's clock, over a wire that the test holds up.
struct Standing {
    wire: Arc<Gated>,
    clock: ManualClock,
    terms: watch::Receiver<Vec<Leadership>>,
    cancel: CancellationToken,
    candidate: JoinHandle<()>,
}

impl Standing {
    /// `lasting` work goes on to the end of its term; other work ends at once.
    fn start(cluster: &TestCluster, lasting: bool) -> Self {
        let wire = Gated::new(Arc::clone(cluster.client_for("a").transport()));
        let client = Client::new(Arc::clone(&wire) as Arc<dyn Transport>, "a");
        let (env, clock) = Env::manual(Timestamp::now(), 7);
        let election = Election::new(&client, env, LEASES, NAME, "a");
        let (begun, terms) = watch::channel(Vec::new());
        let cancel = CancellationToken::new();
        let stopping = cancel.clone();
        let candidate = tokio::spawn(async move {
            let work = |leadership, term: CancellationToken| {
                begun.send_modify(|terms: &mut Vec<Leadership>| terms.push(leadership));
                async move {
                    if lasting {
                        term.cancelled().await;
                    }
                }
            };
            election.lead(stopping, work).await;
        });
        Self { wire, clock, terms, cancel, candidate }
    }

    async fn leads(&mut self, times: usize) -> Leadership {
        let led = tokio::time::timeout(SOON, self.terms.wait_for(|terms| terms.len() >= times)).await;
        led.expect("it leads in time").expect("it stands").last().expect("it leads").clone()
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.clock.advance(LEASE);
        self.candidate.await.expect("it ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_found_to_be_ours_still_is_renewed_by_a_write_alone() {
    let cluster = TestCluster::start().await;
    let mut standing = Standing::start(&cluster, true);
    let leadership = standing.leads(1).await;
    // Somebody's label makes the renewal a conflict. Rivals count from the label on.
    let label = json!({"metadata": {"labels": {"seen": "yes"}}});
    let leases = cluster.client.namespaced::<Lease>(LEASES);
    leases.patch(NAME, None, PatchKind::Merge, &label).await.expect("a valid patch");
    standing.wire.close("get leases");
    until_async("the renewal meets the conflict", SOON, || async {
        standing.clock.advance(Duration::from_millis(100));
        check(standing.wire.asked("update leases") == 1, standing.wire.asked("update leases"))
    })
    .await;
    standing.wire.held_up(1).await;
    standing.wire.refuse("update leases");
    standing.wire.open("get leases");
    until_async("it tries to renew once more", SOON, || async {
        check(standing.wire.asked("update leases") == 2, standing.wire.asked("update leases"))
    })
    .await;
    // Ten seconds after the last write that went through, however long ago the label was.
    standing.clock.advance(Duration::from_secs(8));
    assert!(!leadership.is_held(), "held without a renewal");
    standing.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_ends_at_once_does_not_lead_again_at_once() {
    let cluster = TestCluster::start().await;
    let mut standing = Standing::start(&cluster, false);
    standing.leads(1).await;
    let given_up = |lease: &Lease| holder(lease).0.is_empty();
    cluster.until("it gives the lease up", LEASES, NAME, given_up).await;
    // As many round trips as a term without a pause takes, and more.
    for _ in 0..50 {
        let lease = cluster.client.namespaced::<Lease>(LEASES).get(NAME).await.expect("reads");
        assert_eq!(holder(&lease), (String::new(), 0));
    }
    standing.clock.advance(LEASE);
    standing.leads(2).await;
    standing.stop().await;
    cluster.stop().await;
}
