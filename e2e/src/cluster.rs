//! One cluster of the real binary, as a child process: start, kill, restart, stop.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{binary::clawbernetes, host, kubectl::Kubectl, node::Node, wait};

/// A debug build on a busy two-core machine, first start (keys are made) included.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// Stopping `up --rm` lets every container end by its own grace period first.
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// Stories share a machine, which others fill: none of them is to lose pods to that. What a story says itself comes later
/// and counts.
pub(crate) const NEVER_SHORT: [&str; 6] =
    ["--evict-below", "memory=0", "--evict-below", "disk=0", "--evict-below", "pids=0"];

/// How many lines of the server's log a failed story shows.
const LOG_TAIL_LINES: usize = 80;

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// `up`, `server`.
    pub role: &'static str,
    /// More arguments.
    pub args: Vec<String>,
    /// Address to listen on; port 0 takes a free one.
    pub listen: String,
}

impl Options {
    /// A one-machine cluster with `nodes` nodes, the first of them real, the others hollow. It leaves nothing
    /// behind when stopped.
    #[must_use]
    pub fn up(nodes: usize) -> Self {
        Self::role("up").with(&["--rm", "--nodes", &nodes.to_string()])
    }

    /// The API server alone: needs no root.
    #[must_use]
    pub fn server() -> Self {
        Self::role("server")
    }

    fn role(role: &'static str) -> Self {
        Self { role, args: Vec::new(), listen: "127.0.0.1:0".to_owned() }
    }

    /// With more arguments.
    #[must_use]
    pub fn with(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }
}

/// A running cluster. Dropping it stops it, and fails the story when something is left behind.
#[derive(Debug)]
pub struct Cluster {
    scratch: TempDir,
    options: Options,
    running: Option<Running>,
    url: String,
    /// Joined machines. They outlive the server's stop, because `--rm` needs their agents to take pods down.
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// Lines of standard output so far.
    said: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    /// Starts it and waits until it says that it is ready.
    ///
    /// # Panics
    /// With the end of its log, when it does not become ready.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let scratch = tempfile::Builder::new().prefix("claw-e2e-").tempdir().expect("a scratch folder");
        let mut cluster = Self { scratch, options, running: None, url: String::new(), nodes: Vec::new() };
        cluster.restart();
        cluster
    }

    /// Starts it again on the same data and the same address, after [`Cluster::kill`] or [`Cluster::stop`].
    ///
    /// # Panics
    /// As [`Cluster::start`]; and when it is running.
    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "the cluster is running");
        let mut child = self.command().spawn().expect("clawbernetes starts");
        let (first, said) = follow(child.stdout.take().expect("stdout is piped"));
        self.running = Some(Running { child, said });
        let line = first.recv_timeout(READY_LIMIT);
        let Some(url) = line.as_ref().ok().and_then(|line| line.strip_prefix("ready ")) else {
            panic!("not ready: {line:?}; log:\n{}", self.log_tail());
        };
        self.url = url.to_owned();
        // A second start must be found where clients left it.
        self.options.listen = url.trim_start_matches("https://").to_owned();
    }

    fn command(&self) -> Command {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).expect("a log file");
        let mut command = Command::new(clawbernetes());
        command
            .arg(self.options.role)
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--listen", &self.options.listen])
            .args(if self.options.role == "up" { &NEVER_SHORT[..] } else { &[] })
            .args(&self.options.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        command
    }

    /// Joins a machine; see [`Node::join`].
    pub fn join_node(&mut self, name: &str, more: &[&str]) {
        let node = Node::join(self, name, more);
        self.nodes.push(node);
    }

    /// Joins a machine whose agent is started after `prefix`; see [`Node::join_from`].
    pub fn join_node_from(&mut self, name: &str, prefix: Vec<String>, more: &[&str]) {
        let node = Node::join_from(self, name, prefix, more);
        self.nodes.push(node);
    }

    /// A machine that has joined.
    ///
    /// # Panics
    /// When none of that name has.
    pub fn node(&mut self, name: &str) -> &mut Node {
        let node = self.nodes.iter_mut().find(|node| node.name == name);
        node.unwrap_or_else(|| panic!("no node {name} has joined"))
    }

    /// `https://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn address(&self) -> &str {
        &self.options.listen
    }

    /// Where its data lies.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// A folder for the story's own files, removed with the cluster.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("admin.kubeconfig")
    }

    /// Every kubectl at hand, against this cluster.
    #[must_use]
    pub fn kubectls(&self) -> Vec<Kubectl> {
        Kubectl::every(&self.kubeconfig(), self.scratch())
    }

    /// All that reaches into pods: every kubectl at hand, and our own command line.
    #[must_use]
    pub fn reaching(&self) -> Vec<Kubectl> {
        let mut all = self.kubectls();
        all.push(Kubectl::ours(&self.kubeconfig(), self.scratch()));
        all
    }

    /// The newest kubectl at hand, against this cluster.
    ///
    /// # Panics
    /// When there is none; stories ask [`crate::need`] first.
    #[must_use]
    pub fn kubectl(&self) -> Kubectl {
        self.kubectls().pop().expect("a kubectl is installed")
    }

    /// Our own command line against this cluster.
    #[must_use]
    pub fn cli(&self) -> Command {
        let mut command = Command::new(clawbernetes());
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.scratch());
        command
    }

    /// The process's id.
    ///
    /// # Panics
    /// When it is not running.
    #[must_use]
    pub fn pid(&self) -> Pid {
        let running = self.running.as_ref().expect("the cluster is running");
        Pid::from_raw(running.child.id().try_into().expect("process ids are positive i32"))
    }

    /// Everything it has printed on standard output since it was last started.
    #[must_use]
    pub fn stdout(&self) -> Vec<String> {
        let lines = self.running.as_ref().map(|running| Arc::clone(&running.said));
        lines.map(|lines| lines.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
    }

    /// `kill -9`: nothing in the process gets to say good-bye.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self) {
        let mut running = self.running.take().expect("the cluster is running");
        running.child.kill().expect("a child can be killed");
        running.child.wait().expect("a child can be waited for");
    }

    /// Asks it to end, as Ctrl-C does, and gives its exit code.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        let mut running = self.running.take().expect("the cluster is running");
        let status = wait::until("the cluster stops", STOP_LIMIT, || {
            running.child.try_wait().expect("a child can be waited for").ok_or("it runs")
        });
        status.code().unwrap_or(-1)
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is not running.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("a child can be signalled");
    }

    /// All that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("stderr.log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut ended = Ok(());
        if let Some(mut running) = self.running.take() {
            let pid = Pid::from_raw(running.child.id().try_into().expect("process ids are positive i32"));
            let _ = kill(pid, Signal::SIGCONT);
            let _ = kill(pid, Signal::SIGTERM);
            ended = end(&mut running.child).then_some(()).ok_or_else(|| "it did not stop in time".to_owned());
        }
        self.nodes.clear();
        let folder = self.scratch.path();
        // A story that has failed already may leave what it likes, and nobody waits for it to go.
        let patience = if thread::panicking() { Duration::ZERO } else { wait::SOON };
        let tidy = ended.and(wait::within(patience, || host::is_clean(folder)));
        host::sweep(folder);
        if thread::panicking() {
            eprintln!("--- the cluster's log ends with:\n{}\n---", self.log_tail());
        } else if let Err(left) = tidy {
            panic!("the cluster was not taken down: {left}; log:\n{}", self.log_tail());
        }
    }
}

/// Waits for a process that was asked to end, and kills it when it does not. Whether it ended by itself.
pub(crate) fn end(child: &mut Child) -> bool {
    let start = std::time::Instant::now();
    while start.elapsed() < STOP_LIMIT {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

/// Reads standard output in the background: the first line is sent, all lines are kept.
fn follow(stdout: ChildStdout) -> (mpsc::Receiver<String>, Arc<Mutex<Vec<String>>>) {
    let (sender, first) = mpsc::channel();
    let said = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&said);
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
            // Nobody waits for later lines.
            let _ = sender.send(line);
        }
    });
    (first, said)
}

/// Writes a file of the story.
///
/// # Panics
/// When the folder is not writable.
pub fn write(path: &Path, text: &str) -> PathBuf {
    use std::io::Write as _;
    let mut file = File::create(path).expect("the scratch folder is writable");
    file.write_all(text.as_bytes()).expect("the scratch folder is writable");
    path.to_owned()
}
