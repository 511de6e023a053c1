//! Clients that deploy, scale, change and remove what wants GPUs, and order what is to be calculated, which here always fails.

use std::{sync::Arc, time::Duration};

use claw_client::{
    ApiError, Client,
    request::{DeleteOptions, PatchKind, Propagation},
};
use claw_e2e::dice::Dice;
use claw_schemas::api::KernelJob;
use claw_testing::object;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::{
    cluster::GPU,
    net::{Wire, client},
    world::World,
};

/// Three of three pods, and one more of each while they change, fit on four nodes: one may be away for good.
const DEPLOYMENTS: u64 = 3;
const REPLICAS_MAX: u64 = 3;

/// Between two changes of one client. A change makes a dozen pods come and go, which costs more than all that writers do.
const PAUSE_MS: (u64, u64) = (4000, 16_000);

/// How long a pod stays on a node that is not heard of.
const PATIENCE_SECONDS: u64 = 5;

/// Changes deployments until it is time to be quiet.
pub async fn run(world: Arc<World>, name: String, wire: Wire, dice: Dice) -> turmoil::Result {
    let client = client(wire, &name);
    while !world.is_quiet() {
        let deployment = format!("d{}", dice.below(DEPLOYMENTS));
        let (what, outcome) = match dice.below(8) {
            0..=2 => ("deploy", deploy(&client, &deployment, &dice).await),
            3 => ("scale", scale(&client, &deployment, &dice).await),
            4 => ("roll", roll(&client, &deployment, &dice).await),
            5..=6 => ("order", order(&client, &deployment, &dice).await),
            _ => ("remove", remove(&client, &deployment).await),
        };
        let how = outcome.map_or_else(|error| format!("{:?}", error.reason), |()| "ok".to_owned());
        world.did(&name, format!("{what} {deployment}: {how}"));
        tokio::time::sleep(Duration::from_millis(dice.between(PAUSE_MS.0, PAUSE_MS.1))).await;
    }
    Ok(())
}

/// How long pods stay on nodes that are not heard of.
fn tolerations() -> Value {
    let toleration = |key| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": PATIENCE_SECONDS});
    json!([toleration("node.kubernetes.io/not-ready"), toleration("node.kubernetes.io/unreachable")])
}

/// A kernel job, which comes to two pods: nodes here calculate nothing.
async fn order(client: &Client, name: &str, dice: &Dice) -> Result<(), ApiError> {
    let job: KernelJob = object(json!({
        "metadata": {"name": name},
        "spec": {
            "inputs": [{"name": "a", "dtype": "f32", "shape": [2], "fill": 1.0}],
            "operations": [{"name": "b", "op": "Neg", "inputs": ["a"]}],
            "outputs": [{"value": "b"}],
            "backoffLimit": 1,
            "ttlSecondsAfterFinished": dice.below(10),
            "tolerations": tolerations(),
        },
    }));
    client.namespaced::<KernelJob>("default").add(&job).await
}

async fn deploy(client: &Client, name: &str, dice: &Dice) -> Result<(), ApiError> {
    let deployment: Deployment = object(json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": dice.below(REPLICAS_MAX + 1),
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "containers": [{"name": "c", "image": "app:1", "resources": {"limits": {GPU: "1"}}}],
                    "terminationGracePeriodSeconds": 1,
                    "tolerations": tolerations(),
                },
            },
        },
    }));
    client.namespaced::<Deployment>("default").add(&deployment).await
}

async fn patch(client: &Client, name: &str, patch: Value) -> Result<(), ApiError> {
    let deployments = client.namespaced::<Deployment>("default");
    deployments.patch(name, None, PatchKind::Strategic, &patch).await.map(drop)
}

async fn scale(client: &Client, name: &str, dice: &Dice) -> Result<(), ApiError> {
    patch(client, name, json!({"spec": {"replicas": dice.below(REPLICAS_MAX + 1)}})).await
}

async fn roll(client: &Client, name: &str, dice: &Dice) -> Result<(), ApiError> {
    let image = format!("app:{}", dice.below(100));
    let containers = json!([{"name": "c", "image": image}]);
    patch(client, name, json!({"spec": {"template": {"spec": {"containers": containers}}}})).await
}

async fn remove(client: &Client, name: &str) -> Result<(), ApiError> {
    let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    client.namespaced::<Deployment>("default").delete(name, options).await
}
