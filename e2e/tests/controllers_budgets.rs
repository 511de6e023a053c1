//! Quotas and disruption budgets against the real server with its controllers.

use claw_client::{
    ResourceRef, Verb,
    request::{DeleteOptions, ListOptions, PatchKind},
};
use claw_e2e::wait::{SOON, check, until_async};
use claw_schemas::ApiError;
use claw_testing::{TestCluster, healthy, object};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Event, Node, Pod, ResourceQuota},
    policy::v1::PodDisruptionBudget,
};
use serde_json::{Value, json};

const NS: &str = "default";

async fn cluster() -> TestCluster {
    let mut cluster = TestCluster::start().await;
    cluster.machine("n1", healthy).await;
    cluster.controllers();
    cluster
}

fn deployment(name: &str, replicas: i32) -> Deployment {
    object(json!({"metadata": {"name": name, "namespace": NS}, "spec": {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 1},
        },
    }}))
}

fn ready(deployment: &Deployment) -> i32 {
    deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
}

async fn scale(cluster: &TestCluster, name: &str, replicas: i32) {
    let patch = json!({"spec": {"replicas": replicas}});
    let deployments = cluster.client.namespaced::<Deployment>(NS);
    deployments.patch(name, None, PatchKind::Merge, &patch).await.expect("a valid patch");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_tells_that_a_quota_keeps_it_small_and_grows_when_the_quota_does() {
    let mut cluster = cluster().await;
    let deployments = cluster.watch::<Deployment>();
    let quota: ResourceQuota =
        object(json!({"metadata": {"name": "q", "namespace": NS}, "spec": {"hard": {"pods": "2"}}}));
    cluster.client.namespaced::<ResourceQuota>(NS).create(&quota).await.expect("a valid quota");
    cluster
        .client
        .namespaced::<Deployment>(NS)
        .create(&deployment("web", 4))
        .await
        .expect("a valid Deployment");
    let said = "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2";
    until_async("the Deployment says that it cannot grow", SOON, async || {
        let found = deployments.get(NS, "web");
        let status = found.as_ref().and_then(|found| found.status.clone()).unwrap_or_default();
        let all = status.conditions.unwrap_or_default();
        let failure = all.iter().find(|one| one.type_ == "ReplicaFailure");
        let tells = failure.is_some_and(|one| {
            one.reason.as_deref() == Some("FailedCreate")
                && one.message.as_deref().is_some_and(|message| message.ends_with(said))
        });
        check(tells && status.ready_replicas == Some(2), format!("{all:?} {:?}", status.ready_replicas))
    })
    .await;
    let events = cluster.client.namespaced::<Event>(NS).list(ListOptions::default()).await.expect("a list");
    let told = events.items.iter().any(|event| {
        event.reason.as_deref() == Some("FailedCreate")
            && event.message.as_deref().is_some_and(|message| message.ends_with(said))
    });
    assert!(told, "no event tells of it");

    let more = json!({"spec": {"hard": {"pods": "4"}}});
    let quotas = cluster.client.namespaced::<ResourceQuota>(NS);
    quotas.patch("q", None, PatchKind::Merge, &more).await.expect("a valid patch");
    until_async("the Deployment grows", SOON, async || {
        let found = deployments.get(NS, "web").map_or(0, |found| ready(&found));
        check(found == 4, found)
    })
    .await;
    scale(&cluster, "web", 1).await;
    until_async("what is given back is not used any more", SOON, async || {
        let quota = quotas.get("q").await.map_err(|error| error.to_string())?;
        let used = quota.status.and_then(|status| status.used).unwrap_or_default();
        check(used.get("pods").is_some_and(|pods| pods.0 == "1"), format!("{used:?}"))
    })
    .await;
    cluster.stop().await;
}

async fn evict(cluster: &TestCluster, pod: &str) -> Result<(), ApiError> {
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NS}});
    let resource = ResourceRef::collection("", "v1", "pods").in_namespace(NS).named(pod).sub("eviction");
    let verb = Verb::Create { body: eviction.to_string().into(), options: cluster.client.write_options() };
    cluster.client.call(resource, verb).await.map(drop)
}

async fn cordon(cluster: &TestCluster, unschedulable: bool) {
    let patch = json!({"spec": {"unschedulable": unschedulable}});
    cluster.client.all::<Node>().patch("n1", None, PatchKind::Merge, &patch).await.expect("a valid patch");
}

async fn pods(cluster: &TestCluster) -> Vec<String> {
    let pods = cluster.client.namespaced::<Pod>(NS).list(ListOptions::default()).await.expect("a list");
    let alive = pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    alive.filter_map(|pod| pod.metadata.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_counted_and_lets_one_pod_go_at_a_time() {
    let mut cluster = cluster().await;
    let budgets = cluster.watch::<PodDisruptionBudget>();
    cluster
        .client
        .namespaced::<Deployment>(NS)
        .create(&deployment("web", 3))
        .await
        .expect("a valid Deployment");
    let budget = |spec: Value| -> PodDisruptionBudget {
        let mut spec = spec;
        spec["selector"] = json!({"matchLabels": {"app": "web"}});
        object(json!({"metadata": {"name": "web", "namespace": NS}, "spec": spec}))
    };
    let api = cluster.client.namespaced::<PodDisruptionBudget>(NS);
    api.create(&budget(json!({"maxUnavailable": "30%"}))).await.expect("a valid budget");
    let figures = || {
        let status = budgets.get(NS, "web").and_then(|found| found.status.clone()).unwrap_or_default();
        [status.expected_pods, status.desired_healthy, status.current_healthy, status.disruptions_allowed]
            .map(|figure| figure.unwrap_or(-1))
    };
    let counted = async |expected: [i32; 4]| {
        until_async("the budget is counted", SOON, async || {
            let found = figures();
            check(found == expected, format!("{found:?} instead of {expected:?}"))
        })
        .await;
    };
    counted([3, 2, 3, 1]).await;
    let victims = pods(&cluster).await;
    // Nothing takes the place of what goes while no node takes anything.
    cordon(&cluster, true).await;
    evict(&cluster, &victims[0]).await.expect("the budget allows one");
    let error = evict(&cluster, &victims[1]).await.expect_err("and no more before that one is replaced");
    assert_eq!(error.code, 429, "{error}");
    counted([3, 2, 2, 0]).await;
    assert_eq!(evict(&cluster, &victims[1]).await.expect_err("not after it was counted either").code, 429);
    cordon(&cluster, false).await;
    counted([3, 2, 3, 1]).await;
    evict(&cluster, &victims[1]).await.expect("the budget allows one again");
    until_async("both have been replaced", SOON, async || {
        let left = pods(&cluster).await;
        check(
            left.len() == 3 && !left.contains(&victims[0]) && !left.contains(&victims[1]),
            format!("{left:?}"),
        )
    })
    .await;

    api.delete("web", DeleteOptions::default()).await.expect("it can be deleted");
    api.create(&budget(json!({"minAvailable": 3}))).await.expect("a valid budget");
    counted([3, 3, 3, 0]).await;
    scale(&cluster, "web", 5).await;
    counted([5, 3, 5, 2]).await;
    cluster.stop().await;
}
