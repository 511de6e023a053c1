//! The administrator's kubeconfig, with certificates and key embedded.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{ADMIN_USER, leaf::Leaf};

/// Name of the context in the file.
pub const CONTEXT: &str = "clawbernetes";

pub(super) fn render(server_url: &str, authority: &str, admin: &Leaf) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": CONTEXT,
            "cluster": {
                "server": server_url,
                "certificate-authority-data": STANDARD.encode(authority),
            },
        }],
        "users": [{
            "name": ADMIN_USER,
            "user": {
                "client-certificate-data": STANDARD.encode(&admin.certificate),
                "client-key-data": STANDARD.encode(&admin.key),
            },
        }],
        "contexts": [{
            "name": CONTEXT,
            "context": { "cluster": CONTEXT, "user": ADMIN_USER, "namespace": "default" },
        }],
        "current-context": CONTEXT,
    });
    serde_yaml::to_string(&config).expect("a tree of strings has a YAML form")
}
