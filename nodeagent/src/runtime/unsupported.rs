//! What a pod may ask for that this runtime does not do: better refused by name than ignored, most of all where it promises
//! isolation.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, PodSpec};

/// The first field that asks for something that is not there.
pub(super) fn unsupported(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(at, container)| (format!("spec.initContainers[{at}]"), container));
    let main = spec.containers.iter().enumerate();
    let main = main.map(|(at, container)| (format!("spec.containers[{at}]"), container));
    of_pod(spec).map(|field| format!("spec.{field}")).or_else(|| {
        init.chain(main)
            .find_map(|(path, container)| of_container(container).map(|field| format!("{path}.{field}")))
    })
}

fn of_pod(spec: &PodSpec) -> Option<&'static str> {
    let context = spec.security_context.as_ref();
    let asks = [
        (spec.host_users == Some(false), "hostUsers"),
        (spec.runtime_class_name.is_some(), "runtimeClassName"),
        (spec.set_hostname_as_fqdn == Some(true), "setHostnameAsFQDN"),
        (
            context.and_then(|context| context.sysctls.as_ref()).is_some_and(|all| !all.is_empty()),
            "securityContext.sysctls",
        ),
        (
            confines(context.and_then(|context| context.app_armor_profile.as_ref())),
            "securityContext.appArmorProfile",
        ),
    ];
    first(asks)
}

fn of_container(container: &Container) -> Option<&'static str> {
    let context = container.security_context.as_ref();
    let mut mounts = container.volume_mounts.iter().flatten();
    let asks = [
        (
            confines(context.and_then(|context| context.app_armor_profile.as_ref())),
            "securityContext.appArmorProfile",
        ),
        (
            context.and_then(|context| context.proc_mount.as_deref()) == Some("Unmasked"),
            "securityContext.procMount",
        ),
        (
            mounts.any(|mount| mount.recursive_read_only.as_deref() == Some("Enabled")),
            "volumeMounts.recursiveReadOnly",
        ),
    ];
    first(asks)
}

fn confines(profile: Option<&AppArmorProfile>) -> bool {
    profile.is_some_and(|profile| profile.type_ != "Unconfined")
}

fn first<const N: usize>(asks: [(bool, &'static str); N]) -> Option<&'static str> {
    asks.into_iter().find(|(asked, _)| *asked).map(|(_, field)| field)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn field(spec: Value, container: Value) -> Option<String> {
        let mut pod = json!({"spec": spec});
        pod["spec"]["containers"] = json!([container]);
        pod["spec"]["containers"][0]["name"] = json!("main");
        unsupported(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (spec, expected) in [
            (json!({"hostUsers": false}), "spec.hostUsers"),
            (json!({"runtimeClassName": "gvisor"}), "spec.runtimeClassName"),
            (json!({"setHostnameAsFQDN": true}), "spec.setHostnameAsFQDN"),
            (
                json!({"securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]}}),
                "spec.securityContext.sysctls",
            ),
            (
                json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}),
                "spec.securityContext.appArmorProfile",
            ),
        ] {
            assert_eq!(field(spec.clone(), json!({})).as_deref(), Some(expected), "{spec}");
        }
        for (container, expected) in [
            (
                json!({"securityContext": {"procMount": "Unmasked"}}),
                "spec.containers[0].securityContext.procMount",
            ),
            (
                json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "recursiveReadOnly": "Enabled"}]}),
                "spec.containers[0].volumeMounts.recursiveReadOnly",
            ),
        ] {
            assert_eq!(field(json!({}), container.clone()).as_deref(), Some(expected), "{container}");
        }
    }

    #[test]
    fn what_asks_for_nothing_special_is_taken() {
        let spec = json!({
            "hostUsers": true, "setHostnameAsFQDN": false,
            "initContainers": [{"name": "side", "restartPolicy": "Always"}],
            "securityContext": {"sysctls": [], "appArmorProfile": {"type": "Unconfined"}},
        });
        let container = json!({"restartPolicy": "Never", "securityContext": {"procMount": "Default"}});
        assert_eq!(field(spec, container), None);
    }
}
