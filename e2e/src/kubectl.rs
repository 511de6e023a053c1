//! Real kubectl, of every version at hand.

use std::{
    ffi::OsStr,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    binary::{clawbernetes, workspace},
    pty::Terminal,
};

/// The name of our own command line.
const OURS: &str = "clawbernetes";

/// How much of what a background command has said a failed story shows.
const OUTPUT_TAIL_BYTES: usize = 4096;

/// One kubectl against one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    /// For messages: `kubectl 1.20`.
    pub name: String,
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

/// What a command did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Runs a command to its end, with `input` on its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn of(command: &mut Command, input: &str) -> Self {
        let line = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        // A command that exits without reading its input closes the pipe: that is its right.
        let _ = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("a child can be waited for");
        Self {
            command: line,
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output of a command that must have succeeded.
    ///
    /// # Errors
    /// Everything it said, when it did not.
    pub fn success(self) -> Result<String, String> {
        if self.code == 0 {
            return Ok(self.stdout);
        }
        Err(format!("{} exited with {}: {}{}", self.command, self.code, self.stdout, self.stderr))
    }
}

impl Kubectl {
    /// The programs on this machine with their versions, oldest first.
    #[must_use]
    pub fn installed() -> Vec<(String, PathBuf)> {
        let candidates = [
            workspace().join(".tools/kubectl"),
            PathBuf::from("/usr/bin/kubectl"),
            PathBuf::from("/usr/local/bin/kubectl"),
        ];
        let mut found: Vec<(String, PathBuf)> = Vec::new();
        for program in candidates {
            if let Some(version) = version_of(&program)
                && !found.iter().any(|(other, _)| *other == version)
            {
                found.push((version, program));
            }
        }
        found
    }

    /// Every kubectl on this machine, against the cluster of `kubeconfig`; caches and home go under `scratch`.
    #[must_use]
    pub fn every(kubeconfig: &Path, scratch: &Path) -> Vec<Self> {
        Self::installed()
            .into_iter()
            .map(|(version, program)| {
                let home = scratch.join(format!("kubectl-{version}"));
                std::fs::create_dir_all(&home).expect("the scratch folder is writable");
                Self { name: format!("kubectl {version}"), program, kubeconfig: kubeconfig.to_owned(), home }
            })
            .collect()
    }

    /// Our own command line in its place: much of it takes the same words.
    #[must_use]
    pub fn ours(kubeconfig: &Path, scratch: &Path) -> Self {
        let program = clawbernetes().to_owned();
        Self { name: OURS.to_owned(), program, kubeconfig: kubeconfig.to_owned(), home: scratch.to_owned() }
    }

    /// Whether it is our own.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.name == OURS
    }

    /// A command line, ready to run.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        // Discovery is cached by host and port, and ports are used again: every cluster gets its own cache.
        command
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy");
        command
    }

    /// Runs to the end, whatever it is.
    pub fn run(&self, args: &[&str]) -> Outcome {
        self.run_with(args, "")
    }

    /// Runs to the end with something on its standard input, whatever it is.
    pub fn run_with(&self, args: &[&str], input: &str) -> Outcome {
        Outcome::of(&mut self.command(args), input)
    }

    /// Starts it on a terminal.
    #[must_use]
    pub fn on_terminal(&self, args: &[&str], columns: u16, rows: u16) -> Terminal {
        Terminal::start(&mut self.command(args), columns, rows)
    }

    /// Runs to the end with bytes on its standard input; gives its exit code, the bytes on its standard output, and what
    /// it said on standard error.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn pipe(&self, args: &[&str], input: Vec<u8>) -> (i32, Vec<u8>, String) {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // Beside reading: both directions may be full.
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("a child can be waited for");
        let _ = writer.join().expect("writing does not panic");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), output.stdout, said)
    }

    /// Runs and must succeed; gives its standard output.
    ///
    /// # Panics
    /// With everything the command said, when it fails.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.run(args).success().unwrap_or_else(|text| panic!("{}: {text}", self.name))
    }

    /// Runs with something on its standard input, and must succeed.
    ///
    /// # Panics
    /// With everything the command said, when it fails.
    #[track_caller]
    pub fn ok_with(&self, args: &[&str], input: &str) -> String {
        Outcome::of(&mut self.command(args), input)
            .success()
            .unwrap_or_else(|text| panic!("{}: {text}", self.name))
    }

    /// Runs and must fail; gives what it said on standard error.
    ///
    /// # Panics
    /// When it succeeds.
    #[track_caller]
    pub fn fails(&self, args: &[&str], input: &str) -> String {
        let outcome = Outcome::of(&mut self.command(args), input);
        assert_ne!(
            outcome.code, 0,
            "{}: {} should fail, said: {}",
            self.name, outcome.command, outcome.stdout
        );
        outcome.stderr
    }

    /// Asks for a kind that is not served. A client that still remembers it asks the server, and says it otherwise.
    ///
    /// # Panics
    /// When the kind is served, or the words help nobody.
    #[track_caller]
    pub fn finds_no_kind(&self, name: &str) {
        let said = self.fails(&["get", name], "");
        let either =
            ["the server doesn't have a resource type", "the server could not find the requested resource"];
        assert!(either.iter().any(|words| said.contains(words)), "{}: {said}", self.name);
    }

    /// Starts a command that goes on, such as `get -w` or `logs -f`; its output goes to `file`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&self, args: &[&str], file: &Path) -> Background {
        Background::start(&mut self.command(args), file)
    }
}

/// A command that runs beside the story; killed with it.
#[derive(Debug)]
pub struct Background {
    child: Child,
    file: PathBuf,
}

impl Background {
    /// Starts a command; its output goes to `file`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command, file: &Path) -> Self {
        Self::reading(command, Stdio::null(), file)
    }

    /// The same, with something to read.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn reading(command: &mut Command, input: impl Into<Stdio>, file: &Path) -> Self {
        let out = File::create(file).expect("the scratch folder is writable");
        let err = out.try_clone().expect("a file handle can be doubled");
        let line = format!("{command:?}");
        let child = command.stdin(input).stdout(out).stderr(err).spawn();
        let child = child.unwrap_or_else(|error| panic!("{line}: {error}"));
        Self { child, file: file.to_owned() }
    }

    /// What it has said so far.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// Its exit code, once it has ended.
    ///
    /// # Panics
    /// Never for a child of ours.
    pub fn exit_code(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("a child can be waited for");
        status.map(|status| status.code().unwrap_or(-1))
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended and was asked for its exit code.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("process ids are positive i32"));
        kill(pid, signal).expect("a child can be signalled");
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let (file, said) = (self.file.display(), self.output());
            let tail = said.len().saturating_sub(OUTPUT_TAIL_BYTES);
            eprintln!("--- {file} ends with:\n{}\n---", String::from_utf8_lossy(&said.as_bytes()[tail..]));
        }
    }
}

/// `1.20` from `kubectl version --client -o json`.
fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program).args(["version", "--client", "-o", "json"]).output().ok()?;
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let part = |name: &str| Some(version["clientVersion"][name].as_str()?.trim_end_matches('+').to_owned());
    Some(format!("{}.{}", part("major")?, part("minor")?))
}
