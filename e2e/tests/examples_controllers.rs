//! The controllers of `examples/` do what docs/controllers.md says: one kind, once in Rust (`controller/definition.yaml`,
//! `controller/rbac.yaml`, `controller/sweep.yaml`) and once in Python (`controller-kopf/rbac.yaml`), each with the rights
//! of its own service account, through its death in the middle.

use std::{path::PathBuf, process::Command};

use claw_client::{
    Api, ApiError, Client, Kubeconfig, custom,
    request::{DeleteOptions, ListOptions, PatchKind},
};
use claw_e2e::{
    Cluster, Options,
    binary::{self, workspace},
    cluster::write,
    kubectl::{Background, Outcome},
    need::{self, Need},
    python::python,
    wait::{LATER, SOON, await_condition, check, until, until_async},
};
use claw_runtime::conditions;
use claw_schemas::status::Reason;
use claw_testing::object;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Event, Pod, Secret, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sweep_controller::{COMPLETE, SWEEP, kind::Sweep};

const NS: &str = "default";
const PARALLELISM: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_in_rust_goes_on_after_its_death_with_no_more_rights_than_its_role_gives() {
    let stage = Stage::set(&["controller/definition.yaml", "controller/rbac.yaml"]).await;
    let (kubeconfig, account) = stage.become_account("sweep-controller").await;
    stage.may_no_more_than_it_does(&account).await;
    let start = |run: &str| {
        let mut program = Command::new(binary::example("sweep-controller"));
        Background::start(program.env("KUBECONFIG", &kubeconfig), &stage.log(run))
    };
    let mut program = stage.lives_through_a_kill(start).await;
    stage.told_of_its_start().await;

    program.signal(Signal::SIGTERM);
    let code = until("it stops", SOON, || program.exit_code().ok_or("it runs"));
    assert_eq!(code, 0, "{}", program.output());
    let lease = stage.client.namespaced::<Lease>(NS).get("sweep-controller").await.expect("it was elected");
    assert_eq!(lease.spec.and_then(|spec| spec.holder_identity), None, "the lease is given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_in_python_does_the_same() {
    if !need::all("the_operator_in_python_does_the_same", &[Need::Python]) {
        return;
    }
    let stage = Stage::set(&["controller/definition.yaml", "controller-kopf/rbac.yaml"]).await;
    let (kubeconfig, account) = stage.become_account("sweep-operator").await;
    stage.may_no_more_than_it_does(&account).await;
    let start = |run: &str| {
        let mut kopf = python();
        kopf.args(["-m", "kopf", "run", "--all-namespaces", "examples/controller-kopf/sweep_operator.py"]);
        Background::start(kopf.env("KUBECONFIG", &kubeconfig), &stage.log(run))
    };
    let _operator = stage.lives_through_a_kill(start).await;
    stage.told_of_its_start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_sweep_runs_in_real_containers() {
    if !need::all("the_example_sweep_runs_in_real_containers", &[Need::Root]) {
        return;
    }
    let stage = Stage::on(Options::up(1), &["controller/definition.yaml"]).await;
    let mut program = Command::new(binary::example("sweep-controller"));
    let program = program.env("KUBECONFIG", stage.cluster.kubeconfig());
    let _program = Background::start(program, &stage.log("controller"));
    let text =
        std::fs::read_to_string(workspace().join("examples/controller/sweep.yaml")).expect("it is there");
    let example: Sweep = serde_yaml::from_str(&text).expect("it is a sweep");
    stage.sweeps.create(&example).await.expect("a sound sweep");
    until_async("the sweep is complete", LATER, || async {
        let sweep = stage.sweeps.get("learning-rate").await.map_err(|error| error.to_string())?;
        check(is_complete(&sweep), format!("{:?}", sweep.status))
    })
    .await;
    let sweep = stage.sweeps.get("learning-rate").await.expect("it is there");
    assert_eq!(sweep.status.map(|status| (status.succeeded, status.failed)), Some((4, 0)));
    for pod in stage.list().await {
        let (name, value) = (name_of(&pod), value_of(&pod));
        let said = Outcome::of(stage.cluster.cli().args(["logs", &name]), "").success();
        let said = said.unwrap_or_else(|text| panic!("{text}"));
        assert!(said.contains(&format!("training at the rate {value}")), "{name}: {said}");
    }
    stage.sweeps.delete("learning-rate", DeleteOptions::default()).await.expect("it is there");
    until_async("its pods go with it", LATER, || async {
        let left = stage.list().await;
        check(left.is_empty(), format!("{left:?}"))
    })
    .await;
}

/// A server, the kind, and the administrator who looks on and plays the machines.
struct Stage {
    cluster: Cluster,
    client: Client,
    sweeps: Api<Sweep>,
    pods: Api<Pod>,
}

impl Stage {
    /// Without machines: the story plays them.
    async fn set(manifests: &[&str]) -> Self {
        Self::on(Options::server(), manifests).await
    }

    async fn on(options: Options, manifests: &[&str]) -> Self {
        let cluster = Cluster::start(options);
        let client = connect(&cluster.kubeconfig());
        let (sweeps, pods) = (client.namespaced(NS), client.namespaced(NS));
        let stage = Self { cluster, client, sweeps, pods };
        manifests.iter().for_each(|file| stage.apply(file));
        let definitions = stage.client.all::<CustomResourceDefinition>();
        let served = |found: Option<&_>| found.is_some_and(custom::is_established);
        await_condition(&definitions, "sweeps.tuning.example.com", "the kind is served", served).await;
        stage
    }

    fn apply(&self, file: &str) {
        let path = workspace().join("examples").join(file);
        let applied = Outcome::of(self.cluster.cli().args(["apply", "-f"]).arg(path), "").success();
        applied.unwrap_or_else(|text| panic!("{text}"));
    }

    fn log(&self, run: &str) -> PathBuf {
        self.cluster.scratch().join(format!("{run}.log"))
    }

    /// A kubeconfig with a token of a service account, and a client by it.
    async fn become_account(&self, name: &str) -> (PathBuf, Client) {
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let accounts = self.client.namespaced::<ServiceAccount>(NS);
        let answer =
            accounts.create_subresource(name, "token", &request).await.expect("the account is there");
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let text = std::fs::read_to_string(self.cluster.kubeconfig()).expect("the server wrote it");
        let mut config: Value = serde_yaml::from_str(&text).expect("it is YAML");
        config["users"][0]["user"] = json!({"token": answer["status"]["token"]});
        let file = self.cluster.scratch().join("account.kubeconfig");
        let kubeconfig = write(&file, &serde_yaml::to_string(&config).expect("JSON is YAML"));
        let client = connect(&kubeconfig);
        (kubeconfig, client)
    }

    async fn may_no_more_than_it_does(&self, account: &Client) {
        let refused = |error: ApiError| assert_eq!(error.reason, Reason::Forbidden, "{error}");
        let (secrets, sweeps) = (account.namespaced::<Secret>(NS), account.namespaced::<Sweep>(NS));
        refused(secrets.list(ListOptions::default()).await.expect_err("secrets"));
        refused(sweeps.create(&sweep("wish", &json!(["0"]))).await.expect_err("sweeps of its own"));
        let leases = account.namespaced::<Lease>("kube-system");
        refused(leases.get("clawbernetes-controllers").await.expect_err("the lease of others"));
    }

    /// The whole story. Gives the program as it runs in the end.
    async fn lives_through_a_kill(&self, start: impl Fn(&str) -> Background) -> Background {
        let program = start("first");
        let values = ["a", "b", "c", "d", "bad-1", "bad-2"];
        self.sweeps.create(&sweep("s", &json!(values))).await.expect("a sound sweep");
        await_condition(&self.sweeps, "s", "two values are run", |found: Option<&Sweep>| {
            found.and_then(|sweep| sweep.status.as_ref()).is_some_and(|status| status.active == PARALLELISM)
        })
        .await;
        // A program is killed with `kill -9` when it goes out of scope.
        drop(program);

        let running = self.list().await;
        assert_eq!(running.len(), PARALLELISM, "{running:?}");
        // Meanwhile one pod ends, and the value of the other is given up for another one.
        self.end(&running[0]).await;
        let given_up = value_of(&running[1]);
        let values = values.into_iter().filter(|value| *value != given_up).chain(["late"]);
        let values: Vec<_> = values.collect();
        self.change(&json!({"values": values})).await;

        let program = start("second");
        until_async("every value was run", LATER, || async {
            self.end_what_runs(&given_up).await;
            let sweep = self.sweeps.get("s").await.map_err(|error| error.to_string())?;
            check(is_complete(&sweep), format!("{:?}", sweep.status))
        })
        .await;
        self.was_run_once(&values).await;

        self.change(&json!({"ttlSecondsAfterFinished": 1})).await;
        await_condition::<Sweep>(&self.sweeps, "s", "its time is over", |found| found.is_none()).await;
        program
    }

    /// Plays the machines for what runs, but for the value that is given up: its pod goes unfinished.
    async fn end_what_runs(&self, given_up: &str) {
        let running: Vec<_> =
            self.list().await.into_iter().filter(|pod| phase_of(pod) == "Pending").collect();
        assert!(running.len() <= PARALLELISM, "more at a time than asked for: {running:?}");
        for pod in running.iter().filter(|pod| value_of(pod) != given_up) {
            self.end(pod).await;
        }
    }

    async fn end(&self, pod: &Pod) {
        let phase = if value_of(pod).starts_with("bad") { "Failed" } else { "Succeeded" };
        let patch = json!({"status": {"phase": phase}});
        self.pods.patch(&name_of(pod), Some("status"), PatchKind::Merge, &patch).await.expect("it is there");
    }

    async fn was_run_once(&self, values: &[&str]) {
        let pods = self.list().await;
        let (mut run, mut wanted): (Vec<_>, Vec<_>) =
            (pods.iter().map(value_of).collect(), values.iter().map(ToString::to_string).collect());
        run.sort();
        wanted.sort();
        assert_eq!(run, wanted);
        let sweep = self.sweeps.get("s").await.expect("it is there");
        let status = sweep.status.expect("it says how it went");
        let bad = values.iter().filter(|value| value.starts_with("bad")).count();
        assert_eq!((status.active, status.succeeded, status.failed), (0, values.len() - bad, bad));
        assert_eq!(
            status.conditions[0].message,
            if bad == 0 { String::new() } else { format!("{bad} failed") }
        );
        for pod in pods {
            let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
            let [owner] = owners else { panic!("one owner: {owners:?}") };
            assert_eq!((Some(&owner.uid), owner.controller), (sweep.metadata.uid.as_ref(), Some(true)));
        }
    }

    async fn change(&self, spec: &Value) {
        let patch = json!({"spec": spec});
        self.sweeps.patch("s", None, PatchKind::Merge, &patch).await.expect("a sound patch");
    }

    async fn list(&self) -> Vec<Pod> {
        let options = ListOptions { label_selector: SWEEP.to_owned(), ..ListOptions::default() };
        self.pods.list(options).await.expect("pods can be listed").items
    }

    async fn told_of_its_start(&self) {
        until_async("events tell of it", SOON, || async {
            let all = self.client.namespaced::<Event>(NS).list(ListOptions::default()).await;
            let all = all.map_err(|error| error.to_string())?.items;
            let told = |event: &Event| {
                event.reason.as_deref() == Some("Started")
                    && event.involved_object.kind.as_deref() == Some("Sweep")
            };
            check(all.iter().any(told), format!("{all:?}"))
        })
        .await;
    }
}

fn connect(kubeconfig: &std::path::Path) -> Client {
    let selected = Kubeconfig::read(kubeconfig).and_then(|config| config.select(None));
    Client::connect(&selected.expect("a kubeconfig").endpoint, "story").expect("an endpoint")
}

fn sweep(name: &str, values: &Value) -> Sweep {
    object(json!({
        "metadata": {"name": name},
        "spec": {"image": "train", "values": values, "parallelism": PARALLELISM},
    }))
}

/// As of its newest spec.
fn is_complete(sweep: &Sweep) -> bool {
    let conditions = sweep.status.iter().flat_map(|status| &status.conditions);
    let found = conditions::find(conditions, COMPLETE);
    found.is_some_and(|it| it.status == "True" && it.observed_generation == sweep.metadata.generation)
}

fn name_of(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

fn value_of(pod: &Pod) -> String {
    let env = pod.spec.as_ref().and_then(|spec| spec.containers[0].env.as_ref());
    env.and_then(|env| env[0].value.clone()).expect("a pod runs a value")
}

fn phase_of(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}
