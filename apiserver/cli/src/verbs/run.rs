//! `run`: start one pod from a command line.

use anyhow::bail;
use serde_json::{Map, Value, json};

use super::{
    apply::WriteFlags,
    context::Context,
    output::{Format, print, without_managed_fields},
    session::{Session, short_name},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the pod
    name: String,
    /// Image of its container
    #[arg(long)]
    image: String,
    /// Variable of its environment, as NAME=VALUE; may be given several times
    #[arg(long)]
    env: Vec<String>,
    /// Port that it listens on
    #[arg(long)]
    port: Option<u16>,
    /// What to do when the container ends
    #[arg(long, default_value = "Always", value_name = "Always|OnFailure|Never")]
    restart: String,
    /// Labels, as a=b,c=d (default: run=NAME)
    #[arg(short = 'l', long)]
    labels: Option<String>,
    /// Take the words after "--" as the command, not as arguments of the image's own
    #[arg(long)]
    command: bool,
    #[command(flatten)]
    flags: WriteFlags,
    /// Print the pod as it is created
    #[arg(short = 'o', long, value_name = "json|yaml|name")]
    output: Option<Format>,
    /// Words for the container
    #[arg(last = true)]
    words: Vec<String>,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let session = context.session()?;
    let kind = session.kind("v1", "Pod")?;
    let pod = pod(&args, &session.namespace)?;
    let write = args.flags.read()?;
    let created = session.create(Session::collection(&kind, Some(&session.namespace)), &pod, &write).await?;
    match args.output {
        Some(format) => print(&format.one(&kind, &without_managed_fields(created))?)?,
        None => {
            let note = if write.dry_run { " (server dry run)" } else { "" };
            print(&format!("{} created{note}\n", short_name(&kind, &args.name)))?;
        }
    }
    Ok(())
}

fn pod(args: &Args, namespace: &str) -> anyhow::Result<Value> {
    let mut container = json!({"name": args.name, "image": args.image});
    if !args.env.is_empty() {
        container["env"] = args.env.iter().map(|pair| variable(pair)).collect::<anyhow::Result<_>>()?;
    }
    if let Some(port) = args.port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    if !args.words.is_empty() {
        container[if args.command { "command" } else { "args" }] = json!(args.words);
    } else if args.command {
        bail!("--command needs the command after \"--\"");
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": args.name, "namespace": namespace, "labels": labels(args)?},
        "spec": {"containers": [container], "restartPolicy": args.restart},
    }))
}

fn variable(pair: &str) -> anyhow::Result<Value> {
    match pair.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(json!({"name": name, "value": value})),
        _ => bail!("--env={pair}: write it as NAME=VALUE"),
    }
}

fn labels(args: &Args) -> anyhow::Result<Map<String, Value>> {
    let Some(labels) = &args.labels else {
        return Ok(Map::from_iter([("run".to_owned(), json!(args.name))]));
    };
    labels
        .split(',')
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), json!(value))),
            _ => bail!("--labels={labels}: write them as a=b,c=d"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn made(line: &str) -> anyhow::Result<Value> {
        pod(&Cli::parse_from(line.split(' ')).args, "team")
    }

    #[test]
    fn a_pod_is_what_the_command_line_says() {
        let pod = made("run t --image i --env A=b=c --port 80 --restart Never --command -- sleep 1").unwrap();
        assert_eq!(pod["metadata"], json!({"name": "t", "namespace": "team", "labels": {"run": "t"}}));
        assert_eq!(
            pod["spec"],
            json!({
                "restartPolicy": "Never",
                "containers": [{
                    "name": "t", "image": "i", "env": [{"name": "A", "value": "b=c"}],
                    "ports": [{"containerPort": 80}], "command": ["sleep", "1"],
                }],
            })
        );
        let pod = made("run t --image i -l a=b,c= -- --flag").unwrap();
        assert_eq!(pod["metadata"]["labels"], json!({"a": "b", "c": ""}));
        assert_eq!(pod["spec"]["containers"][0]["args"], json!(["--flag"]));
    }

    #[test]
    fn half_a_pair_is_refused_with_the_form_to_write() {
        assert!(made("run t --image i --env A").unwrap_err().to_string().contains("NAME=VALUE"));
        assert!(made("run t --image i -l a").unwrap_err().to_string().contains("a=b,c=d"));
        assert!(made("run t --image i --command").is_err());
    }
}
