//! One pod: asks [`plan`] what to do, does it, and reports. All I/O for a pod happens here, in tasks
//! of this worker; their outcomes change its [`PodState`], one at a time.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use claw_client::trace::SPANS;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, PodStatus};
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, field::Empty, trace_span};

use super::{
    Shared,
    events::{Events, News, Severity, image_event},
    hook::Hook,
    report::{Pace, When, differs},
    services,
    statics::is_static,
};
use crate::{
    Error,
    clock::Steady,
    pod::{
        Action, Eviction, Moment, Plan, PodState, ProbeKind, Settings, ending, is_image_failure, plan,
        post_start, pre_stop, probes,
    },
    runtime::{
        ExitRecord, ImageNews, Instance, InstanceKey, ProbeTarget, RecoveredPod, Refusal, Sandbox,
        StartFailure, StartRequest,
    },
};

/// Wishes that wait for a worker: it takes them as fast as it can plan, a few per millisecond.
pub const WISHES_MAX: usize = 16;

/// How often volumes from the API are refreshed and the reported status is compared with the server's: the kubelet's figure.
const RESYNC: Duration = Duration::from_secs(60);

/// With nothing to wait for, the worker still looks from time to time.
const IDLE_LOOK: Duration = Duration::from_secs(60);

/// After a pod could not be written down: disks fill up and are emptied again.
const RECORD_RETRY: Duration = Duration::from_secs(2);

/// After it could not be told whether a container runs: a disk that is full, a process that does not go.
const WAIT_RETRY: Duration = Duration::from_secs(1);

/// How often a container that may say what it does is asked.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// A command that comes after the start of a container may take as long as it likes: a year is longer than that.
const POST_START_LIMIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// News of images that wait for a worker: each container has at most two, beside progress, which may be lost.
const IMAGE_NEWS_MAX: usize = 256;

/// What the agent wants of a worker.
pub enum Wish {
    /// This is what the server has.
    Desired(Box<Pod>),
    /// The server no longer has it.
    Removed,
    /// It must go, because the node is short of what it has.
    Evict(Eviction),
}

/// The runs of a pod, for who asks for logs, or for what they use.
#[derive(Clone, Debug)]
pub struct RunView {
    /// Which.
    pub key: InstanceKey,
    /// If it ever was started.
    pub started_at: Option<Timestamp>,
    /// It ended.
    pub over: bool,
}

/// By container.
pub type RunViews = Arc<Mutex<BTreeMap<String, Vec<RunView>>>>;

/// How a task ended.
enum Outcome {
    Remembered,
    NotRemembered(String),
    Waited,
    Prepared(Result<Sandbox, StartFailure>),
    Refused(StartFailure),
    Started(String, Result<Instance, StartFailure>),
    Exited(InstanceKey, ExitRecord),
    Progressed(InstanceKey, Option<String>),
    PostStarted(InstanceKey, Result<(), String>),
    PreStopped(InstanceKey, Result<(), String>),
    Signalled,
    Refreshed,
    Mended(Vec<(InstanceKey, Vec<String>)>),
    Probed(InstanceKey, ProbeKind, Result<(), String>),
    Discarded(InstanceKey),
    Released(Result<(), String>),
    Forgotten,
}

/// With the container that it is about.
type NewsOfImage = (String, ImageNews);

/// Keeps one pod.
pub struct Worker {
    shared: Arc<Shared>,
    /// What is decided goes by this, whatever becomes of the clock.
    steady: Steady,
    wishes: mpsc::Receiver<Wish>,
    views: RunViews,
    state: PodState,
    events: Events,
    tasks: JoinSet<Outcome>,
    image_news: (mpsc::Sender<NewsOfImage>, mpsc::Receiver<NewsOfImage>),
    /// Cancelled when the pod ends: no image need come any more.
    given_up: CancellationToken,
    pace: Pace,
    resync_at: Instant,
    /// Records and logs are gone.
    forgotten: bool,
    forgetting: bool,
    /// The pod was written down, so that what is done for it is found again by the next run of the agent.
    recorded: bool,
    remembering: bool,
    /// Something changed while the pod was being written down.
    remember_again: bool,
}

/// When in its first round a pod is looked after: in the second half, where its uid says. Pods that came together would
/// otherwise all want something of the disk at once, round after round, each with a thread of its own.
fn first_resync(uid: &str) -> Duration {
    let digits = uid.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    RESYNC.mul_f64(0.5 + f64::from(digits.unwrap_or(u32::MAX)) / f64::from(u32::MAX) / 2.0)
}

impl Worker {
    /// For a pod seen for the first time.
    pub fn new(shared: Arc<Shared>, pod: Pod, wishes: mpsc::Receiver<Wish>, views: RunViews) -> Self {
        let steady = shared.config.clock.steady();
        let state = PodState::new(pod, shared.host.ip, steady.now());
        Self::with(shared, steady, state, wishes, views)
    }

    /// For a pod that an earlier run of the agent left.
    pub fn adopt(
        shared: Arc<Shared>,
        recovered: RecoveredPod,
        wishes: mpsc::Receiver<Wish>,
        views: RunViews,
    ) -> Self {
        let steady = shared.config.clock.steady();
        let state = PodState::adopt(recovered, shared.host.ip, steady.now());
        let mut worker = Self::with(shared, steady, state, wishes, views);
        worker.recorded = true;
        // Before others are asked in.
        worker.note_ending(worker.steady.now());
        if worker.state.sandbox.is_some() {
            worker.shared.room.keep(&worker.state.pod);
        }
        let running: Vec<Instance> =
            worker.state.containers.values().filter_map(|container| container.running()).cloned().collect();
        for run in running {
            worker.watch(&run);
        }
        worker
    }

    fn with(
        shared: Arc<Shared>,
        steady: Steady,
        state: PodState,
        wishes: mpsc::Receiver<Wish>,
        views: RunViews,
    ) -> Self {
        let resync_at = Instant::now() + first_resync(state.uid());
        Self {
            shared,
            steady,
            wishes,
            views,
            state,
            events: Events::default(),
            tasks: JoinSet::new(),
            image_news: mpsc::channel(IMAGE_NEWS_MAX),
            given_up: CancellationToken::new(),
            pace: Pace::default(),
            resync_at,
            forgotten: false,
            forgetting: false,
            recorded: false,
            remembering: false,
            remember_again: false,
        }
    }

    /// Runs until the pod is gone or the agent stops; a pod outlives its worker.
    pub async fn run(mut self, cancel: CancellationToken) {
        // Nothing is done for a pod before this, so it must not wait for the first status to be told.
        if !self.recorded {
            self.remember();
        }
        while !self.forgotten {
            let look_again = self.step();
            tokio::select! {
                () = cancel.cancelled() => break,
                wish = self.wishes.recv() => match wish {
                    Some(wish) => self.wish(wish),
                    None => break,
                },
                Some((container, news)) = self.image_news.1.recv() => self.tell_of_image(&container, &news),
                Some(outcome) = self.tasks.join_next() => match outcome {
                    Ok(outcome) => self.apply(outcome),
                    Err(error) => tracing::error!(pod = %self.name(), %error, "a task of the pod failed"),
                },
                () = sleep_until(look_again.min(self.resync_at)) => {}
            }
        }
        self.tasks.shutdown().await;
    }

    fn name(&self) -> String {
        let metadata = &self.state.pod.metadata;
        format!("{}/{}", metadata.namespace.as_deref().unwrap_or(""), metadata.name.as_deref().unwrap_or(""))
    }

    /// Plans, acts, reports; returns when to look again.
    fn step(&mut self) -> Instant {
        let now = self.steady.now();
        // First, because what is reported next makes room for others.
        self.note_ending(now);
        self.state.devices = self.shared.runtime.held(&self.state.pod);
        let plan = self.plan(now);
        let report_at = self.report(plan.status);
        for action in plan.actions {
            self.perform(action, now);
        }
        self.show_runs();
        if Instant::now() >= self.resync_at {
            self.resync();
        }
        let wait = plan
            .look_again
            .map_or(IDLE_LOOK, |at| Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO));
        let look_again = Instant::now() + wait;
        report_at.map_or(look_again, |at| at.min(look_again))
    }

    fn plan(&self, now: Timestamp) -> Plan {
        let settings = Settings { restart_backoff: self.shared.config.restart_backoff };
        plan(&self.state, &settings, Moment { steady: now, wall: self.shared.config.clock.now() })
    }

    /// What an ending pod holds will soon be free.
    fn note_ending(&self, now: Timestamp) {
        if ending(&self.state, now).is_some() {
            self.shared.going.lock().insert(self.state.uid().to_owned());
            self.given_up.cancel();
        }
    }

    fn wish(&mut self, wish: Wish) {
        match wish {
            Wish::Removed => self.state.removed = true,
            Wish::Evict(eviction) => {
                if ending(&self.state, self.steady.now()).is_none() {
                    self.tell(Severity::Warning, "Evicted", eviction.why.clone(), None);
                    self.state.evicted = Some(eviction);
                }
            }
            Wish::Desired(pod) => {
                let changed = is_news(&self.state.pod, &pod);
                self.state.desire(*pod);
                if changed {
                    self.remember();
                }
                self.correct_server();
            }
        }
    }

    /// Hands a status to the outbox if it is news; gives the moment to ask again if it may wait.
    fn report(&mut self, status: PodStatus) -> Option<Instant> {
        if self.state.removed {
            return None;
        }
        let changed = status != self.state.reported;
        let when = self.pace.when(&status, changed, Instant::now());
        self.state.reported = status;
        match when {
            When::Never => None,
            When::At(due) => Some(due),
            When::Now => {
                self.tell_status();
                None
            }
        }
    }

    fn tell_status(&mut self) {
        let Ok(text) = serde_json::to_vec(&self.state.reported) else { return };
        let metadata = &self.state.pod.metadata;
        let (namespace, name) =
            (metadata.namespace.as_deref().unwrap_or(""), metadata.name.as_deref().unwrap_or(""));
        // A mirror that comes later shows that it lacks this.
        if let Some(uid) = self.shared.uid_on_server(&self.state.pod) {
            self.shared.outbox.status(namespace, name, &uid, text);
        }
        self.remember();
    }

    /// What the server holds may lack a report (a restored backup), or hold somebody else's idea.
    fn correct_server(&mut self) {
        let nothing = PodStatus::default();
        let on_server = self.state.pod.status.as_ref().unwrap_or(&nothing);
        let Some(uid) = self.shared.uid_on_server(&self.state.pod) else { return };
        if self.pace.is_level()
            && !self.shared.outbox.is_pending(&uid)
            && differs(on_server, &self.state.reported)
        {
            self.pace.tell_again();
        }
    }

    fn resync(&mut self) {
        self.resync_at = Instant::now() + RESYNC;
        self.correct_server();
        let is_wanted = self.state.sandbox.is_some() && !self.given_up.is_cancelled();
        if is_wanted && !self.state.refreshing {
            self.state.refreshing = true;
            let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&self.state.pod));
            let given_up = self.given_up.clone();
            self.tasks.spawn(async move {
                if let Err(error) = shared.runtime.refresh(&pod, &shared.host, &shared.sources, &given_up).await {
                    tracing::warn!(pod = ?pod.metadata.name, error = %error.full(), "volumes were not refreshed");
                }
                Outcome::Refreshed
            });
            self.mend_devices();
        }
    }

    /// Devices that a running container had and somebody took away.
    fn mend_devices(&mut self) {
        if self.shared.runtime.held(&self.state.pod).values().all(Vec::is_empty) {
            return;
        }
        let running = self.state.containers.values().filter_map(|container| container.running());
        let keys: Vec<InstanceKey> = running.map(|run| run.key.clone()).collect();
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let mut mended = Vec::new();
            for key in keys {
                match shared.runtime.mend_devices(&key).await {
                    Ok(missing) => mended.push((key, missing)),
                    // Nearly always one that is going.
                    Err(error) => tracing::debug!(error = %error.full(), "devices were not looked at"),
                }
            }
            Outcome::Mended(mended)
        });
    }

    /// Writes the pod down with the status it has, for the next run of the agent.
    fn remember(&mut self) {
        if self.forgetting {
            return;
        }
        if self.remembering {
            self.remember_again = true;
            return;
        }
        self.remembering = true;
        let mut pod = Pod::clone(&self.state.pod);
        pod.status = Some(self.state.reported.clone());
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            match shared.runtime.remember(&pod).await {
                Ok(()) => Outcome::Remembered,
                Err(error) => Outcome::NotRemembered(error.full()),
            }
        });
    }

    fn show_runs(&self) {
        let views = self.state.containers.iter().map(|(name, container)| {
            let runs = container.runs.iter().map(|run| RunView {
                key: run.key.clone(),
                started_at: run.started_at,
                over: run.exit.is_some(),
            });
            (name.clone(), runs.collect())
        });
        *self.views.lock() = views.collect();
    }

    fn tell(&mut self, severity: Severity, reason: &str, message: String, container: Option<&str>) {
        let news = News { severity, reason, message, container };
        self.events.tell(
            &self.shared.outbox,
            &self.shared.config.node_name,
            &self.state.pod,
            &news,
            self.shared.config.clock.now(),
        );
    }

    fn perform(&mut self, action: Action, now: Timestamp) {
        match action {
            Action::Prepare => self.prepare(),
            Action::Start { container, attempt, restart_delay } => {
                self.start(&container, attempt, restart_delay)
            }
            Action::Stop { key, grace, why } => {
                let hook = self.hook(&key, pre_stop);
                self.state.stopping(&key, grace, hook.is_some(), now);
                self.tell(Severity::Normal, "Killing", why, Some(&key.container));
                if let Some(hook) = hook {
                    self.pre_stop(key, hook, grace);
                }
            }
            Action::Signal(key) => {
                self.state.signalled(&key, now);
                let signal = self.shared.runtime.stop_signal(&key);
                self.signal(key, signal);
            }
            Action::Kill(key) => {
                if self.state.containers.get(&key.container).is_some_and(|c| c.stopping.is_none()) {
                    let why = format!("Stopping container {}", key.container);
                    self.tell(Severity::Normal, "Killing", why, Some(&key.container));
                }
                self.state.killed(&key, now);
                self.signal(key, libc::SIGKILL);
            }
            Action::Probe { key, kind } => self.probe(key, kind),
            Action::Discard(key) => {
                self.state.discarded(&key);
                let shared = Arc::clone(&self.shared);
                self.tasks.spawn(async move {
                    let _ = shared.runtime.discard(&key).await;
                    Outcome::Discarded(key)
                });
            }
            Action::Release => self.release(),
            Action::Finish => self.finish(),
        }
    }

    /// Makes the sandbox, once the pod is recorded.
    fn prepare(&mut self) {
        if !self.recorded {
            return;
        }
        self.state.preparing = true;
        let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&self.state.pod));
        let going = shared.going.lock().clone();
        let span = trace_span!(target: SPANS, parent: None, "prepare pod", k8s.pod = self.name(), k8s.pod.uid = self.state.uid());
        let prepare = async move {
            match admit(&shared, &pod, &going).await {
                Ok(()) => {
                    Outcome::Prepared(shared.runtime.prepare(&pod, &shared.host, &shared.sources).await)
                }
                Err(Refusal::Later(why)) => Outcome::Prepared(Err(why)),
                Err(Refusal::Never(why)) => Outcome::Refused(why),
            }
        };
        self.tasks.spawn(prepare.instrument(span));
    }

    fn start(&mut self, name: &str, attempt: u32, restart_delay: Duration) {
        let Some(container) = self.state.container_spec(name).cloned() else { return };
        let target = self.state.target(name).map(str::to_owned);
        let Some(sandbox) = self.state.sandbox.clone() else { return };
        self.state.containers.entry(name.to_owned()).or_default().starting = true;
        let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&self.state.pod));
        let span = trace_span!(
            target: SPANS, parent: None, "start container", otel.status_code = Empty, k8s.pod = self.name(),
            k8s.pod.uid = self.state.uid(), container = name, attempt, image = container.image,
        );
        let (news, given_up) = (self.image_news.0.clone(), self.given_up.clone());
        let start = async move {
            let about = container.name.clone();
            let services = given_up.run_until_cancelled(services::variables(&shared, &pod)).await;
            let request = StartRequest {
                pod: &pod,
                container: &container,
                services: &services.unwrap_or_default(),
                target: target.as_deref(),
                attempt,
                restart_delay,
                sandbox: &sandbox,
                host: &shared.host,
                sources: &shared.sources,
                // Nobody waits for a worker that is behind.
                tell: &move |one| drop(news.try_send((about.clone(), one))),
                given_up: &given_up,
            };
            let result = shared.runtime.start(request).await;
            if result.is_err() {
                Span::current().record("otel.status_code", "ERROR");
            }
            Outcome::Started(container.name, result)
        };
        self.tasks.spawn(start.instrument(span));
    }

    /// Learns how a run goes, and how it ends.
    fn watch(&mut self, run: &Instance) {
        self.watch_exit(run.key.clone());
        if self.shared.runtime.tells_progress(run) {
            self.watch_progress(run.key.clone(), String::new());
        }
    }

    /// Until it says something else, or nothing any more.
    fn watch_progress(&mut self, key: InstanceKey, known: String) {
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            loop {
                sleep(PROGRESS_EVERY).await;
                let told = shared.runtime.progress(&key).await;
                if told.as_ref() != Some(&known) {
                    return Outcome::Progressed(key, told);
                }
            }
        });
    }

    fn watch_exit(&mut self, key: InstanceKey) {
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let exit = loop {
                match shared.runtime.wait(&key).await {
                    Ok(exit) => break exit,
                    Err(error @ Error::NotFound(_)) => {
                        let now = shared.config.clock.now();
                        break ExitRecord { message: error.full(), ..ExitRecord::lost(now, now) };
                    }
                    // It may still run: to take it for ended would start another beside it.
                    Err(error) => {
                        tracing::warn!(container = %key.container, error = %error.full(), "how a container is cannot be told");
                        sleep(WAIT_RETRY).await;
                    }
                }
            };
            Outcome::Exited(key, exit)
        });
    }

    fn hook(&self, key: &InstanceKey, pick: fn(&Container) -> Option<&LifecycleHandler>) -> Option<Hook> {
        let spec = self.state.container_spec(&key.container)?;
        let handler = pick(spec)?.clone();
        let ip = self.state.sandbox.as_ref().and_then(|sandbox| sandbox.ip);
        Some(Hook { handler, container: spec.clone(), ip })
    }

    /// The plan has the container asked to end when this comes back, or when the time is up.
    fn pre_stop(&mut self, key: InstanceKey, hook: Hook, grace: Duration) {
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let result = hook.run(&shared, &key, grace).await;
            Outcome::PreStopped(key, result)
        });
    }

    fn signal(&mut self, key: InstanceKey, signal: i32) {
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            if let Err(error) = shared.runtime.signal(&key, signal).await {
                tracing::warn!(container = %key.container, signal, error = %error.full(), "a signal was not delivered");
            }
            Outcome::Signalled
        });
    }

    fn probe(&mut self, key: InstanceKey, kind: ProbeKind) {
        self.state.probing(&key, kind);
        let Some(spec) = self.state.container_spec(&key.container) else { return };
        let Some(probe) = kind.of(spec) else { return };
        let timeout = probes::timeout(probe);
        let target = ProbeTarget::of(probe, spec, self.state.sandbox.as_ref().and_then(|sandbox| sandbox.ip));
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let result = match target {
                Ok(target) => shared.runtime.probe(&key, &target, timeout).await,
                Err(why) => Err(why),
            };
            Outcome::Probed(key, kind, result)
        });
    }

    fn release(&mut self) {
        self.state.releasing = true;
        let (shared, uid) = (Arc::clone(&self.shared), self.state.uid().to_owned());
        self.tasks.spawn(async move {
            Outcome::Released(shared.runtime.release(&uid).await.map_err(|error| error.full()))
        });
    }

    fn finish(&mut self) {
        // Nobody is to be asked about a static pod.
        if self.state.removed || is_static(&self.state.pod) {
            if self.forgetting || self.remembering {
                return;
            }
            self.forgetting = true;
            let (shared, uid) = (Arc::clone(&self.shared), self.state.uid().to_owned());
            self.tasks.spawn(async move {
                if let Err(error) = shared.runtime.forget(&uid).await {
                    tracing::warn!(pod = %uid, error = %error.full(), "the records of a pod were not removed");
                }
                shared.outbox.forget(&uid);
                Outcome::Forgotten
            });
        } else {
            self.state.finished = true;
            let metadata = &self.state.pod.metadata;
            let (namespace, name) =
                (metadata.namespace.as_deref().unwrap_or(""), metadata.name.as_deref().unwrap_or(""));
            self.shared.outbox.terminated(namespace, name, self.state.uid());
        }
    }

    fn apply(&mut self, outcome: Outcome) {
        // In the order in which it happened.
        while let Ok((container, news)) = self.image_news.1.try_recv() {
            self.tell_of_image(&container, &news);
        }
        let now = self.steady.now();
        match outcome {
            Outcome::Signalled => {}
            Outcome::Refreshed => self.state.refreshing = false,
            Outcome::Mended(mended) => self.tell_of_devices(&mended),
            Outcome::Discarded(key) => self.state.discarded(&key),
            Outcome::Remembered => {
                self.recorded = true;
                self.remembered();
            }
            Outcome::NotRemembered(why) => self.not_remembered(&why),
            Outcome::Waited => self.remembered(),
            Outcome::Forgotten => self.forgotten = true,
            Outcome::Prepared(result) => {
                if let Err(failure) = &result {
                    self.tell(Severity::Warning, failure.reason, failure.message.clone(), None);
                }
                self.state.prepared(result, now);
            }
            Outcome::Refused(why) => {
                self.tell(Severity::Warning, why.reason, why.message.clone(), None);
                self.state.refused(why);
            }
            Outcome::Started(name, result) => self.started(&name, result, now),
            Outcome::Exited(key, exit) => self.exited(&key, exit, now),
            // The exit itself tells that it is over.
            Outcome::Progressed(_, None) => {}
            Outcome::Progressed(key, Some(doing)) => {
                self.state.progressed(&key, doing.clone());
                self.watch_progress(key, doing);
            }
            Outcome::PostStarted(key, result) => {
                self.tell_of_hook(&key, "PostStart", &result);
                self.state.post_started(&key, result.is_ok());
            }
            Outcome::PreStopped(key, result) => {
                self.tell_of_hook(&key, "PreStop", &result);
                self.state.pre_stopped(&key);
            }
            Outcome::Probed(key, kind, result) => {
                if let Err(why) = &result {
                    let message = format!("{} probe failed: {why}", kind.name());
                    self.tell(Severity::Warning, "Unhealthy", message, Some(&key.container));
                }
                self.state.probed(&key, kind, result.is_ok(), now);
            }
            Outcome::Released(result) => {
                if let Err(why) = &result {
                    tracing::warn!(pod = %self.name(), why, "the pod's resources were not freed; trying again");
                    self.tell(Severity::Warning, "FailedKillPod", format!("error killing pod: {why}"), None);
                }
                if result.is_ok() {
                    self.shared.room.free(self.state.uid());
                }
                self.state.released(result.is_ok(), now);
            }
        }
    }

    fn remembered(&mut self) {
        self.remembering = false;
        if std::mem::take(&mut self.remember_again) {
            self.remember();
        }
    }

    fn not_remembered(&mut self, why: &str) {
        let message = format!("the pod cannot be recorded on the node, trying again: {why}");
        tracing::error!(pod = %self.name(), message);
        self.tell(Severity::Warning, "FailedRecord", message, None);
        self.remember_again = !self.state.removed;
        self.tasks.spawn(async {
            tokio::time::sleep(RECORD_RETRY).await;
            Outcome::Waited
        });
    }

    fn started(&mut self, name: &str, result: Result<Instance, StartFailure>, now: Timestamp) {
        match &result {
            Ok(run) => match &run.exit {
                None => {
                    self.tell(Severity::Normal, "Created", format!("Created container: {name}"), Some(name));
                    self.tell(Severity::Normal, "Started", format!("Started container {name}"), Some(name));
                }
                Some(exit) => {
                    self.tell(Severity::Warning, "Failed", format!("Error: {}", exit.message), Some(name));
                }
            },
            // A pull that was given up is no news.
            Err(_) if self.given_up.is_cancelled() => {}
            Err(failure) if is_image_failure(failure.reason) => self.tell_of_no_image(name, failure),
            Err(failure) => {
                self.tell(Severity::Warning, "Failed", format!("Error: {}", failure.message), Some(name));
            }
        }
        let run = result.as_ref().ok().filter(|run| run.exit.is_none()).cloned();
        self.state.started(name, result, self.shared.config.restart_backoff, now);
        if let Some(run) = run {
            self.watch(&run);
            self.post_start(run.key);
        }
    }

    fn tell_of_image(&mut self, container: &str, news: &ImageNews) {
        let image = self.state.container_spec(container).and_then(|spec| spec.image.clone());
        let image = image.unwrap_or_default();
        let (severity, reason, message) = image_event(&image, news);
        self.tell(severity, reason, message, Some(container));
    }

    /// In the order of the kubelet: why, what it is called, and that it will be tried again.
    fn tell_of_no_image(&mut self, container: &str, failure: &StartFailure) {
        let image = self.state.container_spec(container).and_then(|spec| spec.image.clone());
        let image = image.unwrap_or_default();
        let (reason, why) = match failure.reason {
            "ErrImagePull" => ("Failed", format!("Failed to pull image \"{image}\": {}", failure.message)),
            "InvalidImageName" => ("InspectFailed", failure.message.clone()),
            reason => (reason, failure.message.clone()),
        };
        self.tell(Severity::Warning, reason, why, Some(container));
        self.tell(Severity::Warning, "Failed", format!("Error: {}", failure.reason), Some(container));
        if failure.reason == "ErrImagePull" {
            self.tell(
                Severity::Normal,
                "BackOff",
                format!("Back-off pulling image \"{image}\""),
                Some(container),
            );
            self.tell(Severity::Warning, "Failed", "Error: ImagePullBackOff".to_owned(), Some(container));
        }
    }

    fn post_start(&mut self, key: InstanceKey) {
        let Some(hook) = self.hook(&key, post_start) else { return };
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let result = hook.run(&shared, &key, POST_START_LIMIT).await;
            Outcome::PostStarted(key, result)
        });
    }

    /// A hook that its container did not live to see the end of is no news: its exit is.
    fn tell_of_devices(&mut self, mended: &[(InstanceKey, Vec<String>)]) {
        for (key, missing) in mended.iter().filter(|(_, missing)| !missing.is_empty()) {
            let message = format!(
                "Devices were taken from the running container, and are given back: {}",
                missing.join(", ")
            );
            self.tell(Severity::Warning, "DevicesMended", message, Some(&key.container));
        }
    }

    fn tell_of_hook(&mut self, key: &InstanceKey, name: &str, result: &Result<(), String>) {
        let known = self.state.containers.get(&key.container);
        let runs = known.and_then(|known| known.running()).is_some_and(|run| run.key == *key);
        if let (Err(why), true) = (result, runs) {
            let (reason, message) = (format!("Failed{name}Hook"), format!("{name}Hook failed: {why}"));
            self.tell(Severity::Warning, &reason, message, Some(&key.container));
        }
    }

    fn exited(&mut self, key: &InstanceKey, exit: ExitRecord, now: Timestamp) {
        self.state.exited(key, exit, now);
        let next = self.plan(now).status;
        let statuses = next.container_statuses.iter().chain(&next.init_container_statuses).flatten();
        let waits = statuses.into_iter().any(|status| {
            status.name == key.container
                && status
                    .state
                    .as_ref()
                    .and_then(|state| state.waiting.as_ref())
                    .is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
        });
        if waits {
            let message = format!(
                "Back-off restarting failed container {} in pod {}_{}({})",
                key.container,
                self.state.pod.metadata.name.as_deref().unwrap_or(""),
                self.state.pod.metadata.namespace.as_deref().unwrap_or(""),
                self.state.uid()
            );
            self.tell(Severity::Warning, "BackOff", message, Some(&key.container));
        }
    }
}

/// Gives a pod its place on the node. Those of files come whatever there is: nobody else could take them.
async fn admit(shared: &Shared, pod: &Pod, going: &HashSet<String>) -> Result<(), Refusal> {
    if is_static(pod) {
        shared.room.keep(pod);
    } else {
        shared.room.take(pod, &shared.allocatable(), going)?;
    }
    let admitted = shared.runtime.admit(pod, going, &shared.sources).await;
    if matches!(admitted, Err(Refusal::Never(_))) {
        shared.room.free(pod.metadata.uid.as_deref().unwrap_or_default());
    }
    admitted
}

/// Whether a newer object says anything that must be written down for the next run of the agent. Every report comes back
/// as a newer object that does not.
fn is_news(known: &Pod, newer: &Pod) -> bool {
    let (old, new) = (&known.metadata, &newer.metadata);
    old.labels != new.labels
        || old.annotations != new.annotations
        || old.generation != new.generation
        || old.deletion_timestamp != new.deletion_timestamp
        || old.deletion_grace_period_seconds != new.deletion_grace_period_seconds
        || known.spec != newer.spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_looked_after_at_different_moments_of_a_round() {
        let first = |uid: &str| first_resync(uid);
        assert_eq!(first("00000000-cafe"), RESYNC / 2);
        assert_eq!(first("ffffffff-cafe"), RESYNC);
        assert!((RESYNC / 2..RESYNC).contains(&first("80000000-cafe")));
        // What is no uid of the server's has no moment of its own.
        assert_eq!((first("web"), first("")), (RESYNC, RESYNC));
    }
}
