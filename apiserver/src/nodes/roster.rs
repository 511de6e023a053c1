//! Which nodes there are, which have a session, and when they were last heard.
//!
//! Pure: time comes in as an argument, nothing is written here.

use std::{collections::HashMap, time::Duration};

use claw_schemas::{ApiError, proto::ServerMessage, status::Reason};
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// Where messages to an agent go.
pub type Outgoing = mpsc::Sender<Result<ServerMessage, ApiError>>;

/// Nodes and sessions.
#[derive(Default)]
pub struct Roster {
    nodes: HashMap<String, Node>,
    epochs: u64,
}

/// What is known of one node.
struct Node {
    last_seen: Instant,
    /// Whether there is a Node object.
    exists: bool,
    /// Status of the stored `Ready` condition.
    ready: Option<String>,
    /// The `Ready` condition that the agent reported last.
    reported: Option<Value>,
    session: Option<Session>,
}

struct Session {
    epoch: u64,
    instance: String,
    since: Instant,
    outgoing: Outgoing,
    /// Whether it has its `DesiredPods`, and changes may follow.
    attached: bool,
    cut: CancellationToken,
}

/// A session's claim to its node.
pub struct Claim {
    /// Tells it from sessions before and after.
    pub epoch: u64,
    /// Cancelled when the session must end.
    pub cut: CancellationToken,
}

/// What the stored `Ready` condition should become.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// It is as it should be.
    Keep,
    /// The agent has been silent for too long.
    Silent,
    /// The agent is back; the condition it reported last, if any.
    Back(Option<Value>),
}

/// What is read of a Node object here.
#[derive(Deserialize)]
struct Head {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Node {
    fn new(now: Instant) -> Self {
        Self { last_seen: now, exists: false, ready: None, reported: None, session: None }
    }

    fn verdict(&self, now: Instant, grace: Duration) -> Verdict {
        let is_unknown = self.ready.as_deref() == Some("Unknown");
        if !self.exists {
            Verdict::Keep
        } else if now.duration_since(self.last_seen) > grace {
            if is_unknown { Verdict::Keep } else { Verdict::Silent }
        } else if self.session.as_ref().is_some_and(|session| session.attached)
            && (is_unknown || self.ready.is_none())
        {
            Verdict::Back(self.reported.clone())
        } else {
            Verdict::Keep
        }
    }
}

impl Roster {
    /// Learns from a stored Node. One seen for the first time gets a whole grace period, also after a restart of
    /// the server.
    pub fn node_stored(&mut self, object: &[u8], now: Instant) {
        let Ok(head) = serde_json::from_slice::<Head>(object) else { return };
        let node = self.nodes.entry(head.metadata.name).or_insert_with(|| Node::new(now));
        node.exists = true;
        node.ready = head
            .status
            .conditions
            .into_iter()
            .find(|condition| condition.kind == "Ready")
            .map(|ready| ready.status);
    }

    /// Learns that a Node object is gone. An agent that is still connected is cut, so that it registers again.
    pub fn node_deleted(&mut self, name: &str) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.exists = false;
            node.ready = None;
            match &node.session {
                Some(session) if session.attached => session.cut.cancel(),
                Some(_) => {}
                None => drop(self.nodes.remove(name)),
            }
        }
    }

    /// Names of all nodes that have an object.
    pub fn stored_names(&self) -> Vec<String> {
        self.nodes.iter().filter(|(_, node)| node.exists).map(|(name, _)| name.clone()).collect()
    }

    /// Gives a node to a session, if no other live one has it.
    ///
    /// # Errors
    /// `Conflict`, when another agent process serves the node.
    pub fn claim(
        &mut self,
        name: &str,
        instance: &str,
        outgoing: Outgoing,
        now: Instant,
        grace: Duration,
    ) -> Result<Claim, ApiError> {
        let node = self.nodes.entry(name.to_owned()).or_insert_with(|| Node::new(now));
        if let Some(session) = &node.session {
            let silence = now.duration_since(node.last_seen);
            if session.instance != instance && silence <= grace {
                return Err(ApiError::new(
                    Reason::Conflict,
                    format!(
                        "node \"{name}\" is served by another agent (instance {}), heard {} ms ago; stop that one, or give this machine another name",
                        session.instance,
                        silence.as_millis()
                    ),
                ));
            }
            session.cut.cancel();
        }
        self.epochs += 1;
        let (epoch, cut) = (self.epochs, CancellationToken::new());
        node.last_seen = now;
        node.session = Some(Session {
            epoch,
            instance: instance.to_owned(),
            since: now,
            outgoing,
            attached: false,
            cut: cut.clone(),
        });
        Ok(Claim { epoch, cut })
    }

    /// Lets changes of pods reach a session. False when it has lost its node meanwhile.
    pub fn attach(&mut self, name: &str, epoch: u64) -> bool {
        self.session_mut(name, epoch).map(|session| session.attached = true).is_some()
    }

    /// Ends a session's claim.
    pub fn release(&mut self, name: &str, epoch: u64) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        if node.session.as_ref().is_some_and(|session| session.epoch == epoch) {
            node.session = None;
            if !node.exists {
                self.nodes.remove(name);
            }
        }
    }

    /// Any word from an agent counts as a heartbeat.
    pub fn heard(&mut self, name: &str, epoch: u64, now: Instant) {
        if self.session_mut(name, epoch).is_some()
            && let Some(node) = self.nodes.get_mut(name)
        {
            node.last_seen = now;
        }
    }

    /// Remembers the `Ready` condition an agent reported, for when it comes back from a silence.
    pub fn reported(&mut self, name: &str, ready: Option<Value>) {
        if let (Some(node), Some(ready)) = (self.nodes.get_mut(name), ready) {
            node.reported = Some(ready);
        }
    }

    /// The way to a node's agent, when it has a session that is under way.
    pub fn outgoing(&self, name: &str) -> Option<Outgoing> {
        let session = self.nodes.get(name)?.session.as_ref()?;
        session.attached.then(|| session.outgoing.clone())
    }

    /// Whether an agent serves the node right now.
    pub fn is_served(&self, name: &str, now: Instant, grace: Duration) -> bool {
        self.nodes
            .get(name)
            .is_some_and(|node| node.session.is_some() && now.duration_since(node.last_seen) <= grace)
    }

    /// Hands a message to a node's agent, if it has one. An agent too slow to take it is cut: it reconnects, and
    /// gets everything at once.
    pub fn deliver(&self, name: &str, message: ServerMessage) {
        let Some(session) = self.nodes.get(name).and_then(|node| node.session.as_ref()) else { return };
        if session.attached && session.outgoing.try_send(Ok(message)).is_err() {
            tracing::warn!(node = name, "the agent does not keep up, its session is cut");
            session.cut.cancel();
        }
    }

    /// Names of nodes with a session that is under way.
    pub fn attached(&self) -> Vec<String> {
        let attached = |node: &Node| node.session.as_ref().is_some_and(|session| session.attached);
        self.nodes.iter().filter(|(_, node)| attached(node)).map(|(name, _)| name.clone()).collect()
    }

    /// Nodes whose stored readiness is not what it should be.
    pub fn unsettled(&self, now: Instant, grace: Duration) -> Vec<String> {
        self.nodes
            .iter()
            .filter(|(_, node)| node.verdict(now, grace) != Verdict::Keep)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Cuts sessions whose Node was deleted while they registered: nothing else would tell them to do it again.
    pub fn cut_homeless(&self, now: Instant, grace: Duration) {
        for node in self.nodes.values().filter(|node| !node.exists) {
            if let Some(session) = &node.session
                && session.attached
                && now.duration_since(session.since) > grace
            {
                session.cut.cancel();
            }
        }
    }

    /// What should become of a node's readiness.
    pub fn verdict(&self, name: &str, now: Instant, grace: Duration) -> Verdict {
        self.nodes.get(name).map_or(Verdict::Keep, |node| node.verdict(now, grace))
    }

    fn session_mut(&mut self, name: &str, epoch: u64) -> Option<&mut Session> {
        self.nodes.get_mut(name)?.session.as_mut().filter(|session| session.epoch == epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(40);

    fn outgoing() -> Outgoing {
        mpsc::channel(1).0
    }

    fn node(ready: &str) -> Vec<u8> {
        serde_json::json!({
            "metadata": { "name": "a" },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn a_node_of_an_earlier_run_gets_a_grace_period_to_come_back() {
        let mut roster = Roster::default();
        let start = Instant::now();
        roster.node_stored(&node("True"), start);
        assert!(roster.unsettled(start + GRACE, GRACE).is_empty());
        let late = start + GRACE + Duration::from_secs(1);
        assert_eq!(roster.unsettled(late, GRACE), ["a"]);
        assert_eq!(roster.verdict("a", late, GRACE), Verdict::Silent);
        roster.node_stored(&node("Unknown"), late);
        assert!(roster.unsettled(late, GRACE).is_empty());
    }

    #[test]
    fn an_agent_that_speaks_again_brings_its_node_back() {
        let mut roster = Roster::default();
        let start = Instant::now();
        let claim = roster.claim("a", "one", outgoing(), start, GRACE).unwrap();
        assert!(roster.attach("a", claim.epoch));
        roster.node_stored(&node("True"), start);
        let late = start + 2 * GRACE;
        assert_eq!(roster.verdict("a", late, GRACE), Verdict::Silent);
        roster.node_stored(&node("Unknown"), late);
        roster.heard("a", claim.epoch, late);
        assert_eq!(roster.verdict("a", late, GRACE), Verdict::Back(None));
    }

    #[test]
    fn a_live_session_keeps_its_node_against_another_process() {
        let mut roster = Roster::default();
        let start = Instant::now();
        let first = roster.claim("a", "one", outgoing(), start, GRACE).unwrap();
        let error = roster.claim("a", "two", outgoing(), start, GRACE).err().unwrap();
        assert_eq!(error.reason, Reason::Conflict);
        assert!(!first.cut.is_cancelled());
    }

    #[test]
    fn the_same_process_and_the_heir_of_a_silent_one_take_over() {
        let mut roster = Roster::default();
        let start = Instant::now();
        let first = roster.claim("a", "one", outgoing(), start, GRACE).unwrap();
        let second = roster.claim("a", "one", outgoing(), start, GRACE).unwrap();
        assert!(first.cut.is_cancelled());
        let third = roster.claim("a", "two", outgoing(), start + 2 * GRACE, GRACE).unwrap();
        assert!(second.cut.is_cancelled());
        // What the first ones still do changes nothing.
        roster.release("a", first.epoch);
        assert!(!roster.attach("a", second.epoch));
        assert!(roster.attach("a", third.epoch));
    }

    #[test]
    fn a_session_that_does_not_read_is_cut() {
        let mut roster = Roster::default();
        let (sender, _receiver) = mpsc::channel(1);
        let claim = roster.claim("a", "one", sender, Instant::now(), GRACE).unwrap();
        roster.deliver("a", ServerMessage::default());
        roster.attach("a", claim.epoch);
        roster.deliver("a", ServerMessage::default());
        assert!(!claim.cut.is_cancelled());
        roster.deliver("a", ServerMessage::default());
        assert!(claim.cut.is_cancelled());
    }

    #[test]
    fn a_session_whose_node_was_deleted_while_it_began_is_cut_later() {
        let mut roster = Roster::default();
        let now = Instant::now();
        let claim = roster.claim("a", "one", outgoing(), now, GRACE).unwrap();
        roster.node_stored(&node("True"), now);
        roster.node_deleted("a");
        roster.attach("a", claim.epoch);
        roster.cut_homeless(now + GRACE, GRACE);
        assert!(!claim.cut.is_cancelled());
        roster.cut_homeless(now + 2 * GRACE, GRACE);
        assert!(claim.cut.is_cancelled());
    }

    #[test]
    fn deleting_a_node_makes_its_agent_register_again() {
        let mut roster = Roster::default();
        let now = Instant::now();
        let claim = roster.claim("a", "one", outgoing(), now, GRACE).unwrap();
        roster.attach("a", claim.epoch);
        roster.node_stored(&node("True"), now);
        roster.node_deleted("a");
        assert!(claim.cut.is_cancelled());
        roster.release("a", claim.epoch);
        assert!(roster.nodes.is_empty());
    }
}
