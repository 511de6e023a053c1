//! `top`: what nodes and pods use at the moment.
//!
//! Columns, rounding and complaints are kubectl's.

use std::{cmp::Reverse, sync::Arc};

use anyhow::bail;
use clap::ValueEnum;
use claw_schemas::{
    ApiError, Descriptor,
    columns::human_duration,
    kinds,
    metrics::{Amounts, NodeMetrics, PodMetrics, nanocores},
    quantity::Quantity,
    status::Reason,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{Resource, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    context::Context,
    output::print,
    session::{Session, text},
    table::lay_out,
    targets::Selectors,
};

/// A pod without figures is young until then.
const YOUNG: SignedDuration = SignedDuration::from_secs(120);

const UNKNOWN: &str = "<unknown>";

/// What is shown.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// What nodes use
    #[command(visible_aliases = ["nodes", "no"])]
    Node(NodeArgs),
    /// What pods use
    #[command(visible_aliases = ["pods", "po"])]
    Pod(PodArgs),
}

#[derive(Debug, clap::Args)]
struct Shown {
    /// The largest first
    #[arg(long, value_name = "cpu|memory", hide_possible_values = true)]
    sort_by: Option<SortBy>,
    /// Leave the line of headers out
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    selectors: Selectors,
}

#[derive(Debug, clap::Args)]
pub struct NodeArgs {
    /// Name of a node; all without one
    name: Option<String>,
    /// Shares of what the nodes have, not of what pods may use of it
    #[arg(long)]
    show_capacity: bool,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Debug, clap::Args)]
pub struct PodArgs {
    /// Name of a pod; all without one
    name: Option<String>,
    /// A line for each container
    #[arg(long)]
    containers: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// What all of them use together
    #[arg(long)]
    sum: bool,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SortBy {
    Cpu,
    Memory,
}

/// Rounded as kubectl does: CPU up to a thousandth, memory exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    cpu_nanocores: u64,
    memory_bytes: u64,
}

/// Lines with what they are sorted by.
type Lines = Vec<(Used, Vec<String>)>;

pub async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let session = context.session()?;
    match command {
        Command::Node(args) => nodes(&args, &session).await,
        Command::Pod(args) => pods(&args, &session).await,
    }
}

async fn nodes(args: &NodeArgs, session: &Session) -> anyhow::Result<()> {
    let found: Vec<NodeMetrics> = metrics(session, None, args.name.as_deref(), &args.shown).await?;
    if found.is_empty() {
        bail!("metrics not available yet");
    }
    let kind = session.kind("v1", "Node")?;
    let collection = Session::collection(&kind, None);
    let nodes = match &args.name {
        Some(name) => vec![session.get(&collection.named(name)).await?],
        None => session.list(&kind, &collection, &args.shown.selectors.options()).await?,
    };
    let lines = nodes.iter().map(|node| {
        let metrics = found.iter().find(|one| one.metadata.name.as_deref() == Some(name(node)));
        node_line(node, metrics, args.show_capacity)
    });
    let header = ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"];
    show(&args.shown, &header, lines.collect(), Vec::new())
}

fn node_line(node: &Value, metrics: Option<&NodeMetrics>, of_all: bool) -> (Used, Vec<String>) {
    let name = name(node).to_owned();
    let Some(metrics) = metrics else {
        let unknown = std::iter::repeat_n(UNKNOWN.to_owned(), 4);
        return (Used::default(), std::iter::once(name).chain(unknown).collect());
    };
    let used = Used::of(&metrics.usage);
    let there = &node["status"][if of_all { "capacity" } else { "allocatable" }];
    let cpu = share(i128::from(used.millicores()), &there["cpu"], Quantity::milli);
    let memory = share(i128::from(used.memory_bytes), &there["memory"], Quantity::units);
    (used, vec![name, used.cpu(), cpu, used.memory(), memory])
}

/// A part in whole percent.
fn share(used: i128, there: &Value, unit: fn(Quantity) -> i128) -> String {
    let there = there.as_str().and_then(|text| text.parse().ok()).map(unit);
    there.filter(|all| *all > 0).map_or_else(|| UNKNOWN.to_owned(), |all| format!("{}%", used * 100 / all))
}

async fn pods(args: &PodArgs, session: &Session) -> anyhow::Result<()> {
    if args.all_namespaces && args.name.is_some() {
        bail!("a name is unique only in its namespace: use -n instead of --all-namespaces");
    }
    let namespace = (!args.all_namespaces).then_some(&*session.namespace);
    let found: Vec<PodMetrics> = metrics(session, namespace, args.name.as_deref(), &args.shown).await?;
    if found.is_empty() {
        return explain_nothing(args, session).await;
    }
    let mut header = vec!["NAME", "CPU(cores)", "MEMORY(bytes)"];
    if args.containers {
        header.insert(0, "POD");
    }
    if args.all_namespaces {
        header.insert(0, "NAMESPACE");
    }
    let lines: Lines = found.iter().flat_map(|pod| pod_lines(args, pod)).collect();
    let sum = if args.sum { sum_lines(&lines, header.len()) } else { Vec::new() };
    show(&args.shown, &header, lines, sum)
}

/// A stroke, and the sums of the last two columns below it.
fn sum_lines(lines: &[(Used, Vec<String>)], columns: usize) -> Vec<Vec<String>> {
    let sum = lines.iter().map(|(used, _)| *used).sum::<Used>();
    let stroke = || "________".to_owned();
    let line = |cells: [String; 2]| {
        let blanks = std::iter::repeat_n(String::new(), columns - cells.len());
        blanks.chain(cells).collect()
    };
    vec![line([stroke(), stroke()]), line([sum.cpu(), sum.memory()])]
}

fn pod_lines(args: &PodArgs, pod: &PodMetrics) -> Lines {
    let ObjectMeta { name, namespace, .. } = &pod.metadata;
    let place: Vec<String> =
        args.all_namespaces.then(|| namespace.clone().unwrap_or_default()).into_iter().collect();
    let name = name.clone().unwrap_or_default();
    let line = |names: &[&str], used: Used| {
        let names = names.iter().map(|name| (*name).to_owned());
        let cells = place.iter().cloned().chain(names).chain([used.cpu(), used.memory()]);
        (used, cells.collect())
    };
    if args.containers {
        let containers = pod.containers.iter();
        return containers.map(|one| line(&[&name, &one.name], Used::of(&one.usage))).collect();
    }
    let all = pod.containers.iter().map(|one| Used::of(&one.usage));
    vec![line(&[&name], all.sum())]
}

/// There are no figures: either there is no pod, or all are young, or something is wrong.
async fn explain_nothing(args: &PodArgs, session: &Session) -> anyhow::Result<()> {
    let kind = session.kind("v1", "Pod")?;
    let namespace = (!args.all_namespaces).then_some(&*session.namespace);
    let pods =
        session.list(&kind, &Session::collection(&kind, namespace), &args.shown.selectors.options()).await?;
    for pod in &pods {
        let created: Option<Timestamp> = text(pod, "/metadata/creationTimestamp").parse().ok();
        let age = created.map(|created| Timestamp::now().duration_since(created));
        if let Some(age) = age.filter(|age| *age > YOUNG) {
            let (namespace, age) = (text(pod, "/metadata/namespace"), human_duration(age.as_secs()));
            bail!("Metrics not available for pod {namespace}/{}, age: {age}", name(pod));
        }
    }
    match namespace {
        None => eprintln!("No resources found"),
        Some(namespace) => eprintln!("No resources found in {namespace} namespace."),
    }
    Ok(())
}

/// The figures of one object, or of those that are selected.
async fn metrics<T: Resource + DeserializeOwned>(
    session: &Session,
    namespace: Option<&str>,
    name: Option<&str>,
    shown: &Shown,
) -> anyhow::Result<Vec<T>> {
    let kind = kind::<T>();
    let collection = Session::collection(&kind, namespace);
    let items = match name {
        Some(_) if !shown.selectors.is_empty() => {
            bail!("selectors choose among all objects: leave the name out, or the selectors")
        }
        Some(name) => session.get(&collection.named(name)).await.map(|one| vec![one]),
        None => session.list(&kind, &collection, &shown.selectors.options()).await,
    };
    let items = items.map_err(|error| if is_missing(&error) { unavailable() } else { error.into() })?;
    Ok(items.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?)
}

fn kind<T: Resource>() -> Arc<Descriptor> {
    let mut all = kinds::measured().iter();
    Arc::clone(all.find(|kind| kind.kind == T::KIND).expect("the kinds that are measured are listed"))
}

/// Whether the server does not know the path at all. Of an object that is not there it knows the kind.
fn is_missing(error: &ApiError) -> bool {
    error.reason == Reason::NotFound && error.details.name.is_empty()
}

fn unavailable() -> anyhow::Error {
    anyhow::anyhow!("Metrics API not available")
}

fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

fn show(shown: &Shown, header: &[&str], mut lines: Lines, below: Vec<Vec<String>>) -> anyhow::Result<()> {
    match shown.sort_by {
        None => {}
        Some(SortBy::Cpu) => lines.sort_by_key(|(used, _)| Reverse(used.cpu_nanocores)),
        Some(SortBy::Memory) => lines.sort_by_key(|(used, _)| Reverse(used.memory_bytes)),
    }
    let header = (!shown.no_headers).then(|| header.iter().map(|name| (*name).to_owned()).collect());
    let lines = lines.into_iter().map(|(_, line)| line);
    let lines: Vec<Vec<String>> = header.into_iter().chain(lines).chain(below).collect();
    Ok(print(&lay_out(&lines))?)
}

impl std::iter::Sum for Used {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            cpu_nanocores: sum.cpu_nanocores.saturating_add(one.cpu_nanocores),
            memory_bytes: sum.memory_bytes.saturating_add(one.memory_bytes),
        })
    }
}

impl Used {
    fn of(usage: &Amounts) -> Self {
        let amount = |name: &str| usage.get(name).map_or("", |amount| &amount.0);
        let memory = amount("memory").parse().map_or(0, Quantity::units);
        Self {
            cpu_nanocores: nanocores(amount("cpu")).unwrap_or(0),
            memory_bytes: u64::try_from(memory).unwrap_or(0),
        }
    }

    fn millicores(self) -> u64 {
        self.cpu_nanocores.div_ceil(1_000_000)
    }

    fn cpu(self) -> String {
        format!("{}m", self.millicores())
    }

    fn memory(self) -> String {
        format!("{}Mi", self.memory_bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    use claw_schemas::metrics::amounts;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_shown_with_its_shares_or_as_unknown() {
        let node = json!({
            "metadata": {"name": "gpu-01"},
            "status": {"allocatable": {"cpu": "4", "memory": "1Gi"}, "capacity": {"cpu": "8", "memory": "4Gi"}},
        });
        let metrics: NodeMetrics = serde_json::from_value(json!({
            "metadata": {"name": "gpu-01"}, "timestamp": "2026-01-01T00:00:00Z", "window": "15s",
            "usage": {"cpu": "1000000001n", "memory": "512Mi"},
        }))
        .unwrap();
        let line = |metrics, of_all| node_line(&node, metrics, of_all).1.join(" ");
        assert_eq!(line(Some(&metrics), false), "gpu-01 1001m 25% 512Mi 50%");
        assert_eq!(line(Some(&metrics), true), "gpu-01 1001m 12% 512Mi 12%");
        assert_eq!(line(None, false), "gpu-01 <unknown> <unknown> <unknown> <unknown>");
    }

    #[test]
    fn a_sum_stands_below_its_columns() {
        let used = |millis: u64, mebibytes: u64| {
            let used = Used { cpu_nanocores: millis * 1_000_000, memory_bytes: mebibytes << 20 };
            (used, vec!["web".to_owned(), used.cpu(), used.memory()])
        };
        let below = sum_lines(&[used(3, 10), used(4, 20)], 3);
        assert_eq!(below, [["", "________", "________"], ["", "7m", "30Mi"]]);
    }

    #[test]
    fn amounts_are_read_as_they_are_written() {
        let used = Used { cpu_nanocores: 1_234_567, memory_bytes: 50 << 20 };
        assert_eq!(Used::of(&amounts(used.cpu_nanocores, used.memory_bytes)), used);
        assert_eq!((used.cpu(), used.memory()), ("2m".to_owned(), "50Mi".to_owned()));
        assert_eq!(Used::of(&Amounts::new()), Used::default());
    }
}
