//! Which objects a verb is about: those of files, those named, or all of a kind that selectors choose.

use std::sync::Arc;

use anyhow::bail;
use claw_client::{ResourceRef, request::ListOptions};
use claw_schemas::Descriptor;

use super::{
    manifest::Files,
    resources,
    session::{Session, text},
};

#[derive(Debug, Default, clap::Args)]
pub struct Targets {
    /// TYPE, TYPE NAME ..., or TYPE/NAME ...
    resources: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    pub selectors: Selectors,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// Which objects of a collection.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Selectors {
    /// Only objects with these labels: app=web,tier!=db
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Only objects with these fields: status.phase=Running
    #[arg(long, default_value = "", hide_default_value = true)]
    pub field_selector: String,
}

/// A collection, or an object of it.
#[derive(Clone, Debug)]
pub struct Target {
    pub kind: Arc<Descriptor>,
    pub resource: ResourceRef,
}

impl Targets {
    /// What was asked for, in the order of the command line. Nothing is looked up.
    pub fn read(&self, session: &Session) -> anyhow::Result<Vec<Target>> {
        if self.files.paths.is_empty() { self.named(session) } else { self.of_files(session) }
    }

    fn of_files(&self, session: &Session) -> anyhow::Result<Vec<Target>> {
        if !self.resources.is_empty() {
            bail!("name objects either with -f or as TYPE/NAME, not both");
        }
        let placed = self.files.place(session)?;
        Ok(placed.into_iter().map(|p| Target { kind: p.kind, resource: p.resource }).collect())
    }

    fn named(&self, session: &Session) -> anyhow::Result<Vec<Target>> {
        let namespace = (!self.all_namespaces).then_some(session.namespace.as_str());
        let mut targets = Vec::new();
        for wanted in resources::parse(&session.registry, &self.resources)? {
            let collection = Session::collection(&wanted.kind, namespace);
            if wanted.names.is_empty() {
                targets.push(Target { kind: wanted.kind, resource: collection });
                continue;
            }
            if self.all_namespaces && wanted.kind.namespaced() {
                bail!("a name is unique only in its namespace: use -n instead of --all-namespaces");
            }
            if !self.selectors.is_empty() {
                bail!("selectors choose among all objects: leave the names out, or the selectors");
            }
            targets.extend(wanted.names.iter().map(|name| Target {
                kind: Arc::clone(&wanted.kind),
                resource: collection.clone().named(name),
            }));
        }
        Ok(targets)
    }

    /// The objects, one by one, for verbs that do something to each: a collection counts only by a selector or
    /// `--all`, so that nobody says more than was meant.
    pub async fn each(&self, session: &Session, all: bool, to_do: &str) -> anyhow::Result<Vec<Target>> {
        let mut objects = Vec::new();
        for target in self.read(session)? {
            match (&target.resource.name, all) {
                (Some(_), true) => bail!("leave out either the names or --all"),
                (Some(_), false) => objects.push(target),
                (None, false) if self.selectors.is_empty() => {
                    bail!("say which {} to {to_do}: names, a selector (-l), or --all", target.kind.plural)
                }
                (None, _) => objects.extend(self.members(session, &target).await?),
            }
        }
        Ok(objects)
    }

    async fn members(&self, session: &Session, target: &Target) -> anyhow::Result<Vec<Target>> {
        let items = session.list(&target.kind, &target.resource, &self.selectors.options()).await?;
        let member = |item| {
            let collection = Session::collection(&target.kind, Some(text(item, "/metadata/namespace")));
            let resource = collection.named(text(item, "/metadata/name"));
            Target { kind: Arc::clone(&target.kind), resource }
        };
        Ok(items.iter().map(member).collect())
    }

    /// What to say when there is nothing of it.
    pub fn nothing_found(&self, session: &Session) -> String {
        let is_namespaced = resources::parse(&session.registry, &self.resources)
            .is_ok_and(|wanted| wanted.iter().any(|wanted| wanted.kind.namespaced()));
        if self.all_namespaces || !is_namespaced {
            "No resources found".to_owned()
        } else {
            format!("No resources found in {} namespace.", session.namespace)
        }
    }
}

impl Selectors {
    pub fn options(&self) -> ListOptions {
        ListOptions {
            label_selector: self.selector.clone(),
            field_selector: self.field_selector.clone(),
            ..ListOptions::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        self.selector.is_empty() && self.field_selector.is_empty()
    }
}
