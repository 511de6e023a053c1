//! Which pod somebody means, by its own name or by that of something that owns pods, and which container of it.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use claw_schemas::{Descriptor, selector::LabelSelector};
use serde_json::Value;

use super::{
    resources,
    session::{Session, text},
    targets::Selectors,
};

/// The pod that words mean: `POD`, `TYPE/NAME` or `TYPE NAME`.
pub async fn meant(session: &Session, words: &[String]) -> anyhow::Result<Value> {
    let pod = session.kind("v1", "Pod")?;
    let (kind, name) = match words {
        [name] if !name.contains('/') => (Arc::clone(&pod), name.clone()),
        words => resources::one(&session.registry, words)?,
    };
    let object = session.get(&session.object(&kind, &name)).await?;
    if kind.kind == "Pod" { Ok(object) } else { of_owner(session, &kind, &object).await }
}

/// The pod of a workload or a service that is most likely to answer.
pub async fn of_owner(session: &Session, kind: &Descriptor, owner: &Value) -> anyhow::Result<Value> {
    let pod = session.kind("v1", "Pod")?;
    let Some(selector) = owner.pointer("/spec/selector").filter(|selector| selector.is_object()) else {
        bail!("{} have no pods: name a pod, or something that owns pods", kind.plural);
    };
    let selectors = Selectors { selector: selector_text(selector)?, ..Selectors::default() };
    let collection = Session::collection(&pod, Some(&session.namespace));
    let mut pods = session.list(&pod, &collection, &selectors.options()).await?;
    // Running before waiting, ready before not, the oldest first.
    pods.sort_by_key(|pod| {
        (
            text(pod, "/status/phase") != "Running",
            !is_ready(pod),
            text(pod, "/metadata/creationTimestamp").to_owned(),
        )
    });
    let (found, name) = (pods.len(), text(owner, "/metadata/name"));
    let Some(first) = pods.into_iter().next() else {
        bail!("{} \"{name}\" has no pods in namespace {}", kind.singular, session.namespace);
    };
    if found > 1 {
        eprintln!("Found {found} pods, using pod/{}", text(&first, "/metadata/name"));
    }
    Ok(first)
}

/// Services have plain labels where workloads have a selector.
fn selector_text(selector: &Value) -> anyhow::Result<String> {
    let mut selector = selector.clone();
    if selector.as_object().is_some_and(|labels| !labels.is_empty() && labels.values().all(Value::is_string))
    {
        selector = serde_json::json!({ "matchLabels": selector });
    }
    let selector = serde_json::from_value(selector).context("reading spec.selector")?;
    Ok(LabelSelector::from_meta(&selector)?.to_string())
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True")
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let containers = pod.pointer(list).and_then(Value::as_array);
    containers.into_iter().flatten().map(|c| text(c, "/name").to_owned()).collect()
}

/// The names of all containers, in the order in which they start.
pub fn containers(pod: &Value) -> Vec<String> {
    [names(pod, "/spec/initContainers"), names(pod, "/spec/containers")].concat()
}

/// The container that is named, or the one that is meant when none is. `tells`: says which it took, of several.
pub fn container(pod: &Value, named: Option<&str>, tells: bool) -> anyhow::Result<String> {
    let (main, init) = (names(pod, "/spec/containers"), names(pod, "/spec/initContainers"));
    let known = [main.clone(), init.clone()].concat();
    if let Some(name) = named {
        if !known.iter().any(|known| known == name) {
            let pod = text(pod, "/metadata/name");
            bail!("container {name} is not valid for pod {pod}: it has {}", known.join(", "));
        }
        return Ok(name.to_owned());
    }
    let default = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
    let chosen = default.filter(|name| known.iter().any(|known| known == name)).map(str::to_owned);
    let first = chosen.or_else(|| main.first().cloned()).unwrap_or_default();
    if known.len() > 1 && tells {
        let init: Vec<String> = init.iter().map(|name| format!("{name} (init)")).collect();
        eprintln!("Defaulted container \"{first}\" out of: {}", [main, init].concat().join(", "));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_selector_of_a_service_is_that_of_its_labels() {
        assert_eq!(selector_text(&json!({"app": "web", "tier": "x"})).unwrap(), "app=web,tier=x");
        assert_eq!(selector_text(&json!({"matchLabels": {"app": "web"}})).unwrap(), "app=web");
    }
}
