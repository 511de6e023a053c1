//! The worker as it is in life: a process, an order in a file, a report in another, an exit code.
//!
//! The process is this test program once more: it carries out the order that a variable names, in the test that is named first here.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use claw_compute::worker;
use claw_graph::order::{Reason, Report, State};
use claw_graph::qualification::{Check, Level};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const ORDER: &str = "WORKER_ORDER";
const REPORT: &str = "WORKER_REPORT";
const PANIC: &str = "WORKER_PANICS";
/// What a shell says in place of a device, if the worker is to look at one.
const DEVICE: &str = "WORKER_DEVICE_SAYS";

/// A slow machine with other things to do.
const LIMIT: Duration = Duration::from_secs(300);

/// Not a test of its own: the worker of the others.
#[test]
fn a_worker_if_one_is_asked_for() {
    let (Some(order), Some(report)) = (std::env::var_os(ORDER), std::env::var_os(REPORT)) else { return };
    let report = PathBuf::from(report);
    if let Some(script) = std::env::var_os(DEVICE) {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script);
        let _ = worker::look(shell, "cuda:0", Level::Quick, &report);
        unreachable!("the worker ends the process");
    }
    if std::env::var_os(PANIC).is_some() {
        let report = report.clone();
        std::thread::spawn(move || {
            until("a run", || read(&report).filter(|report| report.doing.starts_with("run")));
            panic!("the device was lost");
        });
    }
    let _ = worker::main(Path::new(&order), &report, None, None);
    unreachable!("the worker ends the process");
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < LIMIT, "{what}: not within {} s", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A report, once there is one.
fn read(path: &Path) -> Option<Report> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

struct Worker {
    folder: TempDir,
    child: Child,
}

impl Worker {
    fn start(order: &Value, variables: &[(&str, &str)]) -> Self {
        Self::start_by(Command::new(std::env::current_exe().unwrap()), order, variables)
    }

    /// By a command that ends as this program with the arguments that are added.
    fn start_by(mut command: Command, order: &Value, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("order"), order.to_string()).unwrap();
        command
            .args(["--exact", "a_worker_if_one_is_asked_for", "--nocapture"])
            .env(ORDER, folder.path().join("order"))
            .env(REPORT, folder.path().join("report"))
            .envs(variables.iter().copied())
            .stdout(std::fs::File::create(folder.path().join("log")).unwrap())
            .stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), folder }
    }

    fn report(&self) -> Option<Report> {
        read(&self.folder.path().join("report"))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn until_it_runs(&self) {
        until("a run", || self.report().filter(|report| report.doing.starts_with("run")));
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn end(&mut self) -> ExitStatus {
        until("its end", || self.child.try_wait().unwrap())
    }

    /// Its end, and why.
    fn failure(&mut self) -> (Option<i32>, Reason, String) {
        let code = self.end().code();
        let report = self.report().expect("a report");
        assert_eq!(report.state, State::Failed, "{}", self.log());
        let failure = report.failure.expect("a failure has a reason");
        (code, failure.reason, failure.message)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn order(size: usize, runs: u32) -> Value {
    json!({
        "inputs": [{"name": "x", "dtype": "f32", "shape": [size, size], "source": {"random": {"seed": 1}}}],
        "operations": [
            {"name": "product", "op": "MatMul", "inputs": ["x", "x"]},
            {"name": "rows", "op": "ReduceSum", "inputs": ["product"]},
            {"name": "sum", "op": "ReduceSum", "inputs": ["rows"]},
        ],
        "outputs": [{"value": "product"}, {"value": "sum"}],
        "backends": ["cpu"], "runs": runs, "warmups": 1, "runTimeoutSeconds": 600,
    })
}

/// A run of it takes minutes on any machine.
fn endless() -> Value {
    let mut order = order(4_096, 1_000_000);
    let before = |number: usize| if number == 0 { "x".to_owned() } else { format!("p{}", number - 1) };
    let product = |number: usize| json!({"name": format!("p{number}"), "op": "MatMul", "inputs": ["x", before(number)]});
    order["operations"] = (0..500).map(product).collect();
    (order["warmups"], order["outputs"]) = (json!(0), json!([{"value": "p499"}]));
    order
}

#[test]
fn an_order_that_is_carried_out_ends_with_zero_and_a_whole_report() {
    let mut worker = Worker::start(&order(64, 25), &[]);
    assert_eq!(worker.end().code(), Some(0), "{}", worker.log());
    let report = worker.report().unwrap();
    assert_eq!((report.state, report.runs, report.outputs.len()), (State::Complete, 25, 2));
    assert_eq!(report.device.unwrap().id, "cpu");
    let log = worker.log();
    for line in ["device cpu: ", "input x: ", "run 1 of 25: ", "run 20 of 25: ", "output sum: ", "complete"] {
        assert!(log.contains(line), "{line:?} is not in {log}");
    }
    assert!(!log.contains("run 21 of 25"), "some runs are told, not all: {log}");
}

#[test]
fn an_order_that_is_none_is_refused_with_the_place_of_the_mistake() {
    let mut unknown = order(4, 1);
    unknown["operations"][0]["op"] = json!("Multiply");
    let mut none = order(4, 1);
    none["outputs"] = json!([]);
    let mut folder = order(4, 1);
    folder["outputs"][0]["file"] = json!("/proc/x.npy");
    for (order, words) in [
        (json!({"inputs": 5}), "expected a sequence at line 1"),
        (unknown, "operations[0].op"),
        (none, "outputs"),
        (order(4, 0), "runs"),
        (folder, "/proc/x.npy"),
    ] {
        let (code, reason, message) = Worker::start(&order, &[]).failure();
        assert_eq!((code, reason), (Some(1), Reason::BadOrder), "{message}");
        assert!(message.contains(words), "{message} does not say {words}");
    }
}

#[test]
fn a_disk_that_takes_no_more_is_no_fault_of_the_order() {
    let story = "a_disk_that_takes_no_more_is_no_fault_of_the_order";
    // Mounts of a namespace of its own, which anybody may have, go with it.
    let within_mounts = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-ec", script, "sh"]);
        command
    };
    if !within_mounts("mount -t tmpfs none /mnt").output().is_ok_and(|done| done.status.success()) {
        let lacks = "the right to mount in a namespace of its own";
        assert!(
            std::env::var_os("CLAW_TEST_NEEDS").is_none_or(|value| value != "all"),
            "{story} must run here, but lacks {lacks}"
        );
        let _ = writeln!(std::io::stderr(), "SKIPPED {story}: lacks {lacks}");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let result = place.path().join("deep/product.npy");
    for (mount, doing, reason, words) in [
        // Room for a folder and a name, and not for 64 KiB.
        ("mount -t tmpfs -o size=16k none $P", "writing", Reason::OutputFailed, "No space left on device"),
        (
            "mount -t tmpfs -o nr_inodes=1 none $P",
            "starting",
            Reason::OutputFailed,
            "No space left on device",
        ),
        ("mount -t tmpfs -o ro none $P", "starting", Reason::OutputFailed, "Read-only file system"),
        (
            "mount -t tmpfs none $P; mount --bind $P $P; mount -o remount,bind,ro $P",
            "starting",
            Reason::BadOrder,
            "Read-only file system",
        ),
        ("mount -t tmpfs none $P; touch $P/deep", "starting", Reason::BadOrder, "exists"),
    ] {
        let mut order = order(128, 1);
        order["outputs"][0]["file"] = json!(result);
        let program = std::env::current_exe().unwrap();
        let script = format!("{mount}; exec {} \"$@\"", program.display());
        let variables = [("P", place.path().to_str().unwrap())];
        let mut worker = Worker::start_by(within_mounts(&script), &order, &variables);
        let (code, found, message) = worker.failure();
        assert_eq!((code, found), (Some(1), reason), "{mount}: {message}");
        assert!(message.contains(words) && message.contains("output \"product\""), "{mount}: {message}");
        assert!(worker.report().unwrap().doing.starts_with(doing), "{mount}: {:?}", worker.report());
    }
}

#[test]
fn without_a_device_every_way_to_one_is_told() {
    let mut order = order(4, 1);
    order["backends"] = json!(["vulkan"]);
    // A loader that finds no driver.
    let nothing = [("VK_DRIVER_FILES", "/nowhere.json"), ("VK_ICD_FILENAMES", "/nowhere.json")];
    let (code, reason, message) = Worker::start(&order, &nothing).failure();
    assert_eq!((code, reason), (Some(1), Reason::NoDevice), "{message}");
    assert!(message.contains("vulkan:0: "), "{message}");
    order["backends"] = json!(["vulkan", "cpu"]);
    let mut worker = Worker::start(&order, &nothing);
    assert_eq!(worker.end().code(), Some(0), "{}", worker.log());
    assert_eq!(worker.report().unwrap().device.unwrap().id, "cpu", "the next that works is taken");
}

#[test]
fn a_run_that_takes_too_long_ends_the_process() {
    let mut order = endless();
    order["runTimeoutSeconds"] = json!(1);
    let (code, reason, message) = Worker::start(&order, &[]).failure();
    assert_eq!((code, reason), (Some(1), Reason::Hung), "{message}");
    assert!(message.contains("run 1 of 1000000"), "{message}");
}

#[test]
fn who_asks_a_worker_to_stop_is_heard_in_the_middle_of_a_run() {
    let mut worker = Worker::start(&endless(), &[]);
    worker.until_it_runs();
    worker.signal("-TERM");
    let (code, reason, _) = worker.failure();
    assert_eq!((code, reason), (Some(143), Reason::Stopped));
}

#[test]
fn a_panic_on_any_thread_is_a_failure_in_its_words() {
    let mut worker = Worker::start(&endless(), &[(PANIC, "1")]);
    let (code, reason, message) = worker.failure();
    assert_eq!((code, reason), (Some(1), Reason::DeviceFailed));
    assert!(message.contains("the device was lost"), "{message}");
}

#[test]
fn a_worker_that_is_killed_leaves_a_report_of_what_it_did() {
    let mut worker = Worker::start(&endless(), &[]);
    worker.until_it_runs();
    worker.signal("-KILL");
    assert_eq!(worker.end().code(), None);
    let report = worker.report().expect("a whole document");
    assert_eq!((report.state, report.doing.as_str()), (State::Running, "run 1 of 1000000"));
    assert_eq!(report.device.unwrap().id, "cpu");
}

#[test]
fn more_memory_than_the_machine_has_is_a_word_and_no_end_without_one() {
    let mut order = order(4, 1);
    order["inputs"][0]["shape"] = json!([1u64 << 19, 1u64 << 19]);
    let (code, reason, message) = Worker::start(&order, &[]).failure();
    assert_eq!((code, reason), (Some(1), Reason::OutOfMemory), "{message}");
}

/// A worker that looks at a device, which is this script.
fn looks(script: &str) -> Worker {
    Worker::start(&json!({}), &[(DEVICE, script)])
}

#[test]
fn a_look_ends_well_whatever_it_found_and_says_what() {
    let doing = r#"echo '{"Doing":["Memory","memory: ones"]}'"#;
    let figures = json!({"copyBytesPerSecond": 5e11});
    let finding = json!({"check": "Copy", "passed": true, "words": "500 GB/s", "figures": figures});
    let found = json!({"Found": {
        "device": {"id": "cuda:0", "model": "H100"}, "level": "Quick", "findings": [finding], "seconds": 1.0,
    }});
    let mut worker = looks(&format!("{doing}; echo '{found}'; exec sleep 1000"));
    assert_eq!(worker.end().code(), Some(0), "nobody waits for the end of a device: {}", worker.log());
    let report = worker.report().unwrap();
    assert_eq!((report.state, report.device.unwrap().model.as_str()), (State::Complete, "H100"));
    let found = report.qualification.expect("it was looked at");
    assert!(found.passed() && found.findings[0].figures.len() == 1, "{found:?}");

    let mut worker = looks(&format!("{doing}; echo Xid 79 >&2; kill -SEGV $$"));
    assert_eq!(worker.end().code(), Some(0), "{}", worker.log());
    let found = worker.report().unwrap().qualification.expect("a crash is a finding");
    let objection = found.objection().expect("it speaks against the device");
    assert_eq!(objection.check, Check::Memory);
    assert!(objection.words.ends_with("memory: ones: Xid 79"), "{}", objection.words);
}

#[test]
fn a_look_says_what_it_does_and_stops_when_it_is_told_to() {
    let mut worker = looks(r#"echo '{"Doing":["Memory","memory: ones"]}'; exec sleep 1000"#);
    until("its first word", || worker.report().filter(|report| report.doing == "memory: ones"));
    worker.signal("-TERM");
    let (code, reason, _) = worker.failure();
    assert_eq!((code, reason), (Some(143), Reason::Stopped));
    assert_eq!(worker.report().unwrap().qualification, None, "which says nothing of the device");
}
