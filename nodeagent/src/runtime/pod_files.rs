//! Files that every container of a pod finds under `/etc`: hosts, hostname, resolv.conf.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use k8s_openapi::api::core::v1::Pod;

use super::{environment::hostname, spec::Bind};
use crate::{Error, services::ZONE};

const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Where the machine asks for names.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Names with fewer dots are looked for in the cluster first. Kubernetes' figure: `_port._proto.service.namespace.svc` has
/// four.
const DOTS: &str = "ndots:5";

/// Writes them, once the pod has its address. `resolver` knows the names of the cluster.
pub(super) fn write(
    pod_folder: &Path,
    pod: &Pod,
    ip: IpAddr,
    resolver: Option<Ipv4Addr>,
) -> Result<(), Error> {
    let folder = pod_folder.join("etc");
    fs::create_dir_all(&folder).map_err(Error::io("creating", &folder))?;
    let contents = [hosts(pod, ip), format!("{}\n", hostname(pod)), resolv_conf(pod, resolver)];
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
    match fqdn(pod) {
        Some(fqdn) => text.push_str(&format!("{ip}\t{fqdn}\t{}\n", hostname(pod))),
        None => text.push_str(&format!("{ip}\t{}\n", hostname(pod))),
    }
    for alias in pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten()) {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
    }
    text
}

/// The name that a pod with a subdomain has among the pods of the service of that name.
fn fqdn(pod: &Pod) -> Option<String> {
    let subdomain = pod.spec.as_ref()?.subdomain.as_deref().filter(|name| !name.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    Some(format!("{}.{subdomain}.{namespace}.svc.{ZONE}", hostname(pod)))
}

/// What the policy says, with `dnsConfig` on top of it.
fn resolv_conf(pod: &Pod, resolver: Option<Ipv4Addr>) -> String {
    let spec = pod.spec.as_ref();
    let on_host = spec.and_then(|spec| spec.host_network) == Some(true);
    let mut config = match spec.and_then(|spec| spec.dns_policy.as_deref()) {
        Some("None") => ResolvConf::default(),
        Some("Default") => ResolvConf::of_host(),
        Some("ClusterFirstWithHostNet") => ResolvConf::of_cluster(pod, resolver),
        _ if on_host => ResolvConf::of_host(),
        _ => ResolvConf::of_cluster(pod, resolver),
    };
    if let Some(own) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        config.servers.extend(own.nameservers.iter().flatten().cloned());
        config.searches.extend(own.searches.iter().flatten().cloned());
        let options = own.options.iter().flatten().map(|option| {
            let name = option.name.as_deref().unwrap_or_default();
            option.value.as_ref().map_or_else(|| name.to_owned(), |value| format!("{name}:{value}"))
        });
        for option in options {
            config.set_option(option);
        }
    }
    config.print()
}

#[derive(Default)]
struct ResolvConf {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl ResolvConf {
    fn of_host() -> Self {
        Self::parse(&fs::read_to_string(RESOLV_CONF).unwrap_or_default())
    }

    /// Without a resolver for the cluster, as on a node whose pods are all on its own network, it is the host's.
    fn of_cluster(pod: &Pod, resolver: Option<Ipv4Addr>) -> Self {
        let host = Self::of_host();
        let Some(resolver) = resolver else { return host };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let mut searches = vec![format!("{namespace}.svc.{ZONE}"), format!("svc.{ZONE}"), ZONE.to_owned()];
        searches.extend(host.searches);
        Self { servers: vec![resolver.to_string()], searches, options: vec![DOTS.to_owned()] }
    }

    fn parse(text: &str) -> Self {
        let mut config = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let first = words.next();
            let rest = words.map(str::to_owned);
            match first {
                Some("nameserver") => config.servers.extend(rest.take(1)),
                Some("search") => config.searches = rest.collect(),
                Some("options") => config.options.extend(rest),
                _ => {}
            }
        }
        config
    }

    /// Replaces an option of the same name.
    fn set_option(&mut self, option: String) {
        let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
        self.options.retain(|other| name(other) != name(&option));
        self.options.push(option);
    }

    fn print(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        for (word, values) in [("search", &self.searches), ("options", &self.options)] {
            if !values.is_empty() {
                text.push_str(&format!("{word} {}\n", values.join(" ")));
            }
        }
        text
    }
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
        let resolver = Some(Ipv4Addr::new(10, 88, 0, 1));
        assert_eq!(resolv_conf(&pod, resolver), "nameserver 9.9.9.9\nsearch a b\noptions ndots:2\n");
    }

    #[test]
    fn a_pod_asks_its_node_for_names_of_its_namespace_first() {
        let pod = |spec: serde_json::Value| -> Pod {
            serde_json::from_value(serde_json::json!({"metadata": {"namespace": "shop"}, "spec": spec}))
                .unwrap()
        };
        let resolver = Some(Ipv4Addr::new(10, 88, 0, 1));
        let own = serde_json::json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "1"}, {"name": "rotate"}]}});
        let text = resolv_conf(&pod(own), resolver);
        assert!(
            text.starts_with(
                "nameserver 10.88.0.1\nsearch shop.svc.cluster.local svc.cluster.local cluster.local"
            ),
            "{text}"
        );
        assert!(text.ends_with("options ndots:1 rotate\n"), "{text}");
        let on_host = serde_json::json!({"containers": [], "hostNetwork": true});
        assert!(!resolv_conf(&pod(on_host), resolver).contains("10.88.0.1"));
    }
}
