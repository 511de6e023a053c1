//! Lists: selectors, pages, revisions, views.

use claw_client::{
    ResourceRef, Verb,
    request::{IncludeObject, ListOptions, View},
};
use claw_schemas::status::Reason;
use serde_json::{Value, json};

use crate::world::{bound_pod, configmaps, names, parse, pod, pods, revision, world};

fn page(limit: u64, token: Option<&str>) -> ListOptions {
    ListOptions { limit, continue_token: token.map(str::to_owned), ..ListOptions::default() }
}

fn selecting(labels: &str, fields: &str) -> ListOptions {
    ListOptions { label_selector: labels.into(), field_selector: fields.into(), ..ListOptions::default() }
}

fn token(list: &Value) -> Option<&str> {
    list["metadata"]["continue"].as_str()
}

#[tokio::test]
async fn a_list_has_its_kind_its_revision_and_items_with_their_types() {
    let world = world().await;
    world.configmap("x", &json!({})).await;
    let list = world.list(configmaps(), Default::default()).await.unwrap();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    assert_eq!(revision(&list), world.service.store().revision().to_string());
    assert_eq!(list["items"][0], world.get(configmaps().named("x")).await.unwrap());
    let elsewhere = configmaps().in_namespace("kube-system");
    let empty = world.list(elsewhere, Default::default()).await.unwrap();
    assert_eq!((&empty["items"], revision(&empty).is_empty()), (&json!([]), false));
}

#[tokio::test]
async fn all_pages_show_one_revision_though_others_write() {
    let world = world().await;
    for name in ["a", "b", "c", "d", "e"] {
        world.configmap(name, &json!({})).await;
    }
    let first = world.list(configmaps(), page(2, None)).await.unwrap();
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(3)));
    world.configmap("bb", &json!({})).await;
    world.delete(configmaps().named("d"), Default::default()).await.unwrap();
    let second = world.list(configmaps(), page(2, token(&first))).await.unwrap();
    let third = world.list(configmaps(), page(2, token(&second))).await.unwrap();
    assert_eq!((names(&second), names(&third)), (vec!["c", "d"], vec!["e"]));
    assert_eq!((revision(&second), revision(&third)), (revision(&first), revision(&first)));
    assert_eq!(token(&third), None);
    assert!(third["metadata"].get("remainingItemCount").is_none());
}

#[tokio::test]
async fn an_expired_page_is_410_with_a_token_that_goes_on_inconsistently() {
    let world = world().await;
    for name in ["a", "b", "c"] {
        world.configmap(name, &json!({})).await;
    }
    let first = world.list(configmaps(), page(1, None)).await.unwrap();
    world.configmap("bb", &json!({})).await;
    let now = world.service.store().revision();
    world.service.store().compact(now).await.unwrap();
    let error = world.list(configmaps(), page(5, token(&first))).await.unwrap_err();
    assert_eq!((error.code, error.reason), (410, Reason::Expired));
    let rest = world.list(configmaps(), page(5, Some(&error.continue_token))).await.unwrap();
    assert_eq!(names(&rest), ["b", "bb", "c"]);
}

#[tokio::test]
async fn a_limited_list_with_a_selector_pages_over_one_revision() {
    let world = world().await;
    for n in 0..20 {
        world.configmap(&format!("c{n:02}"), &json!({"odd": (n % 2).to_string()})).await;
    }
    let mut options = ListOptions { limit: 4, ..selecting("odd=1", "") };
    let (mut seen, mut revisions) = (Vec::new(), Vec::new());
    loop {
        let list = world.list(configmaps(), options.clone()).await.unwrap();
        seen.extend(names(&list).into_iter().map(str::to_owned));
        revisions.push(revision(&list));
        assert!(list["metadata"].get("remainingItemCount").is_none());
        world.configmap(&format!("later{}", revisions.len()), &json!({"odd": "1"})).await;
        let Some(next) = token(&list) else { break };
        options.continue_token = Some(next.to_owned());
    }
    assert_eq!(seen, (0..10).map(|n| format!("c{:02}", 2 * n + 1)).collect::<Vec<_>>());
    revisions.dedup();
    assert_eq!(revisions.len(), 1);
}

#[tokio::test]
async fn selectors_pick_by_label_name_and_declared_field() {
    let world = world().await;
    bound_pod(&world, "bound").await;
    world.create(pods(), &pod("free")).await.unwrap();
    for (labels, fields, expected) in [
        ("app=web", "", &["bound", "free"][..]),
        ("app=db", "", &[]),
        ("app in (web,db),!tier", "", &["bound", "free"]),
        ("", "metadata.name=free", &["free"]),
        ("", "metadata.name!=free", &["bound"]),
        ("", "spec.nodeName=n1", &["bound"]),
        ("", "spec.nodeName=", &["free"]),
        ("app=web", "status.phase=Pending,metadata.namespace=default", &["bound", "free"]),
    ] {
        let list = world.list(pods(), selecting(labels, fields)).await.unwrap();
        assert_eq!(names(&list), expected, "{labels} {fields}");
        let everywhere = ResourceRef::collection("", "v1", "pods");
        let list = world.list(everywhere, selecting(labels, fields)).await.unwrap();
        assert_eq!(names(&list), expected, "in all namespaces: {labels} {fields}");
    }
    let error = world.list(pods(), selecting("", "spec.hostname=x")).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (400, "field label not supported: spec.hostname"));
    assert_eq!(world.list(pods(), selecting("a b c", "")).await.unwrap_err().code, 400);
}

#[tokio::test]
async fn a_revision_that_is_not_yet_is_504_with_its_cause() {
    let world = world().await;
    let options = ListOptions { resource_version: Some("99999".into()), ..ListOptions::default() };
    let error = world.list(configmaps(), options).await.unwrap_err();
    assert_eq!((error.code, error.details.causes[0].reason.as_str()), (504, "ResourceVersionTooLarge"));
    assert_eq!(error.details.retry_after_seconds, 1);
}

#[tokio::test]
async fn a_list_at_an_exact_revision_that_is_gone_is_410() {
    let world = world().await;
    let old = world.configmap("a", &json!({})).await;
    world.configmap("b", &json!({})).await;
    let exact = |revision: &str| ListOptions {
        resource_version: Some(revision.to_owned()),
        resource_version_match: Some("Exact".into()),
        ..ListOptions::default()
    };
    assert_eq!(world.list(configmaps(), exact(&old)).await.unwrap_err().code, 410);
    let now = world.service.store().revision().to_string();
    assert_eq!(names(&world.list(configmaps(), exact(&now)).await.unwrap()), ["a", "b"]);
}

#[tokio::test]
async fn a_table_has_columns_and_a_row_an_object() {
    let world = world().await;
    world.configmap("x", &json!({})).await;
    let table = |include| async move {
        let verb = Verb::List(ListOptions::default());
        parse(&world.ask_whole(configmaps(), verb, View::Table(include)).await.unwrap().body)
    };
    let plain = table(IncludeObject::Metadata).await;
    assert_eq!((&plain["kind"], &plain["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns = plain["columnDefinitions"].as_array().unwrap();
    assert_eq!(columns[0]["name"], "Name");
    let row = &plain["rows"][0];
    assert_eq!(row["cells"][0], "x");
    assert_eq!(row["cells"].as_array().unwrap().len(), columns.len());
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    assert!(row["object"]["metadata"]["uid"].is_string());
}

#[tokio::test]
async fn partial_metadata_has_metadata_alone() {
    let world = world().await;
    world.configmap("x", &json!({"a": "b"})).await;
    let verb = Verb::List(ListOptions::default());
    let list = parse(&world.ask_whole(configmaps(), verb, View::Metadata).await.unwrap().body);
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("PartialObjectMetadataList"), &json!("meta.k8s.io/v1"))
    );
    let one = parse(&world.ask_whole(configmaps().named("x"), Verb::Get, View::Metadata).await.unwrap().body);
    assert_eq!(list["items"][0], one);
    assert_eq!(one["metadata"]["labels"], json!({"a": "b"}));
    assert!(one.get("data").is_none());
}
