//! Which server, which user, which namespace.

use std::{env, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use claw_client::{HttpTransport, Kubeconfig, kubeconfig::Selected};
use claw_schemas::Registry;

use super::{discovery::Discovered, session::Session};

/// Options that every verb takes; `main` flattens them into the top-level command.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Global {
    /// File that says how to reach the server (default: $KUBECONFIG, then ~/.kube/config, then the cluster around this container)
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of that file to use instead of its current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace to work in (default: the context's, then "default")
    #[arg(short = 'n', long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
}

impl Global {
    /// The server and user that these options and the environment choose: those of a kubeconfig, or else of the cluster
    /// that this container runs in.
    pub fn select(&self) -> anyhow::Result<Selected> {
        let home = env::var_os("HOME").map(PathBuf::from);
        let config = match &self.kubeconfig {
            Some(path) => Kubeconfig::read(path)?,
            None if self.context.is_none() => {
                return Ok(Selected::find(|name| env::var_os(name), home.as_deref())?);
            }
            None => {
                let list = env::var_os("KUBECONFIG");
                Kubeconfig::load(&Kubeconfig::search_paths(list.as_deref(), home.as_deref()))?
            }
        };
        Ok(config.select(self.context.as_deref())?)
    }
}

/// Where verbs get their client and namespace from.
#[derive(Clone, Debug)]
pub struct Context {
    global: Global,
}

impl Context {
    /// From the options of the command line.
    pub fn new(global: Global) -> Self {
        Self { global }
    }

    /// A client of the chosen server that knows the kinds that this has.
    pub(super) async fn discovered(&self) -> anyhow::Result<Session> {
        let session = self.session()?;
        let found = Discovered::ask(&session.http).await?;
        Ok(Session { registry: found.preferred, versions: found.all, resources: found.resources, ..session })
    }

    /// A client of the chosen server, for a verb about kinds that every server has. Nothing is sent yet.
    pub(super) fn session(&self) -> anyhow::Result<Session> {
        let selected = self.global.select()?;
        let transport = HttpTransport::new(&selected.endpoint)
            .with_context(|| format!("context \"{}\" of the kubeconfig", selected.context))?;
        let transport = Arc::new(transport);
        let given = self.global.namespace.clone().filter(|namespace| !namespace.is_empty());
        Ok(Session {
            transport: transport.clone(),
            http: transport,
            registry: Registry::builtin(),
            versions: Registry::builtin(),
            resources: Vec::new(),
            namespace_given: given.is_some(),
            namespace: given.or(selected.namespace).unwrap_or_else(|| "default".to_owned()),
        })
    }
}
