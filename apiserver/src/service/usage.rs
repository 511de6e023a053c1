//! `metrics.k8s.io`: what nodes and pods use. Nothing of it is stored: the nodes are asked, and who does not answer is left
//! out, as are containers that are too young to have been measured.
//!
//! Texts and forms are those of Kubernetes' metrics server.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
    time::Duration,
};

use claw_client::{
    Request, ResourceRef, Response, Verb,
    request::{ListOptions, View},
};
use claw_schemas::{
    ApiError, kinds,
    metrics::{ContainerMetrics, GROUP, NodeMetrics, PodMetrics, amounts, window},
    proto::{ContainerUsage, Figures, Usage},
};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::{
    Resource as _,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde::{Deserialize, Serialize};

use super::{
    ObjectService,
    kinds::{Served, Target, method_not_allowed, no_such_path},
    list::ok,
    select::Selection,
    view::{self, ListMeta},
};
use crate::store::Record;

/// The kinds as they are shown.
static KINDS: LazyLock<Vec<Served>> =
    LazyLock::new(|| kinds::measured().iter().map(|kind| Served::new(kind.clone())).collect());

/// Whether a request is about what is measured.
pub(super) fn is_measured(resource: &ResourceRef) -> bool {
    resource.group == GROUP && kind_of(resource).is_some()
}

fn kind_of(resource: &ResourceRef) -> Option<&'static Served> {
    let ResourceRef { group, version, plural, .. } = resource;
    KINDS.iter().find(|kind| {
        let kind = &kind.descriptor;
        kind.group == *group && kind.version == *version && kind.plural == *plural
    })
}

/// What is read of a pod or a node here.
#[derive(Deserialize)]
struct Subject {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: Option<String>,
    #[serde(default)]
    uid: String,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
}

impl ObjectService {
    pub(super) async fn measure(&self, request: Request) -> Result<Response, ApiError> {
        let Request { resource, verb, view } = request;
        let kind = kind_of(&resource).ok_or_else(no_such_path)?;
        if resource.subresource.is_some() {
            return Err(no_such_path());
        }
        let stored = ResourceRef { group: String::new(), version: "v1".to_owned(), ..resource };
        let target = self.kinds.resolve(stored)?;
        match verb {
            Verb::Get if !target.name.is_empty() => self.measured_one(kind, &target, view).await,
            Verb::List(options) if target.name.is_empty() => {
                self.measured_all(kind, &target, &options, view).await
            }
            _ => Err(method_not_allowed()),
        }
    }

    async fn measured_one(&self, kind: &Served, target: &Target, view: View) -> Result<Response, ApiError> {
        let record = self.record(target).await?;
        match self.figures(kind, vec![record]).await?.first() {
            Some(found) => Ok(ok(view::single(kind, view, &found.value))),
            None => {
                let place = if target.namespace.is_empty() { "" } else { "/" };
                let name = format!("{}{place}{}", target.namespace, target.name);
                Err(ApiError::not_found(GROUP, &kind.descriptor.singular, &name))
            }
        }
    }

    async fn measured_all(
        &self,
        kind: &Served,
        target: &Target,
        options: &ListOptions,
        view: View,
    ) -> Result<Response, ApiError> {
        let selection = Selection::parse(&target.kind, &options.label_selector, &options.field_selector)?;
        let found = self.scan(target, &selection, 0, None, None).await?;
        // That of the pods or nodes, for those who expect one of every list.
        let meta = ListMeta { revision: found.revision, ..ListMeta::default() };
        let items = self.figures(kind, found.items).await?;
        Ok(ok(view::list(kind, view, &items, &meta).await))
    }

    /// The figures of stored pods or nodes, as far as there are any.
    async fn figures(&self, kind: &Served, stored: Vec<Record>) -> Result<Vec<Record>, ApiError> {
        let subjects = stored.into_iter().map(|record| {
            serde_json::from_slice::<Subject>(&record.value).map(|subject| (record.key, subject))
        });
        let subjects: Vec<_> = subjects
            .collect::<Result<_, _>>()
            .map_err(|error| ApiError::internal(format!("a stored object does not parse: {error}")))?;
        let is_pod = kind.descriptor.kind == PodMetrics::KIND;
        let node_of = |subject: &Subject| match is_pod {
            true => subject.spec.node_name.clone(),
            false => subject.metadata.name.clone(),
        };
        let is_there = |subject: &Subject| !is_pod || subject.status.phase == "Running";
        let there = subjects.into_iter().filter(|(_, subject)| is_there(subject)).collect::<Vec<_>>();
        let usages = self.usages(there.iter().map(|(_, subject)| node_of(subject))).await;
        let by_pod: HashMap<_, _> = usages.iter().map(|(node, usage)| (&**node, of_pods(usage))).collect();
        // A node is believed about its own pods alone.
        let of_pod = |pod: &Subject| by_pod.get(&*pod.spec.node_name)?.get(&*pod.metadata.uid);
        let mut records = Vec::new();
        for (key, subject) in there {
            let text = match is_pod {
                true => of_pod(&subject).and_then(|used| pod_metrics(subject, used)),
                false => usages.get(&subject.metadata.name).and_then(|used| node_metrics(subject, used)),
            };
            records.extend(text.map(|text| Record { key, revision: 0, value: text.into() }));
        }
        Ok(records)
    }

    /// What nodes use, by their names; those that do not answer are missing.
    async fn usages(&self, nodes: impl Iterator<Item = String>) -> HashMap<String, Arc<Usage>> {
        // A server without nodes has none to ask.
        let Some(streams) = self.node_streams.get() else { return HashMap::new() };
        let mut nodes: Vec<String> = nodes.filter(|node| !node.is_empty()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let asked = nodes.into_iter().map(|node| async move {
            let usage = streams.usage(&node).await?;
            Some((node, usage))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

/// The containers of each pod, by its uid.
fn of_pods(usage: &Usage) -> HashMap<&str, Vec<&ContainerUsage>> {
    let mut pods: HashMap<&str, Vec<_>> = HashMap::new();
    for container in &usage.containers {
        pods.entry(&container.pod_uid).or_default().push(container);
    }
    pods
}

fn pod_metrics(pod: Subject, used: &[&ContainerUsage]) -> Option<String> {
    let measured = used.iter().filter_map(|one| Some((one.container.clone(), one.figures.as_ref()?)));
    let mut measured: Vec<(String, &Figures)> = measured.collect();
    measured.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let oldest = measured.iter().map(|(_, figures)| *figures).min_by_key(|figures| figures.at_ms)?;
    text(&PodMetrics {
        api_version: PodMetrics::API_VERSION.to_owned(),
        kind: PodMetrics::KIND.to_owned(),
        metadata: metadata(pod),
        timestamp: timestamp(oldest)?,
        window: window(Duration::from_millis(oldest.window_ms)),
        containers: measured
            .into_iter()
            .map(|(name, used)| ContainerMetrics {
                name,
                usage: amounts(used.cpu_nanocores, used.memory_bytes),
            })
            .collect(),
    })
}

fn node_metrics(node: Subject, usage: &Usage) -> Option<String> {
    let used = usage.machine.as_ref()?;
    text(&NodeMetrics {
        api_version: NodeMetrics::API_VERSION.to_owned(),
        kind: NodeMetrics::KIND.to_owned(),
        metadata: metadata(node),
        timestamp: timestamp(used)?,
        window: window(Duration::from_millis(used.window_ms)),
        usage: amounts(used.cpu_nanocores, used.memory_bytes),
    })
}

/// The time of creation is that of the answer: nothing of it was there before.
fn metadata(subject: Subject) -> ObjectMeta {
    let Metadata { name, namespace, labels, .. } = subject.metadata;
    let creation_timestamp = Some(Time(Timestamp::now()));
    ObjectMeta { name: Some(name), namespace, labels, creation_timestamp, ..ObjectMeta::default() }
}

/// `None` for a time that an agent cannot mean.
fn timestamp(figures: &Figures) -> Option<Time> {
    // Whole seconds, as the API has them.
    Timestamp::from_second(figures.at_ms.div_euclid(1000)).ok().map(Time)
}

fn text<T: Serialize>(metrics: &T) -> Option<String> {
    serde_json::to_string(metrics).ok()
}
