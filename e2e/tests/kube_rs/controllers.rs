//! What controllers written with kube-rs are made of: the controller itself, finalizers, elections.

use std::{sync::Arc, time::Duration};

use claw_e2e::{Cluster, Options};
use futures::StreamExt as _;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams},
    runtime::{
        Controller,
        controller::Action,
        finalizer::{self, finalizer},
        watcher,
    },
};
use kube_lease_manager::LeaseManagerBuilder;

use super::{client, config_maps, create, soon};

/// Copies each map into one of its own, by server-side apply.
async fn copy(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let copy = ConfigMap {
        metadata: ObjectMeta {
            name: Some(format!("{}-copy", map.name_any())),
            owner_references: Some(map.controller_owner_ref(&()).into_iter().collect()),
            ..ObjectMeta::default()
        },
        data: map.data.clone(),
        ..ConfigMap::default()
    };
    let parameters = PatchParams::apply("copier").force();
    config_maps(&client).patch(&copy.name_any(), &parameters, &Patch::Apply(&copy)).await?;
    Ok(Action::await_change())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_keeps_what_it_owns_as_it_should_be() {
    let cluster = Cluster::start(Options::server());
    let client = client(&cluster).await;
    let maps = config_maps(&client);
    let controller = Controller::new(maps.clone(), watcher::Config::default().labels("story=kube-rs"))
        .owns(maps.clone(), watcher::Config::default())
        .run(copy, |_, _: &kube::Error, _| Action::requeue(Duration::from_secs(1)), Arc::new(client.clone()));
    let running = tokio::spawn(controller.for_each(|_| async {}));

    create(&client, "a", "1").await;
    let value = async |wanted: &str| {
        soon(&format!("the copy says {wanted}"), async {
            loop {
                let copy = maps.get_opt("a-copy").await.unwrap();
                if copy.and_then(|copy| copy.data).is_some_and(|data| data["value"] == wanted) {
                    return;
                }
            }
        })
        .await;
    };
    value("1").await;
    // Somebody deletes the copy: it comes back. Somebody changes the source: the copy follows.
    maps.delete("a-copy", &DeleteParams::default()).await.unwrap();
    value("1").await;
    let change = serde_json::json!({"data": {"value": "2"}});
    maps.patch("a", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    value("2").await;
    running.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finalizer_cleans_up_before_an_object_goes() {
    const NAME: &str = "example.com/cleanup";
    let cluster = Cluster::start(Options::server());
    let client = client(&cluster).await;
    let maps = config_maps(&client);
    let step = async |map: ConfigMap| {
        let seen = std::sync::Mutex::new("");
        let note = |word| {
            *seen.lock().unwrap() = word;
            std::future::ready(Ok::<_, std::io::Error>(Action::await_change()))
        };
        let done = finalizer(&maps, NAME, Arc::new(map), |event| match event {
            finalizer::Event::Apply(_) => note("apply"),
            finalizer::Event::Cleanup(_) => note("cleanup"),
        });
        done.await.expect("a step succeeds");
        seen.into_inner().unwrap()
    };
    let fresh = create(&client, "a", "1").await;
    assert_eq!(step(fresh).await, "", "first it puts its name on the object");
    assert_eq!(maps.get("a").await.unwrap().finalizers(), [NAME]);
    assert_eq!(step(maps.get("a").await.unwrap()).await, "apply");
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let held = maps.get("a").await.expect("the finalizer holds it");
    assert!(held.meta().deletion_timestamp.is_some());
    assert_eq!(step(held).await, "cleanup");
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_leads_and_the_other_follows_on() {
    let cluster = Cluster::start(Options::server());
    let client = client(&cluster).await;
    let build = async |identity: &str| {
        LeaseManagerBuilder::new(client.clone(), "election")
            .with_namespace("default")
            .with_identity(identity)
            // The grace is what a busy machine may take longer for a renewal; who follows sleeps through the rest.
            .with_duration(30)
            .with_grace(15)
            .build()
            .await
            .expect("a candidate")
    };
    let (mut first, first_runs) = build("first").await.watch().await;
    soon("the first leads", first.wait_for(|leads| *leads)).await.expect("the first goes on");
    let (mut second, second_runs) = build("second").await.watch().await;
    let leases: Api<Lease> = Api::namespaced(client.clone(), "default");
    let holder = async || leases.get("election").await.unwrap().spec.unwrap().holder_identity;
    assert_eq!(holder().await.as_deref(), Some("first"));
    assert!(!*second.borrow());
    // It gives the lease up when nobody listens any more.
    drop(first);
    soon("the second leads", second.wait_for(|leads| *leads)).await.expect("the second goes on");
    assert_eq!(holder().await.as_deref(), Some("second"));
    soon("the first ends", first_runs).await.expect("it was not killed").expect("it gave up in order");
    second_runs.abort();
}
