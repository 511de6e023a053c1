//! Garbage on every input: an error in words, never a panic, and the service goes on.

use axum::body::Body;
use claw_client::{
    Verb,
    request::{ListOptions, PatchKind},
};
use http::Request;
use proptest::prelude::*;
use tower::ServiceExt as _;

use crate::world::{World, by, configmaps, deployment, deployments, world};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Bytes of a document with a few of them changed, which get further than noise does.
fn damaged(document: String) -> impl Strategy<Value = Vec<u8>> {
    let length = document.len();
    proptest::collection::vec((0..length, any::<u8>()), 1..4).prop_map(move |changes| {
        let mut bytes = document.clone().into_bytes();
        changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        bytes
    })
}

async fn refused_or_served(world: &World, verb: Verb) {
    let on = match verb {
        Verb::Create { .. } | Verb::List(_) => deployments(),
        _ => deployments().named("web"),
    };
    if let Err(error) = world.ask(on, verb).await {
        assert!(
            (400..500).contains(&error.code),
            "the client is told what is wrong with its request: {error:?}"
        );
        assert!(!error.message.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn bodies_and_patches_of_garbage_are_the_clients_fault(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        damaged in damaged(deployment("web", 1).to_string()),
        text in ".{0,80}",
    ) {
        runtime().block_on(async {
            let world = world().await;
            world.create(deployments(), &deployment("web", 1)).await.unwrap();
            for body in [noise, damaged, text.clone().into_bytes()] {
                let options = || by("m");
                let create = Verb::Create { body: body.clone().into(), options: options() };
                refused_or_served(&world, create).await;
                refused_or_served(&world, Verb::Update { body: body.clone().into(), options: options() }).await;
                for kind in [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply] {
                    let (body, options) = (body.clone().into(), options());
                    refused_or_served(&world, Verb::Patch { kind, body, options, force: false }).await;
                }
            }
            let list = ListOptions {
                label_selector: text.clone(),
                field_selector: text.clone(),
                continue_token: Some(text.clone()),
                resource_version: Some(text),
                ..ListOptions::default()
            };
            refused_or_served(&world, Verb::List(list)).await;
            world.get(deployments().named("web")).await.unwrap();
        });
    }

    #[test]
    fn paths_and_queries_of_garbage_get_a_status(path in "/[ -~]{0,60}", query in "[ -~]{0,60}") {
        runtime().block_on(async {
            let world = world().await;
            let router = claw_apiserver::rest::router(world.service.clone());
            for uri in [path.clone(), format!("/api/v1/configmaps?{query}"), format!("/api/v1/{path}?{query}")] {
                let Ok(mut request) = Request::get(&uri).body(Body::empty()) else { continue };
                request.extensions_mut().insert(world.who.clone());
                let response = router.clone().oneshot(request).await.unwrap();
                assert!(response.status().as_u16() < 500, "{uri}: {}", response.status());
            }
            world.list(configmaps(), ListOptions::default()).await.unwrap();
        });
    }
}
