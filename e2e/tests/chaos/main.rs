//! Fifty pods run while whatever keeps them is killed at random, by a seed that is printed: the agent, the starter, shims,
//! the first processes of containers, the server with its controllers. No container runs twice, no exit code and no line
//! is lost, no GPU is held by two, restarts are counted as they were, and in the end everything runs as the server says.
//!
//! `CHAOS_KILLS=500` for as many kills (`make chaos`), `CHAOS_SEED=n` for the choices of an earlier run.

mod machine;
mod pods;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::{self, Write as _},
    path::PathBuf,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claw_e2e::{
    Cluster, Options,
    dice::Dice,
    http::Http,
    need::{self, Need},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    machine::{Bundle, Key, Logs, Machine, Sampler},
    pods::Pods,
    told::{End, Told},
};

/// Of `make test`.
const KILLS: u64 = 50;

/// The longest rest between two kills. The shortest is none: the next hits what still recovers from the last.
const REST_MS_MAX: u64 = 400;

/// Until everything is well after the last kill. A container that was killed ten times waits five minutes for its next run.
const HEAL_LIMIT: Duration = Duration::from_secs(900);

/// A pod that answers is replaced after so many of a hundred kills, so that addresses and GPUs change hands meanwhile.
const REPLACED_PERCENT: u64 = 20;

/// And so often one starts that ends by itself.
const MORTAL_PERCENT: u64 = 30;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Agent,
    Starter,
    Server,
    Shim,
    Init,
}

/// As often as they are listed.
const TARGETS: [Target; 20] = {
    use Target::{Agent, Init, Server, Shim, Starter};
    [
        Agent, Agent, Agent, Agent, Agent, Starter, Server, Server, Server, Shim, Shim, Shim, Shim, Shim,
        Init, Init, Init, Init, Init, Init,
    ]
};

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_nothing_runs_twice_and_nothing_is_lost() {
    let story = "whatever_is_killed_nothing_runs_twice_and_nothing_is_lost";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let seed = from_environment("CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let kills = from_environment("CHAOS_KILLS").unwrap_or(KILLS);
    // Not `println!`: the test harness keeps to itself what a passing test prints.
    let _ = writeln!(io::stderr(), "chaos: CHAOS_SEED={seed} CHAOS_KILLS={kills}");
    let mut chaos = Chaos::start(seed).await;
    for number in 0..kills {
        chaos.strike(number).await;
    }
    chaos.heals().await;
    chaos.is_as_the_server_says().await;
    chaos.every_kill_was_told();
    chaos.every_log_can_be_read().await;
    chaos.sampler.stop();
}

fn from_environment<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

/// A kill that hit a run.
#[derive(Clone, Debug)]
struct Kill {
    target: Target,
    /// The API's id of the run.
    id: String,
}

/// The cluster, and what is known of it.
struct Chaos {
    cluster: Cluster,
    http: Http,
    dice: Dice,
    machine: Machine,
    sampler: Sampler,
    logs: Logs,
    pods: Pods,
    told: Arc<Mutex<Told>>,
    /// What was killed of which run.
    killed: BTreeMap<Key, Kill>,
    /// Runs that may have come to nothing because the starter went.
    starters_killed: u64,
}

impl Chaos {
    async fn start(seed: u64) -> Self {
        let mut cluster = Cluster::start(Options::up(0));
        let recording = pods::eight_gpus(&cluster);
        cluster.join_node("worker", &["--gpu-replay", &recording.to_string_lossy()]);
        let http = Http::admin(&cluster);
        cluster.node("worker").becomes(&http, "True").await;
        let told = Told::follow(&http).await;
        let machine = Machine::of(&cluster.scratch().join("worker/node"));
        let sampler = Sampler::start(machine.clone());
        let mut pods = Pods::default();
        pods.create_all(&http).await;
        let chaos = Self {
            cluster,
            http,
            dice: Dice::new(seed),
            machine,
            sampler,
            logs: Logs::default(),
            pods,
            told,
            killed: BTreeMap::new(),
            starters_killed: 0,
        };
        chaos.all_run().await;
        chaos
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One kill, and what may happen beside it.
    async fn strike(&mut self, number: u64) {
        if self.dice.percent(REPLACED_PERCENT) {
            self.pods.replace_one(&self.http, &self.dice).await;
        }
        if self.dice.percent(MORTAL_PERCENT) {
            self.pods.start_mortal(&self.http, &self.dice).await;
        }
        match *self.dice.pick(&TARGETS) {
            Target::Agent => {
                self.cluster.node("worker").kill();
                sleep(Duration::from_millis(self.dice.below(REST_MS_MAX))).await;
                self.cluster.node("worker").start();
            }
            Target::Server => {
                self.cluster.kill();
                self.cluster.restart();
            }
            Target::Starter => {
                if let Some(starter) = self.machine.starter() {
                    let _ = kill(starter, Signal::SIGKILL);
                    self.starters_killed += 1;
                }
            }
            target => self.kill_one(target),
        }
        sleep(Duration::from_millis(self.dice.below(REST_MS_MAX))).await;
        self.holds().unwrap_or_else(|wrong| panic!("after kill {number}: {wrong}"));
    }

    /// Kills a shim or the first process of a container. What became of the pod's last run must have been told, or a later
    /// one would rightly take its place.
    fn kill_one(&mut self, target: Target) {
        let open: Vec<Bundle> =
            self.machine.bundles().into_iter().filter(|bundle| self.may_be_killed(bundle)).collect();
        if open.is_empty() {
            return;
        }
        let victim = self.dice.pick(&open);
        let pid = match target {
            Target::Shim => victim.shim_pid,
            _ => victim.init_pid,
        };
        if victim.is(target == Target::Shim) && kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok() {
            self.killed.insert(victim.key.clone(), Kill { target, id: victim.id.clone() });
        }
    }

    fn may_be_killed(&self, bundle: &Bundle) -> bool {
        let told = self.told();
        let mut earlier = self.killed.iter().filter(|(key, _)| key.pod_uid == bundle.key.pod_uid);
        bundle.exit.is_none()
            && !self.killed.contains_key(&bundle.key)
            && earlier.all(|(_, kill)| told.end_of(&kill.id).is_some())
    }

    /// What holds at every moment.
    fn holds(&mut self) -> Result<(), String> {
        self.sampler.complaint()?;
        self.told().complaint()?;
        for bundle in self.machine.bundles() {
            self.logs.go_on(&bundle, self.pods.is_going(&bundle.key.pod_uid))?;
            if let Some(end) = &bundle.exit {
                self.is_true(&bundle.key, end)?;
            }
        }
        Ok(())
    }

    /// Whether a run may have ended so.
    fn is_true(&self, key: &Key, end: &End) -> Result<(), String> {
        let killed = self.killed.get(key).map(|kill| kill.target);
        let own = self.pods.code_of(&key.pod_uid);
        let may = match (killed, end.reason.as_str()) {
            (Some(Target::Shim), "ContainerStatusUnknown") => end.code == 137,
            (Some(Target::Init), "Error") if end.code == 137 => end.signal == Some(9),
            // Nobody started it.
            (None, "StartError") => self.starters_killed > 0 && end.code == 128,
            // It ended by itself, perhaps just before it was killed; or was asked to.
            (_, "Error" | "Completed") => own == Some(end.code) || self.pods.is_going(&key.pod_uid),
            _ => self.pods.is_going(&key.pod_uid),
        };
        wait::check(may, format!("{key:?} ended as {end:?}, but was killed: {killed:?}"))
    }

    async fn all_run(&self) {
        wait::until_async("all pods run", HEAL_LIMIT, || async {
            let list = self.http.get(pods::PATH).await.map_err(|error| error.to_string())?;
            self.all_run_in(&list)
        })
        .await;
    }

    fn all_run_in(&self, list: &Value) -> Result<(), String> {
        let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let running: BTreeSet<&str> =
            items.iter().filter(|pod| told::is_ready(pod)).filter_map(pods::name_of).collect();
        let missing: Vec<_> = self.pods.lasting().filter(|name| !running.contains(name)).collect();
        let unfinished: Vec<_> = self.pods.mortal().filter(|name| !ended(items, name)).collect();
        wait::check(
            missing.is_empty() && unfinished.is_empty() && items.len() == self.pods.len(),
            format!("not ready: {missing:?}, not over: {unfinished:?}, {} pods", items.len()),
        )
    }

    async fn heals(&mut self) {
        self.cluster.node("worker").becomes(&self.http, "True").await;
        self.all_run().await;
        self.holds().unwrap_or_else(|wrong| panic!("in the end: {wrong}"));
    }

    /// `kubectl get` and the machine agree on what runs, as which run of it, with which end before.
    async fn is_as_the_server_says(&self) {
        let list = self.http.get(pods::PATH).await.expect("lists");
        let items = list["items"].as_array().expect("a list");
        let shown = self.cluster.kubectl().ok(&["get", "pods", "--no-headers"]);
        let shown: BTreeMap<&str, Vec<&str>> = shown
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .map(|words| (words[0], words))
            .collect();
        let mut runs = BTreeSet::new();
        for pod in items {
            let (name, uid) = (pods::name_of(pod).expect("a name"), pods::uid_of(pod));
            let status = &pod["status"]["containerStatuses"][0];
            let (restarts, id) = (status["restartCount"].as_u64().expect("a count"), told::id_of(status));
            let columns = &shown[name];
            assert_eq!(columns[3], restarts.to_string(), "{columns:?}");
            if self.pods.code_of(&uid).is_none() {
                assert_eq!(columns[1..3], ["1/1", "Running"], "{columns:?}");
                runs.insert((uid.clone(), id));
            }
            let killed = self.killed.keys().filter(|key| key.pod_uid == uid).count() as u64;
            let counted = killed..=killed + self.starters_killed;
            let mortal = self.pods.code_of(&uid).is_some();
            assert!(
                if mortal { restarts == 0 } else { counted.contains(&restarts) },
                "{name} was killed {killed} times, and is said to have been started again {restarts} times"
            );
            self.is_recorded_so(&uid, status);
        }
        // A run is told as started a moment before it is what it is to be.
        wait::until("what is said to run runs on the machine, and nothing else", wait::SOON, || {
            let there: BTreeSet<_> = self.machine.running().into_keys().collect();
            wait::check(there == runs, format!("{there:?}, and not {runs:?}"))
        });
    }

    /// What the shim recorded is what is told.
    fn is_recorded_so(&self, uid: &str, status: &Value) {
        let told = told::ends_of(status);
        for bundle in self.machine.bundles_of(uid) {
            // The run before the last two is dropped by and by.
            let is_shown =
                u64::from(bundle.key.attempt) + 1 >= status["restartCount"].as_u64().expect("a count");
            if let Some(end) = bundle.exit.as_ref().filter(|_| is_shown) {
                assert_eq!(told.get(&bundle.id), Some(end), "{:?} in {status}", bundle.key);
            }
        }
    }

    /// No exit code is lost: each that was brought about has been told, as what it was.
    fn every_kill_was_told(&self) {
        let told = self.told();
        told.complaint().expect("what was told is in order");
        for (key, kill) in self.killed.iter().filter(|(key, _)| !self.pods.is_going(&key.pod_uid)) {
            let end = told.end_of(&kill.id);
            let end = end.unwrap_or_else(|| panic!("nobody was told how {key:?} ended: {kill:?}"));
            self.is_true(key, end).expect("what was told is true");
        }
    }

    /// Also over the API, of this run and the one before.
    async fn every_log_can_be_read(&self) {
        let list = self.http.get(pods::PATH).await.expect("lists");
        for pod in list["items"].as_array().expect("a list") {
            let (name, uid) = (pods::name_of(pod).expect("a name"), pods::uid_of(pod));
            let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().expect("a count");
            let previous: &[bool] = if restarts > 0 { &[false, true] } else { &[false] };
            for previous in previous {
                let path = format!("{}/{name}/log?previous={previous}", pods::PATH);
                let answer = self.http.ask(http::Method::GET, &path, &[], "").await.expect("answers");
                let text = answer.text();
                assert_eq!(answer.code, 200, "{path}: {text}");
                let count = machine::numbered(name, &text).unwrap_or_else(|wrong| panic!("{path}: {wrong}"));
                let end = End::of(&pod["status"]["containerStatuses"][0]["state"]["terminated"]);
                if self.pods.code_of(&uid).is_some_and(|code| end.is_some_and(|end| end.code == code)) {
                    assert_eq!(count, pods::MORTAL_LINES, "{path}: all that it wrote");
                }
            }
        }
    }
}

fn ended(items: &[Value], name: &str) -> bool {
    let pod = items.iter().find(|pod| pods::name_of(pod) == Some(name));
    pod.is_some_and(|pod| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")))
}

/// Where the machine keeps what.
fn data_of(cluster: &Cluster, file: &str) -> PathBuf {
    cluster.scratch().join(file)
}
