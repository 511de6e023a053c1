//! What nodes use: asked of their agents when somebody reads it, and kept for a moment, so that many readers are one
//! question.
//!
//! A node that nobody asks about measures nothing and sends nothing.

use std::{collections::HashMap, sync::Arc, time::Duration};

use claw_schemas::proto::Usage;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

/// For how long an answer serves those who ask next: a third of what metrics servers usually measure over.
const FRESH: Duration = Duration::from_secs(5);

/// How long an agent may take. It measures for a second when nobody has asked lately.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The latest answers, by node.
#[derive(Default)]
pub struct Usages {
    nodes: Mutex<HashMap<String, Slot>>,
}

#[derive(Default)]
struct Slot {
    /// When the question was sent that has no answer yet.
    asked: Option<Instant>,
    latest: watch::Sender<Option<Answer>>,
}

struct Answer {
    at: Instant,
    usage: Arc<Usage>,
}

impl Slot {
    fn has_answer(&self, now: Instant) -> bool {
        self.latest.borrow().as_ref().is_some_and(|answer| answer.is_fresh(now))
    }

    fn is_asked(&self, now: Instant) -> bool {
        self.asked.is_some_and(|asked| now.duration_since(asked) < ANSWER_LIMIT)
    }
}

impl Answer {
    fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.at) < FRESH
    }
}

impl Usages {
    /// What a node uses, or `None` when it does not tell. `ask` sends it the question, unless somebody just has.
    pub async fn of(&self, node: &str, ask: impl FnOnce() -> bool) -> Option<Arc<Usage>> {
        let now = Instant::now();
        let mut latest = self.subscribe(node, now, ask)?;
        let answered = latest.wait_for(|answer| answer.as_ref().is_some_and(|answer| answer.is_fresh(now)));
        let answer = timeout(ANSWER_LIMIT, answered).await.ok()?.ok()?;
        answer.as_ref().map(|answer| answer.usage.clone())
    }

    fn subscribe(
        &self,
        node: &str,
        now: Instant,
        ask: impl FnOnce() -> bool,
    ) -> Option<watch::Receiver<Option<Answer>>> {
        let mut nodes = self.nodes.lock();
        let slot = nodes.entry(node.to_owned()).or_default();
        if !slot.has_answer(now) && !slot.is_asked(now) {
            if !ask() {
                nodes.remove(node);
                return None;
            }
            slot.asked = Some(now);
        }
        Some(slot.latest.subscribe())
    }

    /// A node has answered. One that was not asked is not listened to.
    pub fn answered(&self, node: &str, usage: Usage) {
        if let Some(slot) = self.nodes.lock().get_mut(node)
            && slot.asked.take().is_some()
        {
            slot.latest.send_replace(Some(Answer { at: Instant::now(), usage: Arc::new(usage) }));
        }
    }

    /// A node's session is over: who waits for it waits in vain.
    pub fn abandon(&self, node: &str) {
        self.nodes.lock().remove(node);
    }

    /// Drops what nobody is served any more.
    pub fn drop_old(&self, now: Instant) {
        self.nodes.lock().retain(|_, slot| slot.has_answer(now) || slot.is_asked(now));
    }
}

#[cfg(test)]
mod tests {
    use claw_schemas::proto::Figures;
    use futures::{FutureExt as _, future::join};

    use super::*;

    fn using(cpu_nanocores: u64) -> Usage {
        let machine = Some(Figures { cpu_nanocores, ..Figures::default() });
        Usage { machine, ..Usage::default() }
    }

    fn cpu(usage: Option<Arc<Usage>>) -> Option<u64> {
        usage.and_then(|usage| usage.machine).map(|machine| machine.cpu_nanocores)
    }

    #[tokio::test(start_paused = true)]
    async fn readers_at_one_time_are_one_question_and_those_soon_after_none() {
        let usages = Usages::default();
        let mut both = Box::pin(join(usages.of("a", || true), usages.of("a", || panic!("asked twice"))));
        assert!(both.as_mut().now_or_never().is_none());
        usages.answered("a", using(7));
        let (first, second) = both.await;
        assert_eq!((cpu(first), cpu(second)), (Some(7), Some(7)));

        tokio::time::advance(FRESH / 2).await;
        assert_eq!(cpu(usages.of("a", || panic!("asked too soon")).await), Some(7));
        tokio::time::advance(FRESH).await;
        let mut later = Box::pin(usages.of("a", || true));
        assert!(later.as_mut().now_or_never().is_none());
        usages.answered("a", using(8));
        assert_eq!(cpu(later.await), Some(8));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_away_or_silent_or_leaves_has_no_figures() {
        let usages = Usages::default();
        assert_eq!(cpu(usages.of("away", || false).await), None);
        assert_eq!(cpu(usages.of("silent", || true).await), None);
        // It is asked again by the next reader, not waited for in vain.
        let mut leaving = Box::pin(usages.of("silent", || true));
        assert!(leaving.as_mut().now_or_never().is_none());
        usages.abandon("silent");
        assert_eq!(cpu(leaving.now_or_never().expect("nobody is waited for")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_that_nobody_asks_for() {
        let usages = Usages::default();
        usages.answered("a", using(1));
        let mut asked = Box::pin(usages.of("a", || true));
        assert!(asked.as_mut().now_or_never().is_none());
        usages.answered("a", using(2));
        assert_eq!(cpu(asked.await), Some(2));
        usages.drop_old(Instant::now());
        assert_eq!(usages.nodes.lock().len(), 1);
        usages.drop_old(Instant::now() + FRESH);
        assert!(usages.nodes.lock().is_empty());
    }
}
