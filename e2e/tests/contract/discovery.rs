//! Discovery: what the server serves, in every form that clients ask for.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::server::{AGGREGATED, Rig, array, status};

#[tokio::test(flavor = "multi_thread")]
async fn discovery_is_aggregated_for_who_asks_and_not_sent_again_to_who_has_it() {
    let rig = Rig::start().await;
    for root in ["/api", "/apis"] {
        let first = rig.send(&format!("GET {root}"), &[AGGREGATED], "").await;
        assert_eq!(first.expect(200)["kind"], "APIGroupDiscoveryList");
        let media = first.headers["content-type"].to_str().unwrap();
        assert!(media.contains(";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"), "{media}");
        assert!(first.headers["vary"].to_str().unwrap().contains("Accept"));
        let tag = format!("if-none-match: {}", first.headers["etag"].to_str().unwrap());
        let again = rig.send(&format!("GET {root}"), &[AGGREGATED, &tag], "").await;
        assert_eq!((again.code, again.body.len()), (304, 0));
        let beta = "accept: application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let beta = rig.send(&format!("GET {root}"), &[beta], "").await;
        assert_eq!(beta.expect(200)["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    }
}

/// Who asks again finds it: kubectl reads discovery once more before it says that there is no such type.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_kind_is_in_discovery_under_another_tag() {
    let rig = Rig::start().await;
    let before = rig.send("GET /apis", &[AGGREGATED], "").await;
    rig.define_datasets().await;
    let tag = format!("if-none-match: {}", before.headers["etag"].to_str().unwrap());
    let after = rig.send("GET /apis", &[AGGREGATED, &tag], "").await;
    assert!(after.expect(200).to_string().contains("\"datasets\""));
    assert_ne!(after.headers["etag"], before.headers["etag"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_discovery_says_the_same_as_aggregated() {
    let rig = Rig::start().await;
    rig.define_datasets().await;
    let (mut plain, mut aggregated) = (BTreeMap::new(), BTreeMap::new());
    let core = rig.get("/api").await;
    assert_eq!((&core["kind"], &core["versions"]), (&json!("APIVersions"), &json!(["v1"])));
    let mut versions = vec![("v1".to_owned(), "/api/v1".to_owned())];
    let groups = rig.get("/apis").await;
    assert_eq!(groups["kind"], "APIGroupList");
    for group in array(&groups["groups"]) {
        let alone = rig.get(&format!("/apis/{}", group["name"].as_str().unwrap())).await;
        assert_eq!(
            (&alone["kind"], &alone["preferredVersion"]),
            (&json!("APIGroup"), &group["preferredVersion"])
        );
        for version in array(&group["versions"]) {
            let version = version["groupVersion"].as_str().unwrap();
            versions.push((version.to_owned(), format!("/apis/{version}")));
        }
    }
    for (version, path) in versions {
        let list = rig.get(&path).await;
        assert_eq!((&list["kind"], &list["groupVersion"]), (&json!("APIResourceList"), &json!(version)));
        for resource in array(&list["resources"]) {
            let name = format!("{version} {}", resource["name"].as_str().unwrap());
            plain.insert(name, (resource["kind"].clone(), resource["verbs"].clone()));
        }
    }
    for root in ["/api", "/apis"] {
        let told = rig.send(&format!("GET {root}"), &[AGGREGATED], "").await.expect(200);
        for (version, resource) in resources(&told) {
            let plural = resource["resource"].as_str().unwrap();
            let of = |one: &Value| (one["responseKind"]["kind"].clone(), one["verbs"].clone());
            aggregated.insert(format!("{version} {plural}"), of(resource));
            for sub in array(&resource["subresources"]) {
                aggregated
                    .insert(format!("{version} {plural}/{}", sub["subresource"].as_str().unwrap()), of(sub));
            }
        }
    }
    assert_eq!(plain, aggregated);
    assert!(plain.contains_key("data.example.com/v1 datasets/scale"));
}

/// Group versions and resources of an aggregated document.
fn resources(told: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for group in array(&told["items"]) {
        for version in array(&group["versions"]) {
            let number = version["version"].as_str().unwrap();
            let name = group["metadata"]["name"]
                .as_str()
                .map_or(number.to_owned(), |name| format!("{name}/{number}"));
            found.extend(array(&version["resources"]).iter().map(|resource| (name.clone(), resource)));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_resource_has_its_names_verbs_and_subresources() {
    let rig = Rig::start().await;
    rig.define_datasets().await;
    let apps = rig.get("/apis/apps/v1").await;
    let of = |list: &Value, name: &str| {
        array(&list["resources"]).iter().find(|one| one["name"] == name).unwrap_or(&Value::Null).clone()
    };
    let deployments = of(&apps, "deployments");
    assert_eq!(
        deployments,
        json!({
            "name": "deployments", "singularName": "deployment", "namespaced": true, "kind": "Deployment",
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            "shortNames": ["deploy"], "categories": ["all"],
        })
    );
    assert_eq!(of(&apps, "deployments/status")["verbs"], json!(["get", "patch", "update"]));
    let datasets = rig.get("/apis/data.example.com/v1").await;
    for (list, scale) in [(&apps, "deployments/scale"), (&datasets, "datasets/scale")] {
        let scale = of(list, scale);
        assert_eq!(
            (&scale["group"], &scale["version"], &scale["kind"]),
            (&json!("autoscaling"), &json!("v1"), &json!("Scale"))
        );
    }
    for list in [&apps, &datasets, &rig.get("/api/v1").await] {
        for resource in array(&list["resources"]) {
            assert!(resource["kind"].is_string() && resource["namespaced"].is_boolean(), "{resource}");
            assert!(!array(&resource["verbs"]).is_empty(), "{resource}");
            let is_sub = resource["name"].as_str().unwrap().contains('/');
            assert!(is_sub == resource["singularName"].as_str().unwrap().is_empty(), "{resource}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_is_made_of_integers() {
    let rig = Rig::start().await;
    let version = rig.get("/version").await;
    for part in ["major", "minor"] {
        assert!(version[part].as_str().unwrap().parse::<u32>().is_ok(), "{version}");
    }
    let text = version["gitVersion"].as_str().unwrap().strip_prefix('v').unwrap();
    let numbers: Vec<_> = text.split(['.', '+', '-']).take(3).map(str::parse::<u32>).collect();
    assert!(numbers.iter().all(Result::is_ok), "{text}");
    status(&rig.send("GET /version/more", &[], "").await, "NotFound", 404);
}
