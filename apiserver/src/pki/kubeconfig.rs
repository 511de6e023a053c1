//! The administrator's kubeconfig, with certificates and key embedded.

use claw_client::{ClientCertificate, Kubeconfig, kubeconfig::Single};

use super::{ADMIN_USER, leaf::Leaf};

/// Name of the context in the file.
pub const CONTEXT: &str = "clawbernetes";

pub(super) fn render(server_url: &str, authority: &str, admin: &Leaf) -> String {
    let certificate =
        ClientCertificate { chain_pem: admin.certificate.clone().into(), key_pem: admin.key.clone().into() };
    let single = Single {
        name: CONTEXT,
        server: server_url,
        ca_pem: authority,
        user: ADMIN_USER,
        certificate: &certificate,
    };
    Kubeconfig::single(&single).to_yaml()
}
