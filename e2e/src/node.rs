//! Nodes as processes of their own, joined with a token as an administrator would do it.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Cluster, binary::clawbernetes, cluster::NEVER_SHORT, http::Http, kubectl::Outcome, wait};

/// One `clawbernetes node`.
#[derive(Debug)]
pub struct Node {
    /// Name of its Node object.
    pub name: String,
    /// What comes before `clawbernetes`, for one that runs elsewhere.
    prefix: Vec<String>,
    /// Everything after `clawbernetes`.
    args: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// Makes a token, runs the very command that `token create` prints, and waits until the node is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn join(cluster: &Cluster, name: &str, more: &[&str]) -> Self {
        Self::join_from(cluster, name, Vec::new(), more)
    }

    /// The same, as a command after `prefix`.
    ///
    /// # Panics
    /// As [`Node::join`].
    #[must_use]
    pub fn join_from(cluster: &Cluster, name: &str, prefix: Vec<String>, more: &[&str]) -> Self {
        let printed = Outcome::of(cluster.cli().args(["token", "create"]), "").success();
        let printed = printed.unwrap_or_else(|text| panic!("{text}"));
        let mut words = printed.split_whitespace().map(str::to_owned);
        assert_eq!(words.next().as_deref(), Some("clawbernetes"), "a command to copy: {printed}");
        let folder = cluster.scratch().join(name);
        let mut args: Vec<_> = words.collect();
        args.extend(["--node-name", name, "--data-dir"].map(str::to_owned));
        args.push(folder.to_string_lossy().into_owned());
        args.extend(NEVER_SHORT.map(str::to_owned));
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        let log = cluster.scratch().join(format!("{name}.log"));
        let mut node = Self { name: name.to_owned(), prefix, args, log, child: None };
        node.start();
        node
    }

    /// Starts it, after [`Self::kill`], from what it keeps on disk.
    ///
    /// # Panics
    /// When it runs.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("a log file");
        let program = clawbernetes().into();
        let mut words = self.prefix.iter().map(OsString::from).chain([program]);
        let mut command = Command::new(words.next().expect("at least the program"));
        command.args(words).args(&self.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("clawbernetes starts"));
    }

    /// Starts it once more beside the one that runs, which it refuses.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn refused_again(&self) -> String {
        let mut command = Command::new("timeout");
        let outcome = Outcome::of(command.arg("60").arg(clawbernetes()).args(&self.args), "");
        assert!(![0, 124].contains(&outcome.code), "a second agent runs beside the first: {outcome:?}");
        outcome.stderr
    }

    /// `kill -9`. Its containers run on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// Asks it to end, as a service manager does, and waits until it has. Its containers run on.
    ///
    /// # Panics
    /// When it does not run, or does not end well.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let mut child = self.child.take().expect("the node runs");
        let status = wait::until("the node stops", wait::SOON, || {
            child.try_wait().expect("a child can be waited for").ok_or("it runs")
        });
        assert!(status.success(), "{}: {status}; {}", self.name, tail(&self.log));
    }

    /// The process's id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> Pid {
        let child = self.child.as_ref().expect("the node runs");
        Pid::from_raw(child.id().try_into().expect("process ids are positive i32"))
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("a child can be signalled");
    }

    /// Waits until the server says that it is ready, or is not.
    ///
    /// # Panics
    /// When it does not get there.
    pub async fn becomes(&self, http: &Http, ready: &str) {
        let path = format!("/api/v1/nodes/{}", self.name);
        wait::until_async(&format!("node {} is Ready={ready}", self.name), wait::SOON, || async {
            let node = http.get(&path).await.map_err(|error| format!("{error}; {}", tail(&self.log)))?;
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let seen =
                conditions.iter().find(|condition| condition["type"] == "Ready").cloned().unwrap_or_default();
            wait::check(seen["status"] == ready, seen)
        })
        .await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the log of node {} ends with:\n{}\n---", self.name, tail(&self.log));
        }
        if let Some(child) = &mut self.child {
            let pid = Pid::from_raw(child.id().try_into().expect("process ids are positive i32"));
            let _ = kill(pid, Signal::SIGCONT);
            let _ = kill(pid, Signal::SIGTERM);
            crate::cluster::end(child);
        }
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
