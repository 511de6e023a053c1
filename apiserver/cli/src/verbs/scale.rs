//! `scale`: change how many replicas there should be.

use anyhow::bail;
use claw_client::request::PatchKind;
use serde_json::json;

use super::{
    context::Context,
    output::print,
    resources,
    session::{Write, integer, short_name},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// TYPE NAME ..., or TYPE/NAME ...
    #[arg(required = true)]
    resources: Vec<String>,
    /// How many there should be
    #[arg(long)]
    replicas: u32,
    /// Only if there should be this many now
    #[arg(long)]
    current_replicas: Option<u32>,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let session = context.discovered().await?;
    for wanted in resources::named(&session.registry, &args.resources)? {
        if wanted.kind.subresource("scale").is_none() {
            bail!("{} cannot be scaled", wanted.kind.plural);
        }
        for name in &wanted.names {
            let scale = session.object(&wanted.kind, name).sub("scale");
            let mut patch = json!({"spec": {"replicas": args.replicas}});
            if let Some(expected) = args.current_replicas {
                let now = session.get(&scale).await?;
                let replicas = integer(&now, "/spec/replicas");
                if replicas != i64::from(expected) {
                    bail!("expected {expected} replicas of {name}, but {replicas} are asked for now");
                }
                // Whoever scales in between wins, and we learn of it.
                patch["metadata"] = json!({"resourceVersion": now["metadata"]["resourceVersion"]});
            }
            session.patch(scale, PatchKind::Merge, &patch, &Write::default()).await?;
            print(&format!("{} scaled\n", short_name(&wanted.kind, name)))?;
        }
    }
    Ok(())
}
