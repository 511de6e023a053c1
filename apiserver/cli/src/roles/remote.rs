//! The server that a kubeconfig names, for roles that are its clients.

use std::{env, sync::Arc};

use claw_client::{
    Client, HttpTransport,
    kubeconfig::{Kubeconfig, Selected},
};

use crate::verbs::Global;

/// By the same rules as for the verbs: `--kubeconfig`, `$KUBECONFIG`, `~/.kube/config`.
pub fn select(global: &Global) -> anyhow::Result<Selected> {
    let paths = match &global.kubeconfig {
        Some(path) => vec![path.clone()],
        None => Kubeconfig::search_paths(env::var_os("KUBECONFIG").as_deref(), env::home_dir().as_deref()),
    };
    Ok(Kubeconfig::load(&paths)?.select(global.context.as_deref())?)
}

/// A client of it; `name` is the field manager.
pub fn client(selected: &Selected, name: &str) -> anyhow::Result<Client> {
    Ok(Client::new(Arc::new(HttpTransport::new(&selected.endpoint)?), name))
}
