//! What the server has yet to be told. Levels, not a log: a newer report on the same thing takes
//! the place of an older one, so the outbox is bounded by the number of pods however long the
//! server is away.

use std::collections::{BTreeMap, HashMap, VecDeque};

use claw_schemas::proto::{
    AgentMessage, EventReport, NodeStatus, PodStatus, PodTerminated, agent_message::Message,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Events are news, not levels: while the server is away the oldest are dropped. 110 pods × 9.
const EVENTS_MAX: usize = 1_000;

/// What a report is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    /// This machine.
    Node,
    /// Pod uid.
    Status(String),
    /// Pod uid.
    Terminated(String),
}

/// Reports until they are acknowledged, and events until they are sent.
#[derive(Default)]
pub struct Outbox {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    last_sequence: u64,
    /// By sequence.
    reports: BTreeMap<u64, (Subject, AgentMessage)>,
    latest: HashMap<Subject, u64>,
    events: VecDeque<EventReport>,
}

impl Outbox {
    /// The level of a pod.
    pub fn status(&self, namespace: &str, name: &str, uid: &str, status: Vec<u8>) {
        self.put(Subject::Status(uid.to_owned()), |sequence| {
            Message::PodStatus(PodStatus {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                uid: uid.to_owned(),
                status: status.into(),
                sequence,
            })
        });
    }

    /// A part of what the Node says.
    pub fn node_status(&self, status: Vec<u8>) {
        self.put(Subject::Node, |sequence| {
            Message::NodeStatus(NodeStatus { status: status.into(), sequence })
        });
    }

    /// A deleted pod is gone from this machine.
    pub fn terminated(&self, namespace: &str, name: &str, uid: &str) {
        self.put(Subject::Terminated(uid.to_owned()), |sequence| {
            Message::PodTerminated(PodTerminated {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                uid: uid.to_owned(),
                sequence,
            })
        });
    }

    /// Something worth an Event object.
    pub fn event(&self, event: Vec<u8>) {
        let mut inner = self.inner.lock();
        if inner.events.len() >= EVENTS_MAX {
            inner.events.pop_front();
        }
        inner.events.push_back(EventReport { event: event.into() });
        drop(inner);
        self.changed.notify_one();
    }

    /// The server has it, and everything it superseded.
    pub fn acknowledge(&self, sequence: u64) {
        let mut inner = self.inner.lock();
        if let Some((subject, _)) = inner.reports.remove(&sequence)
            && inner.latest.get(&subject) == Some(&sequence)
        {
            inner.latest.remove(&subject);
        }
    }

    /// Nobody asks about this pod any more.
    pub fn forget(&self, uid: &str) {
        let mut inner = self.inner.lock();
        for subject in [Subject::Status(uid.to_owned()), Subject::Terminated(uid.to_owned())] {
            if let Some(sequence) = inner.latest.remove(&subject) {
                inner.reports.remove(&sequence);
            }
        }
    }

    /// Whether a status of this pod waits for its acknowledgement.
    pub fn is_pending(&self, uid: &str) -> bool {
        self.inner.lock().latest.contains_key(&Subject::Status(uid.to_owned()))
    }

    /// The next thing to send after `cursor`, which moves on. A new session starts at 0, and so
    /// sends again whatever was not acknowledged. Events go once.
    pub fn next(&self, cursor: &mut u64) -> Option<AgentMessage> {
        let mut inner = self.inner.lock();
        if let Some((sequence, (_, message))) = inner.reports.range(*cursor + 1..).next() {
            *cursor = *sequence;
            return Some(message.clone());
        }
        let event = inner.events.pop_front()?;
        Some(AgentMessage { message: Some(Message::Event(event)) })
    }

    /// Returns when there may be something new.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn put(&self, subject: Subject, message: impl FnOnce(u64) -> Message) {
        let mut inner = self.inner.lock();
        inner.last_sequence += 1;
        let sequence = inner.last_sequence;
        if let Some(superseded) = inner.latest.insert(subject.clone(), sequence) {
            inner.reports.remove(&superseded);
        }
        inner.reports.insert(sequence, (subject, AgentMessage { message: Some(message(sequence)) }));
        drop(inner);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(outbox: &Outbox, cursor: &mut u64) -> Vec<u64> {
        std::iter::from_fn(|| outbox.next(cursor))
            .map(|message| match message.message {
                Some(Message::PodStatus(status)) => status.sequence,
                Some(Message::PodTerminated(terminated)) => terminated.sequence,
                other => panic!("unexpected {other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_newer_status_takes_the_place_of_an_older_one() {
        let outbox = Outbox::default();
        for pod in ["a", "b", "a"] {
            outbox.status("ns", pod, pod, Vec::new());
        }
        assert_eq!(sequences(&outbox, &mut 0), [2, 3]);
    }

    #[test]
    fn a_new_session_sends_again_what_was_not_acknowledged() {
        let outbox = Outbox::default();
        outbox.status("ns", "a", "a", Vec::new());
        outbox.terminated("ns", "b", "b");
        let mut cursor = 0;
        assert_eq!(sequences(&outbox, &mut cursor), [1, 2]);
        assert_eq!(sequences(&outbox, &mut cursor), [0; 0]);
        outbox.acknowledge(1);
        assert_eq!(sequences(&outbox, &mut 0), [2]);
        assert!(!outbox.is_pending("a"));
    }

    #[test]
    fn an_old_acknowledgement_does_not_drop_a_newer_report() {
        let outbox = Outbox::default();
        outbox.status("ns", "a", "a", Vec::new());
        outbox.status("ns", "a", "a", Vec::new());
        outbox.acknowledge(1);
        assert!(outbox.is_pending("a"));
        assert_eq!(sequences(&outbox, &mut 0), [2]);
    }

    #[test]
    fn events_are_bounded() {
        let outbox = Outbox::default();
        for _ in 0..EVENTS_MAX + 5 {
            outbox.event(Vec::new());
        }
        let mut cursor = 0;
        assert_eq!(std::iter::from_fn(|| outbox.next(&mut cursor)).count(), EVENTS_MAX);
    }
}
