//! What the controllers of this process do, in the words in which the server tells its own figures. The names are those
//! of the work queues of Kubernetes.

use claw_apiserver::metrics::Text;
use claw_runtime::{Figures, figures::Seen};

/// Name, type and help of a family of one number a controller, and where the number is.
type Family = (&'static str, &'static str, &'static str, fn(&Seen) -> u64);

const FAMILIES: [Family; 3] = [
    ("workqueue_depth", "gauge", "Keys that wait for a run.", |seen| seen.depth),
    ("workqueue_adds_total", "counter", "Keys that were added.", |seen| seen.adds),
    ("workqueue_retries_total", "counter", "Runs that failed and are repeated.", |seen| seen.retries),
];

/// Adds them.
pub fn write(figures: &Figures, text: &mut Text) {
    let seen = figures.seen();
    for (name, kind, help, number) in FAMILIES {
        text.family(name, kind, help);
        for (controller, seen) in &seen {
            text.sample(name, &[("name", controller)], number(seen));
        }
    }
    let name = "workqueue_work_duration_seconds";
    text.family(name, "summary", "How long runs took.");
    for (controller, seen) in &seen {
        text.sample(&format!("{name}_sum"), &[("name", controller)], seen.took.as_secs_f64());
        text.sample(&format!("{name}_count"), &[("name", controller)], seen.runs);
    }
}
