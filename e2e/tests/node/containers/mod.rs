//! What a pod may say of its containers beyond what they run, through the whole product and with real kubectl.

mod debug;
mod hooks;
mod pressure;
mod system_calls;
mod together;

use claw_e2e::{Cluster, Kubectl, wait};

/// Makes pods and waits until they are ready.
fn start(cluster: &Cluster, manifest: &str, pods: &[&str]) -> Kubectl {
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], manifest);
    for pod in pods {
        kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=600s"]);
    }
    kubectl
}

fn get(kubectl: &Kubectl, pod: &str, path: &str) -> String {
    kubectl.ok(&["get", "pod", pod, "-o", &format!("jsonpath={path}")])
}

/// Waits until all that is told of pods has these words in it.
fn until_told(kubectl: &Kubectl, words: &str) {
    wait::until(&format!("an event says {words:?}"), wait::LATER, || {
        let told = kubectl.ok(&[
            "get",
            "events",
            "-o",
            "jsonpath={range .items[*]}{.reason} {.message}{\"\\n\"}{end}",
        ]);
        wait::check(told.contains(words), told)
    });
}
