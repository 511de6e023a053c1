//! Writes: patches of every kind, server-side apply, conflicts, discovery.

use claw_e2e::{Cluster, Options};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Discovery, ResourceExt as _,
    api::{
        ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
        ValidationDirective,
    },
    discovery::{Scope, verbs},
};
use serde_json::json;

use super::{client, config_map, config_maps, create};

#[tokio::test(flavor = "multi_thread")]
async fn discovery_finds_every_kind_in_both_forms() {
    let cluster = Cluster::start(Options::server());
    let client = client(&cluster).await;
    let plain = Discovery::new(client.clone()).run().await.unwrap();
    let aggregated = Discovery::new(client.clone()).run_aggregated().await.unwrap();
    for discovery in [&plain, &aggregated] {
        let deployment = GroupVersionKind::gvk("apps", "v1", "Deployment");
        let (resource, capabilities) = discovery.resolve_gvk(&deployment).expect("Deployments are known");
        assert_eq!((&*resource.plural, &capabilities.scope), ("deployments", &Scope::Namespaced));
        assert!(capabilities.supports_operation(verbs::PATCH));
        assert!(capabilities.subresources.iter().any(|(sub, _)| sub.plural == "scale"), "{capabilities:?}");
    }
    let kinds = |discovery: &Discovery| {
        let mut kinds: Vec<String> = discovery
            .groups()
            .flat_map(|group| group.recommended_resources())
            .map(|(resource, _)| format!("{}/{}", resource.api_version, resource.kind))
            .collect();
        kinds.sort();
        kinds
    };
    assert_eq!(kinds(&plain), kinds(&aggregated));
}

/// Every listable kind can be listed by what discovery says about it, with nothing known beforehand.
#[tokio::test(flavor = "multi_thread")]
async fn everything_discovered_can_be_listed() {
    let cluster = Cluster::start(Options::server());
    let client = client(&cluster).await;
    let discovery = Discovery::new(client.clone()).run_aggregated().await.unwrap();
    let mut listed = 0;
    for (resource, capabilities) in discovery.groups().flat_map(|group| group.recommended_resources()) {
        if capabilities.supports_operation(verbs::LIST) {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let list = api.list(&ListParams::default()).await;
            let list = list.unwrap_or_else(|error| panic!("{}: {error}", resource.kind));
            assert!(
                list.metadata.resource_version.is_some_and(|revision| !revision.is_empty()),
                "{resource:?}"
            );
            listed += 1;
        }
    }
    assert!(listed >= 9, "{listed} kinds");
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_creates_owns_and_refuses_what_others_own() {
    let cluster = Cluster::start(Options::server());
    let client = client(&cluster).await;
    let maps = config_maps(&client);
    let wanted = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"value": value}});
    let first = PatchParams::apply("first");
    let made = maps.patch("a", &first, &Patch::Apply(wanted("1"))).await.unwrap();
    let again = maps.patch("a", &first, &Patch::Apply(wanted("1"))).await.unwrap();
    assert_eq!(made.resource_version(), again.resource_version(), "the same again is no write");

    let second = PatchParams::apply("second");
    let refused = maps.patch("a", &second, &Patch::Apply(wanted("2"))).await.unwrap_err();
    let kube::Error::Api(status) = &refused else { panic!("{refused}") };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let causes = &status.details.as_ref().expect("details").causes;
    assert_eq!(
        (causes[0].reason.as_str(), causes[0].field.as_str()),
        ("FieldManagerConflict", ".data.value")
    );

    let forced = maps.patch("a", &second.clone().force(), &Patch::Apply(wanted("2"))).await.unwrap();
    assert_eq!(forced.data.unwrap()["value"], "2");
    // What a manager no longer names and nobody else owns goes.
    let nothing = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let given_up = maps.patch("a", &second, &Patch::Apply(nothing)).await.unwrap();
    assert_eq!(given_up.data, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_of_every_kind_change_what_they_say() {
    let cluster = Cluster::start(Options::server());
    let client = client(&cluster).await;
    create(&client, "a", "1").await;
    let maps = config_maps(&client);
    let value = |map: &ConfigMap| map.data.as_ref().and_then(|data| data.get("value").cloned());
    let parameters = PatchParams::default();

    let merged = maps.patch("a", &parameters, &Patch::Merge(json!({"data": {"value": "2"}}))).await.unwrap();
    assert_eq!(value(&merged).as_deref(), Some("2"));
    let strategic = Patch::Strategic(json!({"data": {"value": "3"}}));
    assert_eq!(value(&maps.patch("a", &parameters, &strategic).await.unwrap()).as_deref(), Some("3"));

    // The same merge again changes nothing, so nothing is written.
    let same = maps.patch("a", &parameters, &strategic).await.unwrap();
    assert_eq!(same.resource_version(), maps.get("a").await.unwrap().resource_version());

    let missing = maps.patch("b", &parameters, &strategic).await.unwrap_err();
    assert!(matches!(&missing, kube::Error::Api(status) if status.code == 404), "{missing}");

    let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
    let dry = maps.patch("a", &dry_run, &Patch::Merge(json!({"data": null}))).await.unwrap();
    assert_eq!(dry.data, None);
    assert_eq!(value(&maps.get("a").await.unwrap()).as_deref(), Some("3"), "a dry run keeps nothing");

    let strict =
        PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::default() };
    let unknown = maps.patch("a", &strict, &Patch::Merge(json!({"dta": {}}))).await.unwrap_err();
    assert!(unknown.to_string().contains("unknown field \"dta\""), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_replace_is_a_conflict() {
    let cluster = Cluster::start(Options::server());
    let client = client(&cluster).await;
    let mut first = create(&client, "a", "1").await;
    let second = first.clone();
    first.data.as_mut().unwrap().insert("value".to_owned(), "2".to_owned());
    config_maps(&client).replace("a", &PostParams::default(), &first).await.unwrap();
    let stale = config_maps(&client).replace("a", &PostParams::default(), &second).await.unwrap_err();
    assert!(matches!(&stale, kube::Error::Api(status) if status.is_conflict()), "{stale}");
    let taken = config_maps(&client).create(&PostParams::default(), &config_map("a", "3")).await.unwrap_err();
    assert!(matches!(&taken, kube::Error::Api(status) if status.is_already_exists()), "{taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dynamic_object_needs_no_type() {
    let cluster = Cluster::start(Options::server());
    let client: Client = client(&cluster).await;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "ConfigMap"));
    let maps: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let object = DynamicObject::new("dyn", &resource).data(json!({"data": {"value": "1"}}));
    maps.create(&PostParams::default(), &object).await.unwrap();
    let metadata = maps.get_metadata("dyn").await.unwrap();
    assert_eq!(metadata.name_any(), "dyn");
    assert_eq!(maps.get("dyn").await.unwrap().data["data"]["value"], "1");
}
