//! The API server as a service of its own cluster: `kubernetes` in `default`, by which pods find it.
//!
//! Must never know: how packets find their way.

use std::net::SocketAddr;

use claw_client::{ResourceRef, request::WriteOptions};
use claw_schemas::ApiError;
use serde_json::{Value, json};

use super::{
    ObjectService,
    addresses::SERVER_ADDRESS,
    owners::Claims,
    sealed::Sealed,
    update::{Part, Proposal},
};

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
/// The port of the service, and its name. Kubernetes' own.
const PORT: u16 = 443;
const PORT_NAME: &str = "https";

impl ObjectService {
    /// Makes the service where it is missing, and its endpoint what it is. A server that only this machine reaches has no
    /// endpoint to tell (the API takes no loopback addresses); nodes lead pods there all the same.
    ///
    /// # Errors
    /// When the store refuses, or somebody gave the address to another service.
    pub async fn publish_itself(&self, address: Option<SocketAddr>) -> Result<(), ApiError> {
        let metadata = json!({"name": NAME, "labels": {"component": "apiserver", "provider": "kubernetes"}});
        let service = json!({
            "metadata": metadata,
            "spec": {
                "type": "ClusterIP",
                "clusterIP": SERVER_ADDRESS.to_string(),
                "clusterIPs": [SERVER_ADDRESS.to_string()],
                "ports": [{"name": PORT_NAME, "protocol": "TCP", "port": PORT, "targetPort": address.map_or(PORT, |at| at.port())}],
            },
        });
        self.ensure(ResourceRef::collection("", "v1", "services").in_namespace(NAMESPACE), &service).await?;
        let Some(address) = address.filter(|address| address.is_ipv4()) else { return Ok(()) };
        let (ip, port) = (address.ip().to_string(), address.port());
        let slice = json!({
            "metadata": {"name": NAME, "labels": {"kubernetes.io/service-name": NAME}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
            "ports": [{"name": PORT_NAME, "protocol": "TCP", "port": port}],
        });
        let legacy = json!({
            "metadata": {"name": NAME, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": [{"ip": ip}], "ports": [{"name": PORT_NAME, "protocol": "TCP", "port": port}]}],
        });
        let slices = ResourceRef::collection("discovery.k8s.io", "v1", "endpointslices");
        self.make_say(slices.in_namespace(NAMESPACE), &slice, &["endpoints", "ports"]).await?;
        let endpoints = ResourceRef::collection("", "v1", "endpoints");
        self.make_say(endpoints.in_namespace(NAMESPACE), &legacy, &["subsets"]).await
    }

    /// Creates an object, or brings these fields of it up to date.
    async fn make_say(
        &self,
        collection: ResourceRef,
        wanted: &Value,
        fields: &[&str],
    ) -> Result<(), ApiError> {
        if self.ensure(collection.clone(), wanted).await? {
            return Ok(());
        }
        let target = self.kinds.resolve(collection.named(NAME))?;
        let make = |present: &Sealed| {
            let mut object = present.object.clone();
            for field in fields {
                object[*field] = wanted[*field].clone();
            }
            Ok(Proposal { object, claims: Claims::Kept, warnings: Vec::new() })
        };
        self.change(&target, Part::Main, &WriteOptions::default(), make).await.map(drop)
    }
}
