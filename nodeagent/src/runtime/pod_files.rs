//! Files that every container of a pod finds under `/etc`: hosts, hostname, resolv.conf.

use std::{fs, net::IpAddr, path::Path};

use k8s_openapi::api::core::v1::Pod;

use super::{environment::hostname, spec::Bind};
use crate::Error;

const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Writes them, once the pod has its address.
pub(super) fn write(pod_folder: &Path, pod: &Pod, ip: IpAddr) -> Result<(), Error> {
    let folder = pod_folder.join("etc");
    fs::create_dir_all(&folder).map_err(Error::io("creating", &folder))?;
    let contents = [hosts(pod, ip), format!("{}\n", hostname(pod)), resolv_conf(pod)];
    for (name, content) in FILES.into_iter().zip(contents) {
        let path = folder.join(name);
        fs::write(&path, content).map_err(Error::io("writing", &path))?;
    }
    Ok(())
}

/// The bind mounts that show them to a container. A pod on the host's network sees the host's name.
pub(super) fn binds(pod_folder: &Path, pod: &Pod) -> Vec<Bind> {
    let on_host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    FILES
        .into_iter()
        .filter(|name| !(on_host && *name == "hostname"))
        .map(|name| Bind {
            source: pod_folder.join("etc").join(name),
            target: format!("/etc/{name}"),
            read_only: false,
            propagation: "rprivate",
        })
        .collect()
}

fn hosts(pod: &Pod, ip: IpAddr) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    text.push_str(&format!("{ip}\t{}\n", hostname(pod)));
    for alias in pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten()) {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
    }
    text
}

/// `dnsConfig` over the host's own; there is no cluster DNS yet.
fn resolv_conf(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let none = spec.and_then(|spec| spec.dns_policy.as_deref()) == Some("None");
    let mut text =
        if none { String::new() } else { fs::read_to_string("/etc/resolv.conf").unwrap_or_default() };
    if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        for server in config.nameservers.iter().flatten() {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if let Some(searches) = config.searches.as_ref().filter(|searches| !searches.is_empty()) {
            text.push_str(&format!("search {}\n", searches.join(" ")));
        }
        for option in config.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or("");
            match &option.value {
                Some(value) => text.push_str(&format!("options {name}:{value}\n")),
                None => text.push_str(&format!("options {name}\n")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web"},
            "spec": {"containers": [], "hostAliases": [{"ip": "10.0.0.9", "hostnames": ["db", "db.local"]}]}
        }))
        .unwrap();
        let text = hosts(&pod, [10, 88, 0, 5].into());
        assert!(text.contains("10.88.0.5\tweb\n") && text.contains("10.0.0.9\tdb\tdb.local\n"), "{text}");
    }

    #[test]
    fn a_pod_may_bring_its_own_resolver() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "spec": {"containers": [], "dnsPolicy": "None", "dnsConfig":
                {"nameservers": ["9.9.9.9"], "searches": ["a", "b"], "options": [{"name": "ndots", "value": "2"}]}}
        }))
        .unwrap();
        assert_eq!(resolv_conf(&pod), "nameserver 9.9.9.9\nsearch a b\noptions ndots:2\n");
    }
}
