//! `logs`: print what containers wrote.

use std::time::Duration;

use anyhow::bail;
use claw_client::{ByteStream, ResourceRef};
use futures::{StreamExt as _, future::try_join_all};
use serde_json::Value;

use super::{
    context::Context,
    duration,
    output::print_bytes,
    pods,
    session::{Session, text},
    targets::Selectors,
};

/// Pods chosen by labels print this many lines each without --tail, as kubectl does, so that nobody is flooded.
const SELECTED_TAIL_LINES: i64 = 10;
/// Streams followed at once, as kubectl allows; each holds a connection to a node.
const FOLLOWED_MAX: usize = 5;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// POD, TYPE/NAME, or nothing with a selector
    #[arg(num_args = 0..=2, value_name = "POD|TYPE/NAME")]
    target: Vec<String>,
    /// Only this container (default: the first)
    #[arg(short = 'c', long)]
    container: Option<String>,
    /// Every container of the pod
    #[arg(long, conflicts_with = "container")]
    all_containers: bool,
    /// Go on with what is written from now on
    #[arg(short = 'f', long)]
    follow: bool,
    /// Of the run before this one
    #[arg(short = 'p', long)]
    previous: bool,
    /// Only the last lines; -1 is all
    #[arg(long, allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only what was written in this time
    #[arg(long, value_parser = duration::parse)]
    since: Option<Duration>,
    /// Only what was written since this moment (RFC 3339)
    #[arg(long, conflicts_with = "since")]
    since_time: Option<String>,
    /// At most so many bytes
    #[arg(long)]
    limit_bytes: Option<u64>,
    /// Put the time before each line
    #[arg(long)]
    timestamps: bool,
    /// Put pod and container before each line
    #[arg(long)]
    prefix: bool,
    /// Every pod with these labels
    #[arg(short = 'l', long, default_value = "", hide_default_value = true, conflicts_with = "target")]
    selector: String,
}

/// One container's log.
struct Source {
    resource: ResourceRef,
    container: String,
    prefix: String,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let session = context.session()?;
    let sources = sources(&args, &session).await?;
    if args.follow && sources.len() > FOLLOWED_MAX {
        bail!(
            "{} logs cannot be followed at once, at most {FOLLOWED_MAX}: choose fewer, or leave -f out",
            sources.len()
        );
    }
    let tail = args.tail.or((!args.selector.is_empty()).then_some(SELECTED_TAIL_LINES));
    if let ([source], false) = (sources.as_slice(), args.prefix) {
        return copy(open(&args, &session, source, tail).await?).await;
    }
    if args.follow {
        let streams = sources.iter().map(|source| async {
            let stream = open(&args, &session, source, tail).await?;
            lines(stream, &source.prefix).await
        });
        return try_join_all(streams).await.map(drop);
    }
    for source in &sources {
        lines(open(&args, &session, source, tail).await?, &source.prefix).await?;
    }
    Ok(())
}

async fn sources(args: &Args, session: &Session) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for pod in chosen(args, session).await? {
        for container in containers(args, &pod)? {
            let name = text(&pod, "/metadata/name");
            let kind = session.kind("v1", "Pod")?;
            sources.push(Source {
                resource: session.object(&kind, name).sub("log"),
                prefix: if args.prefix { format!("[pod/{name}/{container}] ") } else { String::new() },
                container,
            });
        }
    }
    Ok(sources)
}

/// The pods meant: one by name, one of a workload, or all with the labels.
async fn chosen(args: &Args, session: &Session) -> anyhow::Result<Vec<Value>> {
    let pod = session.kind("v1", "Pod")?;
    if !args.selector.is_empty() {
        let selectors = Selectors { selector: args.selector.clone(), ..Selectors::default() };
        let collection = Session::collection(&pod, Some(&session.namespace));
        let pods = session.list(&pod, &collection, &selectors.options()).await?;
        if pods.is_empty() {
            eprintln!("No resources found in {} namespace.", session.namespace);
        }
        return Ok(pods);
    }
    if args.target.is_empty() {
        bail!("say whose logs: POD, TYPE/NAME such as `deploy/web`, or a selector (-l)");
    }
    Ok(vec![pods::meant(session, &args.target).await?])
}

fn containers(args: &Args, pod: &Value) -> anyhow::Result<Vec<String>> {
    if args.all_containers {
        return Ok(pods::containers(pod));
    }
    Ok(vec![pods::container(pod, args.container.as_deref(), args.selector.is_empty())?])
}

async fn open(
    args: &Args,
    session: &Session,
    source: &Source,
    tail: Option<i64>,
) -> anyhow::Result<ByteStream> {
    let mut query = vec![("container".to_owned(), source.container.clone())];
    let mut add = |name: &str, value: String| query.push((name.to_owned(), value));
    for (name, on) in [("follow", args.follow), ("previous", args.previous), ("timestamps", args.timestamps)]
    {
        if on {
            add(name, "true".to_owned());
        }
    }
    if let Some(lines) = tail.filter(|lines| *lines >= 0) {
        add("tailLines", lines.to_string());
    }
    if let Some(since) = args.since {
        // The API counts in whole seconds, of which there is at least one.
        add("sinceSeconds", since.as_secs_f64().ceil().max(1.0).to_string());
    }
    if let Some(time) = &args.since_time {
        add("sinceTime", time.clone());
    }
    if let Some(bytes) = args.limit_bytes {
        add("limitBytes", bytes.to_string());
    }
    Ok(session.transport.stream(source.resource.clone(), query).await?)
}

async fn copy(mut stream: ByteStream) -> anyhow::Result<()> {
    while let Some(chunk) = stream.next().await {
        print_bytes(&chunk?)?;
    }
    Ok(())
}

/// Longest part of a line held back to keep lines of several logs whole.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Prints whole lines only, so that several logs do not mix within one.
async fn lines(mut stream: ByteStream, prefix: &str) -> anyhow::Result<()> {
    let mut held = Vec::new();
    while let Some(chunk) = stream.next().await {
        held.extend_from_slice(&chunk?);
        let whole = held.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let cut = if whole == 0 && held.len() > LINE_BYTES_MAX { held.len() } else { whole };
        print_bytes(&prefixed(held.drain(..cut).as_slice(), prefix))?;
    }
    if !held.is_empty() {
        held.push(b'\n');
        print_bytes(&prefixed(&held, prefix))?;
    }
    Ok(())
}

fn prefixed(lines: &[u8], prefix: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(lines.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(line);
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Cli::parse_from(line.split(' ')).args
    }

    fn pod() -> Value {
        json!({
            "metadata": {"name": "p"},
            "spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]},
        })
    }

    #[test]
    fn the_container_is_the_one_named_or_the_first() {
        assert_eq!(containers(&args("logs p"), &pod()).unwrap(), ["a"]);
        assert_eq!(containers(&args("logs p -c i"), &pod()).unwrap(), ["i"]);
        assert_eq!(containers(&args("logs p --all-containers"), &pod()).unwrap(), ["i", "a", "b"]);
        let error = containers(&args("logs p -c x"), &pod()).unwrap_err().to_string();
        assert_eq!(error, "container x is not valid for pod p: it has a, b, i");
        let mut annotated = pod();
        annotated["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] = json!("b");
        assert_eq!(containers(&args("logs p"), &annotated).unwrap(), ["b"]);
    }

    #[test]
    fn every_line_gets_the_prefix_once() {
        assert_eq!(prefixed(b"a\nb\n", "[p] "), b"[p] a\n[p] b\n");
        assert_eq!(prefixed(b"", "[p] "), b"");
    }
}
