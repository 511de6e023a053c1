//! What somebody does who runs a server: save it, restore it, set it up.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use claw_e2e::{Cluster, Options, binary::clawbernetes, http::Http, kubectl::Outcome, wait};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Writers at a time.
const WRITERS: usize = 4;

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(180);

/// Objects by name, with their revisions.
type Objects = BTreeMap<String, u64>;

fn revision_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a revision")
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().expect("a name").to_owned()
}

/// The objects of these stories that a server has.
async fn listed(http: &Http) -> Objects {
    let list = http.get(MAPS).await.expect("a list");
    let items = list["items"].as_array().expect("items").iter();
    items.map(|item| (name_of(item), revision_of(item))).filter(|(name, _)| name.starts_with("w-")).collect()
}

/// Writers that go on until they are stopped, and what they were told is stored.
struct Load {
    acknowledged: Arc<Mutex<Objects>>,
    stop: Arc<AtomicBool>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(http: &Http) -> Self {
        let (acknowledged, stop) = (Arc::new(Mutex::new(Objects::new())), Arc::new(AtomicBool::new(false)));
        let writers = (0..WRITERS).map(|writer| {
            let (http, acknowledged, stop) = (http.clone(), acknowledged.clone(), stop.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("w-{writer}-{number}");
                    let object = json!({"metadata": {"name": name}, "data": {"text": "x".repeat(2000)}});
                    let made = http.post(MAPS, &object).await.expect("a write is taken");
                    acknowledged.lock().expect("no panic").insert(name, revision_of(&made));
                }
            })
        });
        let writers = writers.collect();
        Self { acknowledged, stop, writers }
    }

    fn so_far(&self) -> Objects {
        self.acknowledged.lock().expect("no panic").clone()
    }

    async fn grown_by(&self, more: usize) -> Objects {
        let before = self.so_far().len();
        wait::until_async("writes", LIMIT, async || {
            let now = self.so_far();
            wait::check(now.len() >= before + more, now.len()).map(|()| now)
        })
        .await
    }

    async fn end(self) -> Objects {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.expect("a writer ends well");
        }
        self.acknowledged.lock().expect("no panic").clone()
    }
}

fn backup(cluster: &Cluster, file: &Path) -> Outcome {
    Outcome::of(cluster.cli().args(["server", "backup"]).arg(file), "")
}

fn restore(file: &Path, folder: &Path) -> Outcome {
    let mut command = Command::new(clawbernetes());
    Outcome::of(command.args(["server", "restore"]).arg(file).arg("--data-dir").arg(folder), "")
}

/// The number after a word in what was said.
fn number_after(said: &str, word: &str) -> u64 {
    let (_, rest) = said.split_once(word).unwrap_or_else(|| panic!("no {word:?} in {said}"));
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_one_moment_and_a_restored_server_goes_on_from_it() {
    let mut cluster = Cluster::start(Options::server());
    let http = Http::admin(&cluster);
    let load = Load::start(&http);
    let before = load.grown_by(100).await;
    let file = cluster.scratch().join("backup");
    let saved = tokio::task::block_in_place(|| backup(&cluster, &file));
    assert_eq!(saved.code, 0, "{}", saved.stderr);
    load.grown_by(20).await;
    let all = load.end().await;
    let revision = number_after(&saved.stderr, "at revision");
    let after = listed(&http).await;
    assert_eq!(after, all);

    assert_eq!(cluster.stop(), 0);
    let old = cluster.scratch().join("old");
    fs::rename(cluster.data_dir(), &old).expect("the folder moves");
    let restored = restore(&file, &cluster.data_dir());
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    keep_keys(&old, &cluster.data_dir());
    cluster.restart();
    // The same credentials: it is the same cluster.
    let http = Http::admin(&cluster);
    let found = listed(&http).await;
    let expected: Objects = all.clone().into_iter().filter(|(_, written)| *written <= revision).collect();
    assert_eq!(found, expected, "all up to one revision, and nothing after it");
    assert!(before.iter().all(|object| found.get_key_value(object.0) == Some(object)));
    assert!(found.len() < all.len(), "writes went on while it was saved");

    // Whoever followed the old server is told to list again, wherever it was.
    let newest = all.values().max().copied().expect("writes");
    for seen in [revision, newest] {
        let mut watch = http.watch(&format!("{MAPS}?watch=1&resourceVersion={seen}")).await.expect("a watch");
        let event = watch.next().await.expect("an event").expect("an event");
        assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)), "{event}");
    }
    let made = http.post(MAPS, &json!({"metadata": {"name": "new"}})).await.expect("a write is taken");
    assert!(revision_of(&made) > newest, "no revision is given twice");
}

/// What a backup leaves out.
fn keep_keys(old: &Path, new: &Path) {
    fs::copy(old.join("admin.token"), new.join("admin.token")).expect("a token");
    let copied = Command::new("cp").arg("-a").arg(old.join("pki")).arg(new).status();
    assert!(copied.expect("cp runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_and_an_occupied_folder_are_refused() {
    let cluster = Cluster::start(Options::server());
    let (file, folder) = (cluster.scratch().join("backup"), cluster.scratch().join("new"));
    assert_eq!(backup(&cluster, &file).code, 0);
    let again = backup(&cluster, &file);
    assert!(again.code == 1 && again.stderr.contains("is there already"), "{}", again.stderr);
    let whole = fs::read(&file).expect("the file");
    let mut harmed = whole.clone();
    harmed[whole.len() / 2] ^= 1;
    for (bytes, why) in [
        (&harmed[..], "the backup is damaged"),
        (&whole[..whole.len() - 1], "it ends too early"),
        (b"apiVersion: v1\n", "this is no backup"),
    ] {
        let bad = cluster.scratch().join("bad");
        fs::write(&bad, bytes).expect("a file");
        let refused = restore(&bad, &folder);
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
        assert!(!folder.exists(), "nothing is written");
    }
    let refused = restore(&file, &cluster.data_dir());
    assert!(refused.code == 1 && refused.stderr.contains("is not empty"), "{}", refused.stderr);
    assert_eq!(restore(&file, &folder).code, 0);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let scratch = tempfile::tempdir().expect("a folder");
    let at = |name: &str| scratch.path().join(name);
    let config = at("config.yaml");
    fs::write(&config, format!("data-dir: {}\nlisten: 127.0.0.1:0\n", at("file").display())).expect("a file");
    for (flag, env, expected) in [(true, true, "flag"), (false, true, "env"), (false, false, "file")] {
        let mut command = Command::new(clawbernetes());
        command.arg("server").arg("--config").arg(&config);
        if flag {
            command.arg("--data-dir").arg(at("flag"));
        }
        if env {
            command.env("CLAWBERNETES_DATA_DIR", at("env"));
        }
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("clawbernetes starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
        assert!(line.starts_with("ready https://127.0.0.1:") && !line.contains(":6443"), "{line}");
        assert!(at(expected).join("admin.kubeconfig").exists(), "{expected}");
        fs::remove_dir_all(at(expected)).expect("a folder goes");
        assert!(["flag", "env", "file"].iter().all(|other| !at(other).exists()), "only {expected}");
    }
    fs::write(&config, "lisen: 127.0.0.1:0\n").expect("a file");
    let refused = Outcome::of(Command::new(clawbernetes()).arg("server").arg("--config").arg(&config), "");
    assert!(refused.code == 2 && refused.stderr.contains("unknown field \"lisen\""), "{}", refused.stderr);
    let help = Outcome::of(Command::new(clawbernetes()).args(["server", "--help"]), "");
    assert!(help.stdout.contains("--config <FILE>") && help.stdout.contains("CLAWBERNETES_DATA_DIR"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_is_found_in_the_log_by_its_name() {
    let cluster = Cluster::start(Options::server().with(&["--shutdown-delay", "3600"]));
    let http = Http::anonymous(&cluster);
    cluster.signal(nix::sys::signal::Signal::SIGTERM);
    wait::until_async("a server that is not ready", LIMIT, async || {
        let headers = [("audit-id", "look-for-me")];
        let answer = http.ask(http::Method::GET, "/readyz", &headers, "").await.map_err(|e| e.to_string())?;
        wait::check(answer.code == 500, answer.code)
    })
    .await;
    // It is logged behind the answer.
    let line = wait::until("the log tells of it", LIMIT, || {
        let log = cluster.log();
        let line = log.lines().find(|line| line.contains("a request failed")).map(str::to_owned);
        line.ok_or(log)
    });
    assert!(line.contains("look-for-me") && line.contains("/readyz"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_a_whole_cluster_tell_what_its_controllers_do() {
    let cluster = Cluster::start(Options::up(1).with(&["--hollow"]));
    let http = Http::admin(&cluster);
    wait::until_async("runs of a controller", LIMIT, async || {
        let answer = http.ask(http::Method::GET, "/metrics", &[], "").await.map_err(|e| e.to_string())?;
        let text = answer.text();
        let has_run = |name: &str| {
            let count = format!("workqueue_work_duration_seconds_count{{name=\"{name}\"}} ");
            let mut counts = text.lines().filter_map(|line| line.strip_prefix(&count));
            counts.any(|runs| runs.parse::<u64>().is_ok_and(|runs| runs > 0))
        };
        let all = [
            "workqueue_depth{name=\"garbage\"}",
            "workqueue_retries_total{name=\"namespace\"}",
            "workqueue_adds_total{name=\"scheduler\"}",
            "workqueue_queue_duration_seconds_bucket{name=\"scheduler\",le=\"0.001\"}",
        ];
        let have_run = ["clusterrole-aggregation", "pod-gc", "event-ttl"].into_iter().all(has_run);
        wait::check(have_run && all.iter().all(|name| text.contains(name)), text)
    })
    .await;
}

/// What controllers in a process of their own tell of themselves.
struct Told {
    process: Child,
    address: String,
}

impl Told {
    fn start(cluster: &Cluster) -> Self {
        let mut command = cluster.cli();
        command.args(["controllers", "--metrics-listen", "127.0.0.1:0"]);
        let mut process = command.stderr(Stdio::piped()).spawn().expect("clawbernetes starts");
        let stderr = process.stderr.take().expect("it is a pipe");
        let (tell, told) = mpsc::channel();
        // Goes on reading for as long as the process writes, which would wait otherwise.
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("figures at http://") {
                    let _ = tell.send(rest.split('/').next().unwrap_or_default().to_owned());
                }
            }
        });
        let address = told.recv_timeout(LIMIT).expect("it says where its figures are");
        Self { process, address }
    }

    /// Code and body of an answer.
    fn get(&self, path: &str) -> Result<(String, String), String> {
        let ask = || {
            let mut stream = TcpStream::connect(&self.address)?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        };
        let answer = ask().map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        Ok((head.split(' ').nth(1).unwrap_or_default().to_owned(), body.to_owned()))
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn controllers_in_a_process_of_their_own_tell_their_figures_and_whether_all_have_begun() {
    let cluster = Cluster::start(Options::server());
    let told = Told::start(&cluster);
    assert_eq!(told.get("/healthz").expect("an answer"), ("200".to_owned(), "ok".to_owned()));
    wait::until("all have begun and run", LIMIT, || {
        let (code, body) = told.get("/readyz")?;
        wait::check(code == "200", body)?;
        let figures = told.get("/metrics")?.1;
        let has_run = figures.contains("workqueue_work_duration_seconds_count{name=\"service-accounts\"}");
        wait::check(has_run && figures.contains("process_cpu_seconds_total"), figures)
    });
}
