//! A kind of the user's own, derived from a Rust type.

use claw_e2e::{Cluster, Options};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, CustomResource, CustomResourceExt as _, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::wait::{await_condition, conditions},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{client, soon};

#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(group = "example.com", version = "v1", kind = "Experiment", namespaced, status = "Progress")]
#[kube(scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas"))]
struct ExperimentSpec {
    /// How many runs at a time.
    #[schemars(range(min = 0, max = 10))]
    replicas: i32,
    model: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
struct Progress {
    replicas: i32,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_derived_kind_is_served_as_soon_as_it_is_established() {
    let cluster = Cluster::start(Options::server());
    let client = client(&cluster).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let apply = PatchParams::apply("story").force();
    definitions.patch("experiments.example.com", &apply, &Patch::Apply(Experiment::crd())).await.unwrap();
    let established =
        await_condition(definitions.clone(), "experiments.example.com", conditions::is_crd_established());
    soon("it is established", established).await.unwrap();

    let experiments: Api<Experiment> = Api::namespaced(client.clone(), "default");
    let wanted = Experiment::new("e", ExperimentSpec { replicas: 1, model: "small".to_owned() });
    let made = experiments.create(&PostParams::default(), &wanted).await.unwrap();
    assert_eq!(made.meta().generation, Some(1));

    let progress = json!({"spec": {"replicas": 9}, "status": {"replicas": 1}});
    let told = experiments.patch_status("e", &PatchParams::default(), &Patch::Merge(progress)).await.unwrap();
    assert_eq!(
        (told.spec.replicas, told.status.unwrap().replicas, told.metadata.generation),
        (1, 1, Some(1))
    );

    let three = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let scale = experiments.patch_scale("e", &PatchParams::default(), &three).await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(3));
    assert_eq!(experiments.get("e").await.unwrap().meta().generation, Some(2));

    let broken = Experiment::new("f", ExperimentSpec { replicas: 11, model: "small".to_owned() });
    let refused = experiments.create(&PostParams::default(), &broken).await.unwrap_err();
    assert!(refused.to_string().contains("spec.replicas"), "{refused}");

    definitions.delete("experiments.example.com", &DeleteParams::default()).await.unwrap();
    let uid =
        definitions.get("experiments.example.com").await.ok().and_then(|crd| crd.uid()).unwrap_or_default();
    soon(
        "it is gone",
        await_condition(definitions.clone(), "experiments.example.com", conditions::is_deleted(&uid)),
    )
    .await
    .unwrap();
    assert!(
        experiments.list(&Default::default()).await.is_err(),
        "nothing is served under its name any more"
    );
}
