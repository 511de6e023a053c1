//! The variables by which a pod learns where services are: Kubernetes' own, and those of Docker's links.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Service, ServicePort};

use super::{API_SERVICE, Protocol};

/// What a pod of a namespace is told: where the API server is, and, if it wants links, where the services beside it are. Of two
/// services of one name, that of the namespace counts.
pub fn variables(services: &[Arc<Service>], namespace: &str, wants_links: bool) -> Vec<(String, String)> {
    let mut told = BTreeMap::new();
    for service in services {
        let metadata = &service.metadata;
        let (Some(of), Some(name)) = (metadata.namespace.as_deref(), metadata.name.as_deref()) else {
            continue;
        };
        if wants_links && of == namespace {
            told.insert(name, service);
        } else if (of, name) == API_SERVICE {
            told.entry(name).or_insert(service);
        }
    }
    told.into_iter().flat_map(|(name, service)| of_service(name, service)).collect()
}

/// None of a service without an address of its own.
fn of_service(name: &str, service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let address = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None");
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (Some(address), Some(first)) = (address, ports.first()) else { return Vec::new() };
    let prefix = word(name);
    let mut found = vec![
        (format!("{prefix}_SERVICE_HOST"), address.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
        (format!("{prefix}_PORT"), url(address, first)),
    ];
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            found.push((format!("{prefix}_SERVICE_PORT_{}", word(name)), port.port.to_string()));
        }
        let protocol = protocol(port);
        let prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        found.push((format!("{prefix}_PROTO"), protocol.to_owned()));
        found.push((format!("{prefix}_PORT"), port.port.to_string()));
        found.push((format!("{prefix}_ADDR"), address.to_owned()));
        found.push((prefix, url(address, port)));
    }
    found
}

/// A name as variables have it.
fn word(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

fn protocol(port: &ServicePort) -> &'static str {
    Protocol::from_api(port.protocol.as_deref()).word()
}

fn url(address: &str, port: &ServicePort) -> String {
    let (open, close) = if address.contains(':') { ("[", "]") } else { ("", "") };
    format!("{}://{open}{address}{close}:{}", protocol(port), port.port)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(namespace: &str, name: &str, spec: serde_json::Value) -> Arc<Service> {
        let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn all() -> Vec<Arc<Service>> {
        let https = json!([{"name": "https", "port": 443, "protocol": "TCP"}]);
        vec![
            service("default", "kubernetes", json!({"clusterIP": "10.96.0.1", "ports": https})),
            service("default", "other", json!({"clusterIP": "10.96.0.9", "ports": [{"port": 1}]})),
            service(
                "shop",
                "my-db",
                json!({"clusterIP": "10.96.0.2", "ports": [
                {"name": "sql-in", "port": 5432}, {"name": "gossip", "port": 7946, "protocol": "UDP"}]}),
            ),
            service("shop", "headless", json!({"clusterIP": "None", "ports": [{"port": 80}]})),
            service("shop", "away", json!({"type": "ExternalName", "externalName": "example.com"})),
            service("shop", "six", json!({"clusterIP": "fd00::1", "ports": [{"port": 80}]})),
        ]
    }

    fn lines(namespace: &str, wants_links: bool) -> Vec<String> {
        let found = variables(&all(), namespace, wants_links);
        found.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn every_pod_is_told_where_the_api_server_is() {
        let expected = [
            "KUBERNETES_SERVICE_HOST=10.96.0.1",
            "KUBERNETES_SERVICE_PORT=443",
            "KUBERNETES_PORT=tcp://10.96.0.1:443",
            "KUBERNETES_SERVICE_PORT_HTTPS=443",
            "KUBERNETES_PORT_443_TCP_PROTO=tcp",
            "KUBERNETES_PORT_443_TCP_PORT=443",
            "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1",
            "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
        ];
        for (namespace, wants_links) in [("empty", true), ("shop", false), ("default", false)] {
            assert_eq!(lines(namespace, wants_links), expected, "{namespace}");
        }
    }

    #[test]
    fn a_pod_with_links_is_told_of_the_services_beside_it_that_have_an_address() {
        let told = lines("shop", true);
        for line in [
            "MY_DB_SERVICE_HOST=10.96.0.2",
            "MY_DB_SERVICE_PORT=5432",
            "MY_DB_SERVICE_PORT_SQL_IN=5432",
            "MY_DB_SERVICE_PORT_GOSSIP=7946",
            "MY_DB_PORT=tcp://10.96.0.2:5432",
            "MY_DB_PORT_7946_UDP=udp://10.96.0.2:7946",
            "MY_DB_PORT_7946_UDP_PROTO=udp",
            "SIX_PORT=tcp://[fd00::1]:80",
            "KUBERNETES_SERVICE_HOST=10.96.0.1",
        ] {
            assert!(told.iter().any(|told| told == line), "{line}: {told:#?}");
        }
        let of = |name: &str| told.iter().filter(|line| line.starts_with(name)).count();
        assert_eq!((of("OTHER"), of("HEADLESS"), of("AWAY"), of("MY_DB")), (0, 0, 0, 13));
    }

    #[test]
    fn a_service_beside_the_pod_goes_before_that_of_the_api_server() {
        let mut services = all();
        let own = service("shop", "kubernetes", json!({"clusterIP": "10.96.0.5", "ports": [{"port": 1}]}));
        for at in [0, services.len()] {
            services.insert(at, own.clone());
            let found = variables(&services, "shop", true);
            assert!(found.contains(&("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.5".to_owned())));
            services.remove(at);
        }
    }
}
