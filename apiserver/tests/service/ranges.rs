//! Limit ranges: what pods get, and what they and claims may ask for.

use claw_client::ResourceRef;
use claw_schemas::ApiError;
use serde_json::{Value, json};

use crate::world::{World, pods, world};

fn core(plural: &str) -> ResourceRef {
    ResourceRef::collection("", "v1", plural).in_namespace("default")
}

async fn range(world: &World, limit: Value) {
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [limit]}});
    world.create(core("limitranges"), &range).await.unwrap();
}

fn pod(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "i", "resources": resources}]}})
}

fn refused(error: ApiError, said: &str) {
    assert_eq!((error.code, error.message.as_str()), (403, said));
}

#[tokio::test]
async fn a_container_that_asks_for_nothing_gets_what_the_namespace_gives() {
    let world = world().await;
    range(&world, json!({"type": "Container", "max": {"memory": "1Gi"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}})).await;
    let made = world.create(pods(), &pod("silent", json!({}))).await.unwrap();
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}})
    );
    assert_eq!(made["status"]["qosClass"], "Burstable");
    let note = &made["metadata"]["annotations"]["kubernetes.io/limit-ranger"];
    assert_eq!(
        note,
        "LimitRanger plugin set: cpu, memory request for container main; cpu, memory limit for container main"
    );
    // What it is given has to fit what it said.
    let greedy = json!({"requests": {"cpu": "2"}});
    assert_eq!(world.create(pods(), &pod("greedy", greedy)).await.unwrap_err().code, 422);
}

#[tokio::test]
async fn what_is_given_counts_towards_a_quota() {
    let world = world().await;
    range(&world, json!({"type": "Container", "default": {"cpu": "1"}})).await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"limits.cpu": "1"}}});
    world.create(core("resourcequotas"), &quota).await.unwrap();
    world.create(pods(), &pod("a", json!({}))).await.unwrap();
    refused(
        world.create(pods(), &pod("b", json!({}))).await.unwrap_err(),
        "pods \"b\" is forbidden: exceeded quota: q, requested: limits.cpu=1, used: limits.cpu=1, limited: limits.cpu=1",
    );
}

#[tokio::test]
async fn who_asks_for_too_much_or_too_little_is_told_all_of_it() {
    let world = world().await;
    range(&world, json!({"type": "Container", "min": {"cpu": "200m"}, "max": {"cpu": "1", "memory": "1Gi"}}))
        .await;
    let asks = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}});
    world.create(pods(), &pod("a", asks("1", "1Gi"))).await.unwrap();
    refused(
        world.create(pods(), &pod("b", asks("100m", "1Gi"))).await.unwrap_err(),
        "pods \"b\" is forbidden: minimum cpu usage per Container is 200m, but request is 100m",
    );
    refused(
        world.create(pods(), &pod("c", asks("2", "2Gi"))).await.unwrap_err(),
        "pods \"c\" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, maximum memory usage per Container is 1Gi, but limit is 2Gi]",
    );
}

#[tokio::test]
async fn pods_and_claims_have_bounds_of_their_own() {
    let world = world().await;
    let limits = json!([
        {"type": "Pod", "maxLimitRequestRatio": {"cpu": "2"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "5Gi"}},
    ]);
    world
        .create(core("limitranges"), &json!({"metadata": {"name": "r"}, "spec": {"limits": limits}}))
        .await
        .unwrap();
    let apart = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}});
    refused(
        world.create(pods(), &pod("a", apart)).await.unwrap_err(),
        "pods \"a\" is forbidden: cpu max limit to request ratio per Pod is 2, but provided ratio is 10.000000",
    );
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "6Gi"}}}});
    refused(
        world.create(core("persistentvolumeclaims"), &claim).await.unwrap_err(),
        "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi",
    );
}
