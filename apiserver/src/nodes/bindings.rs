//! Which pods are bound to which node, and what a change of a pod means to nodes.
//!
//! Pure: applied to store events in order, it says which message goes to which node. It keeps the bytes that the
//! store keeps, not copies.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use claw_client::without_managed_fields;
use claw_schemas::proto::{DesiredPods, PodChanged, PodRemoved, ServerMessage, server_message::Message};
use serde::Deserialize;

use crate::store::{Event, Key, Page, Revision};

/// Pods by node.
#[derive(Default)]
pub struct Bindings {
    revision: Revision,
    nodes: HashMap<Arc<str>, BTreeMap<Key, Bytes>>,
    places: HashMap<Key, Arc<str>>,
}

/// A message for a node.
pub type Addressed = (Arc<str>, ServerMessage);

/// What is read of a pod here.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    spec: Spec<'a>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
struct Spec<'a> {
    #[serde(borrow, default, rename = "nodeName")]
    node_name: Cow<'a, str>,
}

impl Bindings {
    /// Starts over from a whole list of pods.
    pub fn reset(&mut self, page: &Page) {
        *self = Self { revision: page.revision, ..Self::default() };
        for record in &page.items {
            if let Some(node) = node_of(&record.value) {
                self.bind(record.key.clone(), &node, record.value.clone());
            }
        }
    }

    /// Applies one change. A pod that moves (deleted and made again elsewhere) concerns two nodes.
    pub fn apply(&mut self, event: &Event) -> Vec<Addressed> {
        self.revision = event.record.revision;
        let next = if event.deleted { None } else { node_of(&event.record.value) };
        let mut messages = Vec::new();
        if let Some(node) = self.places.get(&event.record.key).cloned()
            && next.as_deref() != Some(&*node)
        {
            let gone = self.unbind(&event.record.key, &node);
            messages.extend(
                gone.and_then(|pod| removed(event.record.revision, &pod)).map(|message| (node, message)),
            );
        }
        if let Some(node) = next {
            let node = self.bind(event.record.key.clone(), &node, event.record.value.clone());
            let message = Message::PodChanged(PodChanged {
                revision: event.record.revision,
                pod: for_agent(&event.record.value),
            });
            messages.push((node, ServerMessage { message: Some(message) }));
        }
        messages
    }

    /// All pods of a node, as of the last change applied.
    pub fn desired(&self, node: &str) -> ServerMessage {
        let pods =
            self.nodes.get(node).map(|pods| pods.values().map(for_agent).collect()).unwrap_or_default();
        let message = Message::DesiredPods(DesiredPods { revision: self.revision, pods });
        ServerMessage { message: Some(message) }
    }

    /// The pods of a node in one namespace.
    pub fn pods(&self, node: &str, namespace: &str) -> Vec<Bytes> {
        let range = Key::collection("", "pods", Some(namespace));
        let Some(pods) = self.nodes.get(node) else { return Vec::new() };
        let found = pods.range(range.clone()..).take_while(|(key, _)| key.is_in(&range));
        found.map(|(_, pod)| pod.clone()).collect()
    }

    fn bind(&mut self, key: Key, node: &str, pod: Bytes) -> Arc<str> {
        let node = match self.nodes.get_key_value(node) {
            Some((known, _)) => known.clone(),
            None => Arc::from(node),
        };
        self.nodes.entry(node.clone()).or_default().insert(key.clone(), pod);
        self.places.insert(key, node.clone());
        node
    }

    fn unbind(&mut self, key: &Key, node: &str) -> Option<Bytes> {
        self.places.remove(key);
        let pods = self.nodes.get_mut(node)?;
        let pod = pods.remove(key);
        if pods.is_empty() {
            self.nodes.remove(node);
        }
        pod
    }
}

/// A pod as an agent gets it, without what it has no use for.
fn for_agent(pod: &Bytes) -> Bytes {
    match without_managed_fields(pod) {
        Cow::Borrowed(_) => pod.clone(),
        Cow::Owned(pod) => pod.into(),
    }
}

/// The node a pod is bound to. What does not parse is bound to none: the API lets nothing of the kind in.
fn node_of(pod: &[u8]) -> Option<Cow<'_, str>> {
    let head: Head<'_> = serde_json::from_slice(pod).ok()?;
    (!head.spec.node_name.is_empty()).then_some(head.spec.node_name)
}

fn removed(revision: Revision, pod: &[u8]) -> Option<ServerMessage> {
    let Metadata { name, namespace, uid } = serde_json::from_slice::<Head<'_>>(pod).ok()?.metadata;
    let message = Message::PodRemoved(PodRemoved {
        revision,
        namespace: namespace.into_owned(),
        name: name.into_owned(),
        uid: uid.into_owned(),
    });
    Some(ServerMessage { message: Some(message) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Record;

    fn pod(name: &str, uid: &str, node: Option<&str>) -> Bytes {
        let metadata = serde_json::json!({ "name": name, "namespace": "default", "uid": uid });
        let spec = node.map_or(serde_json::json!({}), |node| serde_json::json!({ "nodeName": node }));
        serde_json::json!({ "metadata": metadata, "spec": spec }).to_string().into()
    }

    fn key(name: &str) -> Key {
        Key::object("", "pods", "default", name)
    }

    fn put(revision: u64, name: &str, uid: &str, node: Option<&str>) -> Event {
        let record = Record { revision, key: key(name), value: pod(name, uid, node) };
        Event { record: record.into(), previous: None, deleted: false }
    }

    fn delete(revision: u64, name: &str, uid: &str, node: Option<&str>) -> Event {
        Event { deleted: true, ..put(revision, name, uid, node) }
    }

    fn told(messages: &[Addressed]) -> Vec<(String, String)> {
        messages
            .iter()
            .map(|(node, message)| {
                let what = match message.message.as_ref().unwrap() {
                    Message::PodChanged(changed) => format!("changed at {}", changed.revision),
                    Message::PodRemoved(gone) => format!("removed {} at {}", gone.uid, gone.revision),
                    other => panic!("{other:?}"),
                };
                (node.to_string(), what)
            })
            .collect()
    }

    fn desired(bindings: &Bindings, node: &str) -> (u64, usize) {
        match bindings.desired(node).message.unwrap() {
            Message::DesiredPods(desired) => (desired.revision, desired.pods.len()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_node_hears_of_a_pod_from_its_binding_to_its_removal() {
        let mut bindings = Bindings::default();
        assert!(bindings.apply(&put(1, "web", "u1", None)).is_empty());
        assert_eq!(
            told(&bindings.apply(&put(2, "web", "u1", Some("a")))),
            [("a".into(), "changed at 2".into())]
        );
        assert_eq!(desired(&bindings, "a"), (2, 1));
        assert_eq!(
            told(&bindings.apply(&delete(3, "web", "u1", Some("a")))),
            [("a".into(), "removed u1 at 3".into())]
        );
        assert_eq!(desired(&bindings, "a"), (3, 0));
        assert!(bindings.nodes.is_empty() && bindings.places.is_empty());
    }

    #[test]
    fn a_pod_made_again_elsewhere_leaves_the_first_node() {
        let mut bindings = Bindings::default();
        bindings.apply(&put(1, "web", "u1", Some("a")));
        assert_eq!(
            told(&bindings.apply(&put(2, "web", "u2", Some("b")))),
            [("a".into(), "removed u1 at 2".into()), ("b".into(), "changed at 2".into())]
        );
    }

    #[test]
    fn a_list_replaces_everything() {
        let mut bindings = Bindings::default();
        bindings.apply(&put(1, "old", "u1", Some("a")));
        let items = vec![
            Record { key: key("new"), revision: 4, value: pod("new", "u2", Some("b")) },
            Record { key: key("free"), revision: 5, value: pod("free", "u3", None) },
        ];
        bindings.reset(&Page { items, revision: 9, ..Page::default() });
        assert_eq!(desired(&bindings, "a"), (9, 0));
        assert_eq!(desired(&bindings, "b"), (9, 1));
    }

    #[test]
    fn the_pods_of_a_node_are_found_by_namespace() {
        let mut bindings = Bindings::default();
        bindings.apply(&put(1, "web", "u1", Some("a")));
        let elsewhere = Key::object("", "pods", "other", "web");
        let record = Record { revision: 2, key: elsewhere, value: pod("web", "u2", Some("a")) };
        bindings.apply(&Event { record: record.into(), previous: None, deleted: false });
        bindings.apply(&put(3, "db", "u3", Some("b")));
        assert_eq!(bindings.pods("a", "default"), [pod("web", "u1", Some("a"))]);
        assert_eq!(bindings.pods("a", "defaul"), Vec::<Bytes>::new());
        assert_eq!(bindings.pods("c", "default"), Vec::<Bytes>::new());
    }

    #[test]
    fn what_does_not_parse_is_bound_to_no_node() {
        assert_eq!(node_of(b"garbage"), None);
        assert_eq!(
            node_of(br#"{"metadata":{"name":"x"},"spec":{"nodeName":"\u0061"}}"#).as_deref(),
            Some("a")
        );
    }
}
