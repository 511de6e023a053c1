//! The forms of an answer that a client asks for: tables, metadata alone, plain objects.

use serde_json::{Value, json};

use crate::server::{DEPLOYMENTS, MAPS, MERGE, Rig, TABLE, array, deployment, names, revision, status};

#[tokio::test(flavor = "multi_thread")]
async fn a_table_has_columns_a_row_an_object_and_in_each_what_was_asked_for() {
    let rig = Rig::start().await;
    rig.post(DEPLOYMENTS, &deployment("web")).await;
    for (query, kind) in [
        ("limit=500", Some("PartialObjectMetadata")),
        ("includeObject=Metadata", Some("PartialObjectMetadata")),
        ("includeObject=Object", Some("Deployment")),
        ("includeObject=None", None),
    ] {
        for path in [DEPLOYMENTS.to_owned(), format!("{DEPLOYMENTS}/web")] {
            let table = rig.send(&format!("GET {path}?{query}"), &[TABLE], "").await.expect(200);
            assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
            assert!(revision(&table) > 0);
            let columns = array(&table["columnDefinitions"]);
            for column in columns {
                let fields = ["name", "type", "format", "description"];
                assert!(fields.iter().all(|field| column[field].is_string()), "{column}");
                assert!(column["priority"].is_u64(), "{column}");
            }
            assert_eq!((&columns[0]["name"], &columns[0]["format"]), (&json!("Name"), &json!("name")));
            assert!(columns.iter().any(|column| column["priority"] == 1), "-o wide shows more");
            let row = &table["rows"][0];
            assert_eq!((array(&row["cells"]).len(), &row["cells"][0]), (columns.len(), &json!("web")));
            assert_eq!(row["object"]["kind"].as_str(), kind, "{query}");
        }
    }
    status(
        &rig.send(&format!("GET {DEPLOYMENTS}?includeObject=Some"), &[TABLE], "").await,
        "BadRequest",
        400,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_served_is_406_unless_plain_json_will_do() {
    let rig = Rig::start().await;
    rig.map("a").await;
    let unknown = "application/json;as=Table;v=v9;g=meta.k8s.io";
    for alone in [unknown, "application/json;as=Chart;v=v1;g=meta.k8s.io"] {
        let answer = rig.send(&format!("GET {MAPS}"), &[&format!("accept: {alone}")], "").await;
        let told = status(&answer, "NotAcceptable", 406);
        assert!(
            told["message"].as_str().unwrap().contains("only the following media types are accepted"),
            "{told}"
        );
        let watch = format!("GET {MAPS}?watch=true");
        status(&rig.send(&watch, &[&format!("accept: {alone}")], "").await, "NotAcceptable", 406);
    }
    let accept = format!("accept: {unknown},application/json");
    let list = rig.send(&format!("GET {MAPS}"), &[&accept], "").await.expect(200);
    assert_eq!((&list["kind"], names(&list)), (&json!("ConfigMapList"), vec!["a"]));
}

/// kubectl sends typed commands with an `Accept` that prefers protobuf, and reads JSON as well.
#[tokio::test(flavor = "multi_thread")]
async fn who_would_rather_have_protobuf_is_given_json() {
    let rig = Rig::start().await;
    rig.map("a").await;
    let accept = "accept: application/vnd.kubernetes.protobuf,application/json";
    for path in [MAPS.to_owned(), format!("{MAPS}/a"), "/api/v1/events".to_owned()] {
        let answer = rig.send(&format!("GET {path}"), &[accept], "").await;
        assert_eq!(answer.headers["content-type"], "application/json");
        assert!(answer.expect(200)["kind"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_alone_comes_for_one_for_a_list_and_for_a_watch() {
    let rig = Rig::start().await;
    rig.map("a").await;
    let form = |kind: &str| format!("accept: application/json;as={kind};g=meta.k8s.io;v=v1");
    let one = rig.send(&format!("GET {MAPS}/a"), &[&form("PartialObjectMetadata")], "").await.expect(200);
    let list = rig.send(&format!("GET {MAPS}"), &[&form("PartialObjectMetadataList")], "").await.expect(200);
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("PartialObjectMetadataList"), &json!("meta.k8s.io/v1"))
    );
    assert!(revision(&list) > 0);
    let mut watch = rig.watch_as(&format!("{MAPS}?watch=true"), &form("PartialObjectMetadata")).await;
    let event = watch.next().await.unwrap();
    for object in [&one, &list["items"][0], &event["object"]] {
        assert_eq!(
            (&object["kind"], &object["metadata"]["name"]),
            (&json!("PartialObjectMetadata"), &json!("a"))
        );
        assert_eq!(object["data"], Value::Null);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_w_lists_a_table_and_goes_on_with_tables_of_one_row() {
    let rig = Rig::start().await;
    rig.map("a").await;
    let table = rig.send(&format!("GET {MAPS}?limit=500"), &[TABLE], "").await.expect(200);
    let path = format!("{MAPS}?resourceVersion={}&watch=true", revision(&table));
    let (mut rows, mut plain) = (rig.watch_as(&path, TABLE).await, rig.watch(&path).await);
    rig.map("b").await;
    rig.patch(&format!("{MAPS}/b"), MERGE, &json!({"data": {"l": "2"}})).await.expect(200);
    for (kind, entries) in [("ADDED", "1"), ("MODIFIED", "2")] {
        let event = rows.next().await.unwrap();
        let rows = array(&event["object"]["rows"]);
        assert_eq!((&event["type"], rows.len()), (&json!(kind), 1));
        assert_eq!(
            (&rows[0]["cells"][0], rows[0]["cells"][1].to_string()),
            (&json!("b"), entries.to_owned())
        );
    }
    assert_eq!(plain.take(2).await, ["ADDED b", "MODIFIED b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_finds_events_by_what_they_are_about() {
    let rig = Rig::start().await;
    let events = "/api/v1/namespaces/default/events";
    for (name, about) in [("one", "web"), ("two", "db")] {
        rig.post(
            events,
            &json!({
                "metadata": {"name": name}, "reason": "Told", "message": "m", "type": "Normal",
                "involvedObject": {"kind": "Pod", "namespace": "default", "name": about, "uid": format!("uid-{about}")},
            }),
        )
        .await;
    }
    for field in [
        "name%3Dweb",
        "uid%3Duid-web",
        "name%3Dweb,involvedObject.kind%3DPod,involvedObject.namespace%3Ddefault",
    ] {
        let list = rig.get(&format!("{events}?fieldSelector=involvedObject.{field}&limit=500")).await;
        assert_eq!(names(&list), ["one"], "{field}");
    }
}
