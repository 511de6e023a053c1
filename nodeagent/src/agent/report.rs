//! What of a pod's status is worth telling the server, and when. Pure: time comes in as an argument.
//!
//! Must never know: how a status comes about, or how it travels.

use std::time::Duration;

use k8s_openapi::api::core::v1::PodStatus;
use tokio::time::Instant;

/// How long a status waits that says no more than that the pod is on its way: what comes next mostly comes sooner, and
/// takes its place. So a quick start is one write instead of three. Ten starts of a container, because hundreds of pods
/// come at once, and then the processors are what each start waits for: that is no time to tell of waiting.
pub const UNDER_WAY_DELAY: Duration = Duration::from_millis(500);

/// When a status is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The server has it, or will have it.
    Never,
    /// It is to be told.
    Now,
    /// It may wait until then, in case something follows.
    At(Instant),
}

/// Remembers whether the present status has been told.
#[derive(Debug, Default)]
pub struct Pace {
    /// Since when something waits to be told.
    untold_since: Option<Instant>,
    /// The present status has been told, or waits to be.
    told: bool,
}

impl Pace {
    /// Whether everything has been told.
    pub fn is_level(&self) -> bool {
        self.told && self.untold_since.is_none()
    }

    /// The server lacks what it was told.
    pub fn tell_again(&mut self) {
        self.told = false;
    }

    /// What to do about the present status; `changed` says whether it differs from the one before. `Now` counts as done.
    pub fn when(&mut self, status: &PodStatus, changed: bool, now: Instant) -> When {
        if changed || !self.told {
            self.told = true;
            self.untold_since.get_or_insert(now);
        }
        let Some(since) = self.untold_since else { return When::Never };
        let due = since + UNDER_WAY_DELAY;
        if now < due && is_under_way(status) {
            return When::At(due);
        }
        self.untold_since = None;
        When::Now
    }
}

/// Whether a status says only that a pod is being started, and nothing of trouble with it.
fn is_under_way(status: &PodStatus) -> bool {
    let mut containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    status.phase.as_deref() == Some("Pending")
        && status.message.is_none()
        && containers.all(|container| {
            let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
            let is_usual = waiting.is_some_and(|waiting| {
                matches!(waiting.reason.as_deref(), Some("ContainerCreating" | "PodInitializing"))
                    && waiting.message.is_none()
            });
            is_usual && container.last_state.is_none()
        })
}

/// Whether the server's idea of a pod lacks something this agent said.
pub fn differs(on_server: &PodStatus, ours: &PodStatus) -> bool {
    let same_conditions = ours.conditions.iter().flatten().all(|condition| {
        on_server
            .conditions
            .iter()
            .flatten()
            .any(|known| known.type_ == condition.type_ && known.status == condition.status)
    });
    on_server.phase != ours.phase
        || on_server.pod_ip != ours.pod_ip
        || on_server.container_statuses != ours.container_statuses
        || on_server.init_container_statuses != ours.init_container_statuses
        || on_server.ephemeral_container_statuses != ours.ephemeral_container_statuses
        || !same_conditions
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(phase: &str, state: Value) -> PodStatus {
        let container = json!({
            "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state,
        });
        serde_json::from_value(json!({"phase": phase, "containerStatuses": [container]})).unwrap()
    }

    fn creating() -> PodStatus {
        status("Pending", json!({"waiting": {"reason": "ContainerCreating"}}))
    }

    #[test]
    fn what_says_only_that_a_pod_is_on_its_way_waits_for_what_follows() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let due = start + UNDER_WAY_DELAY;
        assert_eq!(pace.when(&creating(), true, start), When::At(due));
        let soon = start + UNDER_WAY_DELAY / 2;
        assert_eq!(
            pace.when(&creating(), true, soon),
            When::At(due),
            "a change does not make it wait longer"
        );
        assert!(!pace.is_level());
        let running = status("Running", json!({"running": {}}));
        assert_eq!(pace.when(&running, true, soon), When::Now);
        assert_eq!(pace.when(&running, false, due), When::Never);
        assert!(pace.is_level());
    }

    #[test]
    fn a_start_that_takes_its_time_is_told_of() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        pace.when(&creating(), true, start);
        assert_eq!(pace.when(&creating(), false, start + UNDER_WAY_DELAY), When::Now);
        assert_eq!(pace.when(&creating(), false, start + 2 * UNDER_WAY_DELAY), When::Never);
    }

    #[test]
    fn trouble_and_news_of_containers_never_wait() {
        let mut failing = creating();
        failing.message = Some("no room for the volume".to_owned());
        let mut restarting = creating();
        restarting.container_statuses.as_mut().unwrap()[0].last_state = Some(Default::default());
        for urgent in [
            failing,
            restarting,
            status("Pending", json!({"waiting": {"reason": "ErrImagePull", "message": "m"}})),
            status("Pending", json!({"terminated": {"exitCode": 0}})),
            status("Pending", json!({"running": {}})),
            status("Running", json!({"waiting": {"reason": "ContainerCreating"}})),
            status("Failed", json!({"waiting": {"reason": "ContainerCreating"}})),
        ] {
            assert_eq!(Pace::default().when(&urgent, true, Instant::now()), When::Now, "{urgent:?}");
        }
    }

    #[test]
    fn the_first_status_is_told_even_if_nothing_changed_and_any_is_told_again_on_demand() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let running = status("Running", json!({"running": {}}));
        assert_eq!(pace.when(&running, false, now), When::Now);
        assert_eq!(pace.when(&running, false, now), When::Never);
        pace.tell_again();
        assert_eq!(pace.when(&running, false, now), When::Now);
    }
}
