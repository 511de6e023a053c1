//! Lists: revisions, pages, selectors.

use serde_json::json;

use crate::server::{MAPS, Rig, array, map, names, revision, status};

#[tokio::test(flavor = "multi_thread")]
async fn every_list_of_every_kind_carries_a_revision_the_last_page_too() {
    let rig = Rig::start().await;
    rig.define_datasets().await;
    rig.maps(&["a", "b", "c", "d"]).await;
    let mut several_pages = 0;
    for (path, kind) in rig.listable().await {
        let (mut query, mut revisions) = ("limit=3".to_owned(), Vec::new());
        loop {
            let list = rig.get(&format!("{path}?{query}")).await;
            assert_eq!(list["kind"], format!("{kind}List"), "{path}");
            assert!(list["items"].is_array(), "{path}");
            revisions.push(revision(&list));
            let Some(token) = list["metadata"]["continue"].as_str() else { break };
            query = format!("limit=3&continue={token}");
        }
        several_pages += usize::from(revisions.len() > 1);
        revisions.dedup();
        assert!(revisions.len() == 1 && revisions[0] > 0, "{path}: {revisions:?}");
    }
    assert!(several_pages >= 3, "maps, roles and bindings take several pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_one_revision_and_count_what_remains() {
    let rig = Rig::start().await;
    rig.maps(&["a", "b", "c", "d", "e"]).await;
    let first = rig.get(&format!("{MAPS}?limit=2")).await;
    rig.map("bb").await;
    let (mut page, mut seen) = (first.clone(), Vec::new());
    loop {
        assert_eq!(revision(&page), revision(&first));
        seen.extend(names(&page).into_iter().map(str::to_owned));
        let left = &page["metadata"]["remainingItemCount"];
        let Some(token) = page["metadata"]["continue"].as_str() else {
            assert!(left.is_null(), "the last page has nothing after it: {page}");
            break;
        };
        assert_eq!(*left, 5 - seen.len());
        page = rig.get(&format!("{MAPS}?continue={token}&limit=2")).await;
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_page_is_410_with_a_token_that_goes_on_over_one_newer_revision() {
    let rig = Rig::start().await;
    rig.maps(&["a", "b", "c", "d", "e", "f"]).await;
    let first = rig.get(&format!("{MAPS}?limit=2")).await;
    rig.delete(&format!("{MAPS}/a"), &json!({})).await.expect(200);
    rig.forget_history().await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let expired =
        status(&rig.send(&format!("GET {MAPS}?limit=2&continue={token}"), &[], "").await, "Expired", 410);
    let token = expired["metadata"]["continue"].as_str().unwrap();
    let second = rig.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert!(revision(&second) > revision(&first));
    assert_eq!((names(&second), &second["metadata"]["remainingItemCount"]), (vec!["c", "d"], &json!(2)));
    rig.map("g").await;
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = rig.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!((names(&third), revision(&third)), (vec!["e", "f"], revision(&second)));
    assert!(third["metadata"]["continue"].is_null() && third["metadata"]["remainingItemCount"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_ahead_of_the_server_is_504_and_a_watch_is_silent_until_it_is_passed() {
    let rig = Rig::start().await;
    let ahead = revision(&rig.map("a").await) + 10;
    for query in ["", "&limit=500", "&resourceVersionMatch=NotOlderThan", "&resourceVersionMatch=Exact"] {
        let answer = rig.send(&format!("GET {MAPS}?resourceVersion={ahead}{query}"), &[], "").await;
        let told = status(&answer, "Timeout", 504);
        assert_eq!(told["details"]["causes"][0]["reason"], "ResourceVersionTooLarge", "{query}");
        assert_eq!(told["details"]["retryAfterSeconds"], 1, "{query}");
        assert_eq!(answer.headers["retry-after"], "1", "{query}");
    }
    let mut watch = rig.watch(&format!("{MAPS}?watch=true&resourceVersion={ahead}")).await;
    let mut made = rig.map("b").await;
    while revision(&made) <= ahead {
        made = rig.map(&format!("c{}", revision(&made))).await;
    }
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]), (&json!("ADDED"), &made), "the first after that revision");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_is_gone_is_410_and_one_that_is_none_is_400() {
    let rig = Rig::start().await;
    let old = revision(&rig.map("a").await);
    rig.forget_history().await;
    let exact = format!("GET {MAPS}?resourceVersion={old}&resourceVersionMatch=Exact");
    let told = status(&rig.send(&exact, &[], "").await, "Expired", 410);
    assert!(told["message"].as_str().unwrap().starts_with(&format!("too old resource version: {old} (")));
    for query in
        ["resourceVersion=abc", "resourceVersion=-1", "continue=garbage", "watch=true&resourceVersion=x"]
    {
        status(&rig.send(&format!("GET {MAPS}?{query}"), &[], "").await, "BadRequest", 400);
    }
}

/// Clients compare revisions as numbers (KEP-5504): decimal, without a sign or a zero in front.
#[tokio::test(flavor = "multi_thread")]
async fn revisions_are_integers_that_grow_with_every_write_of_any_kind() {
    let rig = Rig::start().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let mut written = vec![rig.map("a").await, rig.post(secrets, &json!({"metadata": {"name": "s"}})).await];
    let merge = crate::server::MERGE;
    written.push(rig.patch(&format!("{MAPS}/a"), merge, &json!({"data": {"k": "2"}})).await.expect(200));
    let mut watch = rig.watch(&format!("{MAPS}?watch=1&resourceVersion={}", revision(&written[2]))).await;
    rig.delete(&format!("{MAPS}/a"), &json!({})).await.expect(200);
    written.push(watch.next().await.unwrap()["object"].clone());
    written.push(rig.map("a").await);
    let texts = written.iter().map(|object| object["metadata"]["resourceVersion"].as_str().unwrap());
    for text in texts {
        assert!(text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0'), "{text}");
    }
    let revisions: Vec<_> = written.iter().map(revision).collect();
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
    assert_eq!(revision(&rig.get(MAPS).await), revisions[4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_declared_fields_select_and_no_selector_means_all() {
    let rig = Rig::start().await;
    for (name, tier) in [("a", "web"), ("b", "web"), ("c", "db")] {
        let mut object = map(name);
        object["metadata"]["labels"] = json!({"tier": tier});
        rig.post(MAPS, &object).await;
    }
    for (query, expected) in [
        ("", &["a", "b", "c"][..]),
        ("labelSelector=&fieldSelector=", &["a", "b", "c"]),
        ("labelSelector=tier%3Dweb", &["a", "b"]),
        ("labelSelector=tier+in+(db,cache)", &["c"]),
        ("labelSelector=tier!%3Dweb", &["c"]),
        ("labelSelector=tier,!owner", &["a", "b", "c"]),
        ("fieldSelector=metadata.name%3Db", &["b"]),
        ("fieldSelector=metadata.name!%3Db,metadata.namespace%3Ddefault", &["a", "c"]),
        ("labelSelector=tier%3Dweb&fieldSelector=metadata.name%3Db", &["b"]),
    ] {
        assert_eq!(names(&rig.get(&format!("{MAPS}?{query}")).await), expected, "{query}");
    }
    let asked = format!("GET {MAPS}?fieldSelector=data.k%3Dv");
    let told = status(&rig.send(&asked, &[], "").await, "BadRequest", 400);
    assert!(told["message"].as_str().unwrap().contains("field label not supported: data.k"), "{told}");
    status(&rig.send(&format!("GET {MAPS}?labelSelector=a+b+c"), &[], "").await, "BadRequest", 400);
    let list = rig.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dnone")).await;
    assert!(array(&list["items"]).is_empty() && revision(&list) > 0);
}
