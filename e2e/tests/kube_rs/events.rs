//! The event recorder: it writes into `events.k8s.io`, and everybody else reads the core group.

use claw_e2e::{Cluster, Options};
use k8s_openapi::api::{core::v1::Event as CoreEvent, events::v1::Event as NewEvent};
use kube::{
    Api, Resource as _,
    api::ListParams,
    runtime::events::{Event, EventType, Recorder},
};

use super::{client, create};

#[tokio::test(flavor = "multi_thread")]
async fn the_recorder_tells_once_and_counts_repeats() {
    let cluster = Cluster::start(Options::server());
    let client = client(&cluster).await;
    let map = create(&client, "a", "1").await;
    let recorder = Recorder::new(client.clone(), "example.com/story".into());
    let event = Event {
        type_: EventType::Warning,
        reason: "Told".to_owned(),
        note: Some("what there is to say".to_owned()),
        action: "Telling".to_owned(),
        secondary: None,
    };
    for _ in 0..3 {
        recorder.publish(&event, &map.object_ref(&())).await.expect("the event is taken");
    }
    let of_map = ListParams::default().fields("regarding.name=a");
    let told: Api<NewEvent> = Api::namespaced(client.clone(), "default");
    let told = told.list(&of_map).await.unwrap().items;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].note.as_deref(), Some("what there is to say"));
    assert_eq!(told[0].series.as_ref().map(|series| series.count), Some(3));

    let core: Api<CoreEvent> = Api::namespaced(client, "default");
    let core = core.list(&ListParams::default().fields("involvedObject.name=a")).await.unwrap().items;
    let seen: Vec<_> = core
        .iter()
        .map(|event| (event.reason.as_deref(), event.message.as_deref(), event.type_.as_deref()))
        .collect();
    assert_eq!(seen, [(Some("Told"), Some("what there is to say"), Some("Warning"))]);
    assert_eq!(core[0].reporting_component.as_deref(), Some("example.com/story"));
}
