//! What the controllers of this process do, in the words in which the server tells its own figures. The names are those
//! of the work queues of Kubernetes.

use claw_apiserver::metrics::Text;
use claw_runtime::{
    Figures, Readiness,
    figures::{BOUNDS_NS, Seen, Spread},
};

/// Name, type and help of a family of one number a controller, and where the number is.
type Family = (&'static str, &'static str, &'static str, fn(&Seen) -> u64);

const FAMILIES: [Family; 3] = [
    ("workqueue_depth", "gauge", "Keys that wait for a run.", |seen| seen.depth),
    ("workqueue_adds_total", "counter", "Keys that were added.", |seen| seen.adds),
    ("workqueue_retries_total", "counter", "Runs that failed and are repeated.", |seen| seen.retries),
];

/// Name and help of a family of durations, and where they are.
type Durations = (&'static str, &'static str, fn(&Seen) -> &Spread);

const DURATIONS: [Durations; 2] = [
    ("workqueue_queue_duration_seconds", "How long keys waited for a run.", |seen| &seen.waited),
    ("workqueue_work_duration_seconds", "How long runs took.", |seen| &seen.took),
];

/// Adds them.
pub fn write(figures: &Figures, readiness: &Readiness, text: &mut Text) {
    let seen = figures.seen();
    for (name, kind, help, number) in FAMILIES {
        text.family(name, kind, help);
        for (controller, seen) in &seen {
            text.sample(name, &[("name", controller)], number(seen));
        }
    }
    for (name, help, durations) in DURATIONS {
        text.family(name, "histogram", help);
        for (controller, seen) in &seen {
            let Spread { below, count, sum } = durations(seen);
            let buckets = BOUNDS_NS.iter().zip(below).map(|(bound, below)| (*bound as f64 / 1e9, *below));
            text.buckets(name, &[("name", controller)], buckets, *count, sum.as_secs_f64());
        }
    }
    let name = "clawbernetes_controller_waiting";
    text.family(name, "gauge", "1 for each kind that a controller waits for before it begins.");
    for waiting in readiness.waiting() {
        text.sample(name, &[("name", waiting.controller), ("kind", &waiting.kind)], 1);
    }
}
