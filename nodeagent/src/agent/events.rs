//! Events about pods, in kubelet's words. The same event on the same pod is sent again only after a
//! while, with the number of times it happened.

use std::{collections::HashMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};

use super::outbox::Outbox;
use crate::runtime::ImageNews;

/// How long repetitions of an event are only counted: a probe that fails every second makes 2 events
/// a minute, not 60.
const REPEAT_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// Different events remembered for one pod; beyond that, repetitions are sent too.
const REMEMBERED_MAX: usize = 50;

/// Who reports.
pub(super) const COMPONENT: &str = "clawbernetes-node";

/// Normal or Warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As expected.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Events of one pod.
#[derive(Default)]
pub struct Events {
    seen: HashMap<(String, String), Seen>,
}

struct Seen {
    first: Timestamp,
    sent: Timestamp,
    count: i32,
}

/// One event.
pub struct News<'a> {
    /// Normal or Warning.
    pub severity: Severity,
    /// `Started`, `BackOff`, ...
    pub reason: &'a str,
    /// For people.
    pub message: String,
    /// Which container, if any.
    pub container: Option<&'a str>,
}

impl Events {
    /// Sends or counts an event.
    pub fn tell(&mut self, outbox: &Outbox, node_name: &str, pod: &Pod, news: &News<'_>, now: Timestamp) {
        if let Some(event) = self.event(node_name, pod, news, now)
            && let Ok(text) = serde_json::to_vec(&event)
        {
            outbox.event(text);
        }
    }

    fn event(&mut self, node_name: &str, pod: &Pod, news: &News<'_>, now: Timestamp) -> Option<Event> {
        let key = (news.reason.to_owned(), news.message.clone());
        if !self.seen.contains_key(&key) && self.seen.len() >= REMEMBERED_MAX {
            self.seen.clear();
        }
        let seen = self.seen.entry(key).or_insert(Seen { first: now, sent: Timestamp::MIN, count: 0 });
        seen.count = seen.count.saturating_add(1);
        if seen.count > 1 && now < seen.sent + REPEAT_AFTER {
            return None;
        }
        seen.sent = now;
        let field = list_of(pod, news.container);
        Some(Event {
            metadata: ObjectMeta { namespace: pod.metadata.namespace.clone(), ..ObjectMeta::default() },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
                resource_version: pod.metadata.resource_version.clone(),
                field_path: news.container.map(|name| format!("spec.{field}{{{name}}}")),
            },
            type_: Some(format!("{:?}", news.severity)),
            reason: Some(news.reason.to_owned()),
            message: Some(news.message.clone()),
            first_timestamp: Some(Time(seen.first)),
            last_timestamp: Some(Time(now)),
            count: Some(seen.count),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: Some(node_name.to_owned()),
            }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(node_name.to_owned()),
            ..Event::default()
        })
    }
}

/// The list of a pod's spec in which a container is.
fn list_of(pod: &Pod, container: Option<&str>) -> &'static str {
    let spec = pod.spec.as_ref();
    let mut init = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let mut ephemeral = spec.into_iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    if init.any(|one| Some(one.name.as_str()) == container) {
        "initContainers"
    } else if ephemeral.any(|one| Some(one.name.as_str()) == container) {
        "ephemeralContainers"
    } else {
        "containers"
    }
}

/// What is told of an image on its way to a container, in the kubelet's words.
pub(super) fn image_event(image: &str, news: &ImageNews) -> (Severity, &'static str, String) {
    match news {
        ImageNews::Present => {
            (Severity::Normal, "Pulled", format!("Container image \"{image}\" already present on machine"))
        }
        ImageNews::Pulling => (Severity::Normal, "Pulling", format!("Pulling image \"{image}\"")),
        ImageNews::Progress(progress) => {
            (Severity::Normal, "Pulling", format!("Pulling image \"{image}\": {progress}"))
        }
        ImageNews::Pulled { took, bytes } => {
            let took = Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            let message = format!(
                "Successfully pulled image \"{image}\" in {took:?} ({took:?} including waiting). Image size: {bytes} bytes."
            );
            (Severity::Normal, "Pulled", message)
        }
        ImageNews::NoCredentials(why) => {
            let message = format!(
                "Unable to retrieve some image pull secrets ({why}); attempting to pull the image may not succeed."
            );
            (Severity::Warning, "FailedToRetrieveImagePullSecret", message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_and_sent_after_a_while() {
        let mut events = Events::default();
        let pod = Pod::default();
        let news = News {
            severity: Severity::Warning,
            reason: "BackOff",
            message: "m".to_owned(),
            container: Some("c"),
        };
        let second = |seconds| Timestamp::from_second(seconds).unwrap();
        let counts: Vec<Option<i32>> = [0, 10, 29, 30, 31]
            .into_iter()
            .map(|seconds| events.event("n", &pod, &news, second(seconds)).and_then(|event| event.count))
            .collect();
        assert_eq!(counts, [Some(1), None, None, Some(4), None]);
    }

    #[test]
    fn an_event_names_the_container_it_is_about() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}],
                "ephemeralContainers": [{"name": "e"}]}
        }))
        .unwrap();
        for (container, path) in [
            ("c", "spec.containers{c}"),
            ("i", "spec.initContainers{i}"),
            ("e", "spec.ephemeralContainers{e}"),
        ] {
            let news = News {
                severity: Severity::Normal,
                reason: "Started",
                message: String::new(),
                container: Some(container),
            };
            let event = Events::default().event("n", &pod, &news, Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(event.involved_object.field_path.as_deref(), Some(path));
        }
    }
}
