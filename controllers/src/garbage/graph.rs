//! Who owns whom, over all kinds: fed by metadata watches, asked by the collector.
//!
//! Objects that are owned by nothing and are not being deleted are not kept: of sixty thousand config maps not one
//! costs anything here. Whether such a one exists, where it is named as an owner, is asked of the server once
//! ([`Graph::begin_check`], [`Graph::end_check`]) and remembered until it is deleted.
//!
//! Must never know: I/O, or what follows from ownership.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Finalizer of an owner that goes after its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an owner whose dependents stay.
pub const ORPHAN: &str = "orphan";

/// Index of a kind in the collector's list.
pub type KindIndex = usize;

/// An object that is owned or is being deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub kind: KindIndex,
    pub namespace: Option<String>,
    pub name: String,
    pub owners: Vec<OwnerReference>,
    pub deletion: Deletion,
}

/// How far the deletion of an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Nobody asked for it.
    No,
    /// Under way; nothing for the collector to do.
    Plain,
    /// Its dependents go first.
    Foreground,
    /// Its dependents are set free first.
    Orphan,
}

impl Deletion {
    /// What metadata says.
    pub fn of(meta: &ObjectMeta) -> Self {
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|name| name == finalizer);
        match meta.deletion_timestamp {
            None => Self::No,
            // Orphaning comes first: what it sets free must not be deleted.
            Some(_) if has(ORPHAN) => Self::Orphan,
            Some(_) if has(FOREGROUND) => Self::Foreground,
            Some(_) => Self::Plain,
        }
    }
}

impl Node {
    /// From the metadata of an object.
    pub fn of(kind: KindIndex, meta: &ObjectMeta) -> Self {
        Self {
            kind,
            namespace: meta.namespace.clone(),
            name: meta.name.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deletion: Deletion::of(meta),
        }
    }

    fn is_plain(&self) -> bool {
        self.owners.is_empty() && self.deletion == Deletion::No
    }

    /// Whether it holds the foreground deletion of that owner up.
    pub fn blocks(&self, owner: &str) -> bool {
        self.owners.iter().any(|o| o.uid == owner && o.block_owner_deletion == Some(true))
    }
}

/// What is known of an owner outside the graph.
#[derive(Clone, Copy, Debug)]
struct Check {
    /// Tells answers to this question from answers to one before a deletion.
    ticket: u64,
    /// The server said that it exists.
    passed: bool,
}

/// What is owned or being deleted, by uid.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: BTreeMap<String, Node>,
    /// Owners that are not in `nodes`.
    checks: BTreeMap<String, Check>,
    tickets: u64,
    /// Owner → dependents.
    dependents: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Takes an object in. Returns the uids to look at because of it.
    pub fn apply(&mut self, uid: &str, node: Node) -> Vec<String> {
        let mut look = self.unlink(uid);
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.to_owned());
            look.push(owner.uid.clone());
        }
        if !node.is_plain() {
            self.nodes.insert(uid.to_owned(), node);
        }
        // Of the owners, only one that is being deleted has anything to reconsider.
        look.retain(|owner| self.deletion(owner) != Deletion::No);
        if self.nodes.contains_key(uid) {
            look.push(uid.to_owned());
        }
        look
    }

    /// Takes an object out. Returns the uids to look at because of it.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        self.checks.remove(uid);
        let mut look = self.unlink(uid);
        look.retain(|owner| self.deletion(owner) != Deletion::No);
        look.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        look
    }

    /// Takes all objects of a kind out, which nobody follows any more: what became of them, and of those that are not kept
    /// here, is to be asked. Returns the uids to look at because of it.
    pub fn remove_kind(&mut self, kind: KindIndex) -> Vec<String> {
        let of_kind = self.nodes.iter().filter(|(_, node)| node.kind == kind);
        let uids: Vec<String> = of_kind.map(|(uid, _)| uid.clone()).collect();
        let mut look: BTreeSet<String> = uids.iter().flat_map(|uid| self.remove(uid)).collect();
        look.extend(self.doubt());
        // Of those that were to be looked at, some may have gone after that.
        look.retain(|uid| self.nodes.contains_key(uid));
        look.into_iter().collect()
    }

    /// Forgets an object and its links to its owners, which it returns.
    fn unlink(&mut self, uid: &str) -> Vec<String> {
        let owners = self.nodes.remove(uid).map(|node| node.owners).unwrap_or_default();
        for owner in &owners {
            if let Some(siblings) = self.dependents.get_mut(&owner.uid) {
                siblings.remove(uid);
                if siblings.is_empty() {
                    self.dependents.remove(&owner.uid);
                    self.checks.remove(&owner.uid);
                }
            }
        }
        owners.into_iter().map(|owner| owner.uid).collect()
    }

    /// The object, if it is owned or is being deleted.
    pub fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Whether it is known that the object is there.
    pub fn contains(&self, uid: &str) -> bool {
        self.nodes.contains_key(uid) || self.checks.get(uid).is_some_and(|check| check.passed)
    }

    /// The server is about to be asked whether an owner exists. The ticket goes with the answer.
    pub fn begin_check(&mut self, uid: &str) -> u64 {
        self.tickets += 1;
        let new = Check { ticket: self.tickets, passed: false };
        self.checks.entry(uid.to_owned()).or_insert(new).ticket
    }

    /// The server answered. A yes counts only if no deletion was seen since it was asked; one that comes later finds
    /// the check, and leads to the dependents.
    pub fn end_check(&mut self, uid: &str, ticket: u64, exists: bool) {
        let Some(check) = self.checks.get_mut(uid).filter(|check| check.ticket == ticket) else { return };
        check.passed = exists;
        if !exists {
            self.checks.remove(uid);
        }
    }

    /// Deletions may have been missed: what was known of owners counts no longer. Returns the uids to look at.
    pub fn doubt(&mut self) -> Vec<String> {
        self.checks.clear();
        let owned = self.nodes.iter().filter(|(_, node)| !node.owners.is_empty());
        owned.map(|(uid, _)| uid.clone()).collect()
    }

    /// How far the deletion of an object is.
    pub fn deletion(&self, uid: &str) -> Deletion {
        self.nodes.get(uid).map_or(Deletion::No, |node| node.deletion)
    }

    /// What refers to an object as its owner, with uids.
    pub fn dependents(&self, uid: &str) -> Vec<(String, Node)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| Some((uid.clone(), self.nodes.get(uid)?.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(owners: &[&str], deletion: Deletion) -> Node {
        let owners = owners
            .iter()
            .map(|uid| OwnerReference { uid: (*uid).to_owned(), ..Default::default() })
            .collect();
        Node { kind: 0, namespace: None, name: String::new(), owners, deletion }
    }

    #[test]
    fn the_loss_of_an_owner_leads_to_its_dependents() {
        let mut graph = Graph::default();
        assert!(graph.apply("owner", node(&[], Deletion::No)).is_empty(), "a plain object is no case");
        assert_eq!(graph.apply("a", node(&["owner"], Deletion::No)), ["a"]);
        assert_eq!(graph.apply("b", node(&["owner", "other"], Deletion::No)), ["b"]);
        assert_eq!(graph.remove("owner"), ["a", "b"]);
        assert_eq!(graph.dependents("owner").len(), 2, "the references are still there");
    }

    #[test]
    fn an_owner_that_waits_is_looked_at_when_a_dependent_goes_or_lets_go() {
        let mut graph = Graph::default();
        graph.apply("a", node(&["owner"], Deletion::No));
        assert_eq!(graph.apply("owner", node(&[], Deletion::Foreground)), ["owner"]);
        assert_eq!(graph.apply("a", node(&[], Deletion::No)), ["owner"], "it let go");
        graph.apply("b", node(&["owner"], Deletion::No));
        assert_eq!(graph.remove("b"), ["owner"]);
        assert!(graph.dependents("owner").is_empty());
    }

    #[test]
    fn a_check_counts_until_the_owner_is_deleted_even_if_that_is_seen_before_the_answer() {
        let mut graph = Graph::default();
        graph.apply("a", node(&["owner"], Deletion::No));
        let ticket = graph.begin_check("owner");
        assert!(!graph.contains("owner"));
        graph.end_check("owner", ticket, true);
        assert!(graph.contains("owner"));
        assert_eq!(graph.remove("owner"), ["a"]);
        assert!(!graph.contains("owner"));
        let before = graph.begin_check("owner");
        graph.remove("owner");
        let after = graph.begin_check("owner");
        graph.end_check("owner", before, true);
        assert!(!graph.contains("owner"), "the answer is older than the deletion");
        graph.end_check("owner", after, false);
        assert!(!graph.contains("owner"));
    }

    #[test]
    fn the_objects_of_a_kind_that_goes_are_forgotten_and_their_dependents_looked_at() {
        let mut graph = Graph::default();
        let of_kind = |kind, node: Node| Node { kind, ..node };
        graph.apply("root", of_kind(1, node(&[], Deletion::Foreground)));
        graph.apply("a", of_kind(1, node(&["root"], Deletion::No)));
        graph.apply("b", of_kind(2, node(&["a"], Deletion::No)));
        graph.apply("c", of_kind(1, node(&["b"], Deletion::No)));
        graph.apply("d", of_kind(2, node(&["plain"], Deletion::No)));
        let ticket = graph.begin_check("plain");
        graph.end_check("plain", ticket, true);
        assert_eq!(graph.remove_kind(1), ["b", "d"]);
        assert!(!graph.contains("root") && !graph.contains("a") && !graph.contains("c"));
        assert!(graph.dependents("root").is_empty() && graph.dependents("b").is_empty());
        assert!(!graph.contains("plain"), "it may have been of that kind");
    }

    #[test]
    fn after_a_gap_every_owner_is_doubted() {
        let mut graph = Graph::default();
        graph.apply("a", node(&["owner"], Deletion::No));
        let ticket = graph.begin_check("owner");
        graph.end_check("owner", ticket, true);
        assert_eq!(graph.doubt(), ["a"]);
        assert!(!graph.contains("owner"));
    }

    #[test]
    fn orphaning_goes_before_foreground() {
        let meta = ObjectMeta {
            deletion_timestamp: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                jiff::Timestamp::UNIX_EPOCH,
            )),
            finalizers: Some(vec![FOREGROUND.into(), ORPHAN.into()]),
            ..Default::default()
        };
        assert_eq!(Deletion::of(&meta), Deletion::Orphan);
    }
}
