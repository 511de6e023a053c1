//! The scheduler's decisions, without any I/O: pods and nodes in, bindings and verdicts out.
//!
//! Cluster changes are applied as levels. A decision is assumed at once, so that the next one sees it; a
//! binding that fails is taken back with [`State::forget`]. Time is counted from when the environment began: setting a clock
//! changes nothing.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use claw_runtime::figures::Work;
use indexmap::IndexMap;
use k8s_openapi::api::core::v1::{Node, Pod};

use super::{
    devices::{
        Asked, ClaimKey, Devices, Gift, Touched,
        writes::{Grant, Release},
    },
    filter::{Obstacle, explain, fits},
    model::{NodeInfo, PodInfo, PodKey, key_of},
    score::score,
};

/// How many nodes that fit are scored before the best is taken. Past a hundred, a better one is rarely found and
/// each costs the same again; the search starts where the last one ended, so all nodes get their turn.
const ENOUGH_CANDIDATES: usize = 100;

/// First and longest wait before a pod that fits nowhere is tried again after the cluster changed.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What to do about one pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Grant it its claims and bind it. `gpus` are those that it asks for by number, if they are chosen here.
    Bind { pod: PodKey, uid: String, node: Arc<str>, gpus: Vec<String>, grants: Vec<Grant> },
    /// Take back what an earlier attempt allocated to its claims: where that is, it cannot go.
    Release { pod: PodKey, uid: String, claims: Vec<Release> },
    /// Say why it waits.
    Wait { pod: PodKey, uid: String, reason: String, verdict: Verdict },
}

/// How a reason to wait relates to what the pod's condition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The pod has none yet.
    First,
    /// It says something else.
    Changed,
    /// It says this already.
    Same,
}

/// Order of the queue: priority first, then age, then name.
type Rank = (Reverse<i32>, i64, PodKey);

#[derive(Clone, Debug)]
struct Waiting {
    attempts: u32,
    not_before: Duration,
    /// Whether something changed since its last attempt that may let it in.
    stirred: bool,
}

/// All that the scheduler knows.
#[derive(Default)]
pub struct State {
    /// In an order that changes with the set alone, so that a search can go on where the last one ended.
    nodes: IndexMap<Arc<str>, NodeInfo>,
    pods: HashMap<PodKey, PodInfo>,
    devices: Devices,
    /// Bindings decided but not yet seen in the cluster.
    assumed: HashMap<PodKey, Arc<str>>,
    /// With the time since which each waits for its turn.
    queue: BTreeMap<Rank, Duration>,
    /// Pods that were tried in vain. While one is tried again it is in `queue` too.
    waiting: HashMap<PodKey, Waiting>,
    /// Those of `waiting` that something changed for, by when they may be tried.
    due: BTreeSet<(Duration, PodKey)>,
    /// Those of `waiting` that nothing changed for.
    calm: HashSet<PodKey>,
    /// Where the next search starts.
    cursor: usize,
    figures: Arc<Work>,
}

impl State {
    /// Knows nothing yet; counts how the queue gets on.
    pub fn counted(figures: Arc<Work>) -> Self {
        Self { figures, ..Self::default() }
    }

    /// A node appeared or changed.
    pub fn apply_node(&mut self, node: &Node) {
        let mut info = NodeInfo::new(node);
        let name = info.name.clone();
        if let Some(known) = self.nodes.get(&name) {
            info.keep_taken(known);
            self.nodes.insert(name, info);
        } else {
            for pod in self.pods.values().filter(|pod| self.place_of(pod) == Some(&name)) {
                info.take(pod);
            }
            self.nodes.insert(Arc::clone(&name), info);
            self.recount([name].into());
        }
        let touched = self.devices.apply_node(node);
        self.recount(touched);
        self.stir();
    }

    /// Devices, or claims on them, changed: the change tells of which nodes.
    pub fn apply_devices(&mut self, change: impl FnOnce(&mut Devices) -> Touched) {
        let touched = change(&mut self.devices);
        self.recount(touched);
        self.stir();
    }

    fn recount(&mut self, touched: Touched) {
        for name in touched {
            if let Some(node) = self.nodes.get_mut(&name) {
                node.set_claimed(self.devices.claimed(&name));
                node.set_withheld(self.devices.withheld(&name));
            }
        }
    }

    /// A node is gone. Pods bound to it keep their binding until somebody deletes them.
    pub fn remove_node(&mut self, name: &str) {
        self.nodes.shift_remove(name);
        self.devices.remove_node(name);
    }

    /// A pod appeared or changed.
    pub fn apply_pod(&mut self, pod: &Pod, scheduler_name: &str, now: Duration) {
        let key = key_of(pod);
        let Some(mut info) = PodInfo::new(pod, scheduler_name) else {
            self.remove_pod(&key);
            return;
        };
        let same_pod = self.pods.get(&key).is_some_and(|old| old.uid == info.uid);
        let queued_since = self.pods.get(&key).and_then(|old| self.queue.get(&rank(old))).copied();
        // A binding under way stays assumed until the cluster shows it, or it is forgotten.
        let still_assumed = self.assumed.get(&key).filter(|_| same_pod && info.node.is_none()).cloned();
        let old_wait = self.waiting.get(&key).filter(|_| same_pod).cloned();
        let spec_changed = self.pods.get(&key).is_some_and(|old| {
            old.held != info.held
                || old.node_selector != info.node_selector
                || old.required_terms != info.required_terms
                || old.tolerations != info.tolerations
                || old.requests != info.requests
                || old.claims != info.claims
        });
        let names_before = self.pods.get(&key).filter(|_| same_pod).and_then(|old| old.gpu_names.clone());
        self.detach(&key);
        if let Some(node) = still_assumed {
            self.assumed.insert(key.clone(), node.clone());
            info.gpu_names = names_before;
            if let Some(node) = self.nodes.get_mut(&node) {
                node.take(&info);
            }
            self.pods.insert(key, info);
            return;
        }
        if info.gpu_names != names_before {
            // Until it was known, claims were given nothing there.
            self.stir();
        }
        if let Some(node) = &info.node {
            if let Some(node) = self.nodes.get_mut(node) {
                node.take(&info);
            }
        } else {
            match old_wait.filter(|_| !spec_changed) {
                Some(wait) if queued_since.is_none() => self.set_waiting(key.clone(), wait),
                wait => {
                    self.waiting.extend(wait.map(|wait| (key.clone(), wait)));
                    if queued_since.is_none() {
                        self.figures.added();
                    }
                    self.queue.insert(rank(&info), queued_since.unwrap_or(now));
                    self.figures.waiting(self.queue.len());
                }
            }
        }
        self.pods.insert(key, info);
    }

    /// A pod is gone, or finished.
    pub fn remove_pod(&mut self, key: &PodKey) {
        let freed = self.pods.get(key).is_some_and(|pod| self.place_of(pod).is_some());
        self.detach(key);
        self.pods.remove(key);
        if freed {
            self.stir();
        }
    }

    /// The writes of an allocation have ended; see [`Devices::settle`].
    pub fn settle(&mut self, claims: &[(ClaimKey, Option<u64>)]) {
        for (key, revision) in claims {
            self.apply_devices(|devices| devices.settle(key, *revision));
        }
    }

    /// A binding failed: the pod goes back into the queue, behind a backoff.
    pub fn forget(&mut self, key: &PodKey, now: Duration) {
        let Some(node) = self.assumed.remove(key) else { return };
        if let (Some(node), Some(pod)) = (self.nodes.get_mut(&node), self.pods.get_mut(key)) {
            node.give_back(pod);
            pod.gpu_names = None;
        }
        if self.pods.contains_key(key) {
            self.figures.failed();
            self.wait(key, now, true);
        }
    }

    /// Decides about at most `limit` pods that are due.
    pub fn decide(&mut self, now: Duration, limit: usize) -> Vec<Decision> {
        self.wake(now);
        let mut decisions = Vec::new();
        while decisions.len() < limit {
            let Some(((.., key), since)) = self.queue.pop_first() else { break };
            self.figures.began(now.saturating_sub(since));
            if let Some(decision) = self.decide_one(&key, now) {
                decisions.push(decision);
            }
        }
        self.figures.waiting(self.queue.len());
        decisions
    }

    /// When a waiting pod is due next, if any is.
    pub fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    fn decide_one(&mut self, key: &PodKey, now: Duration) -> Option<Decision> {
        let pod = self.pods.get(key)?;
        let reason = match self.choose(pod) {
            Ok((node, gift, cursor)) => {
                self.cursor = cursor;
                return Some(self.assume(key, node, gift));
            }
            Err(reason) => reason,
        };
        let claims = self.devices.releases(pod);
        if !claims.is_empty() {
            let uid = pod.uid.clone();
            self.wait(key, now, true);
            return Some(Decision::Release { pod: key.clone(), uid, claims });
        }
        let verdict = match pod.verdict.as_deref() {
            None => Verdict::First,
            Some(known) if known == reason => Verdict::Same,
            Some(_) => Verdict::Changed,
        };
        let uid = pod.uid.clone();
        if let Some(pod) = self.pods.get_mut(key) {
            pod.verdict = Some(reason.clone());
        }
        self.wait(key, now, false);
        Some(Decision::Wait { pod: key.clone(), uid, reason, verdict })
    }

    fn assume(&mut self, key: &PodKey, node: Arc<str>, gift: Gift) -> Decision {
        let mut uid = String::new();
        if let Some(pod) = self.pods.get_mut(key) {
            uid.clone_from(&pod.uid);
            pod.gpu_names = Some(gift.gpus.clone()).filter(|gpus| !gpus.is_empty());
            if let Some(node) = self.nodes.get_mut(&node) {
                node.take(pod);
            }
        }
        let touched = self.devices.assume(&gift);
        self.recount(touched);
        self.assumed.insert(key.clone(), node.clone());
        self.stop_waiting(key);
        Decision::Bind { pod: key.clone(), uid, node, gpus: gift.gpus, grants: gift.grants }
    }

    /// A node, and what the pod gets there; else why it waits.
    fn choose(&self, pod: &PodInfo) -> Result<(Arc<str>, Gift, usize), String> {
        if let Some(reason) = &pod.held {
            return Err(reason.clone());
        }
        let asked = self.devices.asked(pod)?;
        let gift = |node: &NodeInfo| self.devices.gift(pod, &asked, node);
        let found = self.best_node(pod, &asked);
        let gifted = found.and_then(|(name, cursor)| {
            let gift = gift(self.nodes.get(&name)?).ok()?;
            Some((name, gift, cursor))
        });
        gifted
            .ok_or_else(|| explain(pod, self.nodes.values(), &|node| gift(node).err().map(Obstacle::Claims)))
    }

    /// The best of the first candidates from the cursor on, and where the search ended.
    fn best_node(&self, pod: &PodInfo, asked: &Asked) -> Option<(Arc<str>, usize)> {
        let count = self.nodes.len();
        let (mut best, mut candidates, mut looked): (Option<(i64, &Arc<str>)>, usize, usize) = (None, 0, 0);
        let is_sure = |node: &NodeInfo| {
            pod.claims.is_empty() && !pod.gpus.keys().any(|resource| node.withholds(resource))
        };
        let has_gift = |node: &NodeInfo| is_sure(node) || self.devices.gift(pod, asked, node).is_ok();
        while looked < count && candidates < ENOUGH_CANDIDATES {
            let (name, node) = self.nodes.get_index((self.cursor + looked) % count)?;
            looked += 1;
            if !fits(pod, node) || !has_gift(node) {
                continue;
            }
            candidates += 1;
            let points = score(pod, node);
            if best.is_none_or(|(most, _)| points > most) {
                best = Some((points, name));
            }
        }
        best.map(|(_, name)| (name.clone(), (self.cursor + looked) % count))
    }

    fn place_of<'a>(&'a self, pod: &'a PodInfo) -> Option<&'a Arc<str>> {
        pod.node.as_ref().or_else(|| self.assumed.get(&pod.key))
    }

    /// Takes a pod out of every structure but `pods`.
    fn detach(&mut self, key: &PodKey) {
        let Some(pod) = self.pods.get(key) else { return };
        let place = self.place_of(pod).cloned();
        if let Some(node) = place.and_then(|name| self.nodes.get_mut(&name)) {
            node.give_back(pod);
        }
        self.queue.remove(&rank(pod));
        self.stop_waiting(key);
        self.assumed.remove(key);
    }

    fn wait(&mut self, key: &PodKey, now: Duration, stirred: bool) {
        let attempts = self.waiting.get(key).map_or(0, |wait| wait.attempts) + 1;
        let backoff = BACKOFF_MIN.saturating_mul(1 << attempts.min(4)).min(BACKOFF_MAX);
        self.set_waiting(key.clone(), Waiting { attempts, not_before: now + backoff, stirred });
    }

    fn set_waiting(&mut self, key: PodKey, wait: Waiting) {
        self.stop_waiting(&key);
        if wait.stirred {
            self.due.insert((wait.not_before, key.clone()));
        } else {
            self.calm.insert(key.clone());
        }
        self.waiting.insert(key, wait);
    }

    fn stop_waiting(&mut self, key: &PodKey) {
        if let Some(wait) = self.waiting.remove(key) {
            self.due.remove(&(wait.not_before, key.clone()));
            self.calm.remove(key);
        }
    }

    /// Something changed that may let waiting pods in.
    fn stir(&mut self) {
        for key in self.calm.drain() {
            if let Some(wait) = self.waiting.get_mut(&key) {
                wait.stirred = true;
                self.due.insert((wait.not_before, key));
            }
        }
    }

    /// Moves due pods back into the queue. Their attempts stay counted while they are tried.
    fn wake(&mut self, now: Duration) {
        while self.due.first().is_some_and(|(due, _)| *due <= now) {
            let Some((_, key)) = self.due.pop_first() else { return };
            if let Some(wait) = self.waiting.get_mut(&key) {
                wait.stirred = false;
            }
            if let Some(pod) = self.pods.get(&key)
                && self.queue.insert(rank(pod), now).is_none()
            {
                self.figures.added();
            }
        }
    }
}

fn rank(pod: &PodInfo) -> Rank {
    (Reverse(pod.priority), pod.created, pod.key.clone())
}
