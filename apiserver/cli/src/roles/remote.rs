//! The server that a kubeconfig names, for roles that are its clients.

use std::sync::Arc;

use claw_client::{Client, HttpTransport, kubeconfig::Selected};

/// A client of it; `name` is the field manager.
pub fn client(selected: &Selected, name: &str) -> anyhow::Result<Client> {
    Ok(Client::new(Arc::new(HttpTransport::new(&selected.endpoint)?), name))
}
