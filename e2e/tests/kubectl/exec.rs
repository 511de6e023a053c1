//! Real kubectl, and our own command line, reach into real containers: commands, terminals, files, by every protocol that
//! these speak.

use std::{
    fs::{self, File},
    time::Duration,
};

use claw_e2e::{
    Cluster, Kubectl, Options, host,
    http::Http,
    kubectl::Background,
    need::{self, Need},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Who has hung up, and whose last words nobody reads, is noticed before a check as of all connections would show it: that takes
/// two, 20 s apart.
const HANG_UP_LIMIT: Duration = Duration::from_secs(30);

/// More than any buffer on the way holds.
const MANY_BYTES: usize = 10 << 20;

/// Bytes that show when some are missing, doubled or in another order.
fn many_bytes() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..MANY_BYTES).map(|_| next()).collect()
}

fn start(cluster: &Cluster, manifest: &str, pods: &[&str]) {
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], manifest);
    for pod in pods {
        kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=600s"]);
    }
}

#[test]
fn kubectl_runs_commands_in_containers() {
    if !need::all("kubectl_runs_commands_in_containers", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    start(&cluster, PODS, &["plain", "somebody"]);
    let bytes = many_bytes();
    for kubectl in &cluster.reaching() {
        eprintln!("--- {}", kubectl.name);
        outputs_and_codes(kubectl);
        assert_eq!(
            kubectl.ok(&["exec", "somebody", "-c", "main", "--", "id"]),
            "uid=1000 gid=3000 groups=2000\n",
            "a command has the rights of the container, and no more"
        );
        let settings = kubectl.ok(&["exec", "somebody", "-c", "main", "--", "sh", "-c", "pwd; env"]);
        assert!(settings.starts_with("/tmp\n") && settings.contains("\nWORD=sesame\n"), "{settings}");

        let (code, back, said) = kubectl.pipe(&["exec", "-i", "plain", "--", "cat"], bytes.clone());
        assert_eq!((code, back.len()), (0, bytes.len()), "{said}");
        assert!(back == bytes, "what is piped through comes back as it was");

        refusals(kubectl);
    }
}

fn outputs_and_codes(kubectl: &Kubectl) {
    let both = kubectl.run(&["exec", "plain", "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((both.stdout.as_str(), both.stderr.as_str(), both.code), ("out\n", "err\n", 0));
    let three = kubectl.run(&["exec", "plain", "--", "sh", "-c", "echo last; exit 3"]);
    assert_eq!((three.code, three.stdout.as_str()), (3, "last\n"), "{}", three.stderr);
    assert!(three.stderr.contains("command terminated with exit code 3"), "{}", three.stderr);
    // What a command leaves behind it does not hold up its end.
    assert_eq!(kubectl.ok(&["exec", "plain", "--", "sh", "-c", "sleep 3600 & echo done"]), "done\n");
}

fn refusals(kubectl: &Kubectl) {
    let refused = |args: &[&str], why: &str| {
        let said = kubectl.fails(args, "");
        assert!(said.contains(why), "{}: {args:?}: {said}", kubectl.name);
    };
    refused(&["exec", "plain", "--", "there-is-no-such-program"], "there-is-no-such-program");
    refused(&["exec", "plain", "-c", "nobody", "--", "true"], "container nobody");
    refused(&["exec", "nowhere", "--", "true"], "pods \"nowhere\" not found");
    if !kubectl.is_ours() {
        refused(&["--as=stranger", "exec", "plain", "--", "true"], "forbidden");
    }
}

#[test]
fn kubectl_gives_a_terminal() {
    if !need::all("kubectl_gives_a_terminal", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    start(&cluster, PODS, &["plain"]);
    for kubectl in &cluster.reaching() {
        eprintln!("--- {}", kubectl.name);
        let mut terminal = kubectl.on_terminal(&["exec", "-it", "plain", "--", "sh"], 100, 40);
        terminal.shows("$ ");
        terminal.types("tty\r");
        terminal.shows("/dev/pts/");
        has_size(&mut terminal, "40 100");
        terminal.resize(132, 50);
        has_size(&mut terminal, "50 132");
        terminal.types("exit 3\r");
        assert_eq!(terminal.exit_code(), 3, "{}", terminal.screen());

        // A terminal turns a key into a signal.
        let mut terminal = kubectl.on_terminal(&["exec", "-it", "plain", "--", "sleep", "3600"], 80, 24);
        wait::until("the command runs", wait::LATER, || sleepers(&cluster, 1));
        terminal.types("\u{3}");
        assert_eq!(terminal.exit_code(), 130, "{}", terminal.screen());
    }
}

/// The size arrives beside what is typed, so it is asked for until it is there.
fn has_size(terminal: &mut claw_e2e::pty::Terminal, size: &str) {
    wait::until("the terminal has its size", wait::LATER, || {
        terminal.types("stty size\r");
        let screen = terminal.screen();
        wait::check(screen.contains(size), screen)
    });
}

/// Whether so many commands sleep in containers.
fn sleepers(cluster: &Cluster, count: usize) -> Result<(), String> {
    let found: Vec<_> = host::processes(&cluster.data_dir())
        .into_iter()
        .filter(|(_, line)| line.trim() == "sleep 3600")
        .collect();
    wait::check(found.len() == count, format!("{found:?}"))
}

#[test]
fn kubectl_copies_files_both_ways() {
    if !need::all("kubectl_copies_files_both_ways", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    start(&cluster, PODS, &["plain"]);
    let bytes = many_bytes();
    for kubectl in &cluster.reaching() {
        eprintln!("--- {}", kubectl.name);
        let folder = cluster.scratch().join(kubectl.name.replace(' ', "-")).join("tree");
        fs::create_dir_all(folder.join("inner")).unwrap();
        fs::write(folder.join("many"), &bytes).unwrap();
        fs::write(folder.join("inner/few"), "few\n").unwrap();
        let back = folder.with_file_name("back");
        let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let inside = format!("plain:/tmp/{}", kubectl.name.replace(' ', "-"));
        kubectl.ok(&["cp", &path(&folder), &inside]);
        kubectl.ok(&["cp", &inside, &path(&back)]);
        assert!(fs::read(back.join("many")).unwrap() == bytes, "a file comes back as it went");
        assert_eq!(fs::read_to_string(back.join("inner/few")).unwrap(), "few\n");
    }
}

#[test]
fn a_command_whose_user_is_gone_is_ended() {
    if !need::all("a_command_whose_user_is_gone_is_ended", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    start(&cluster, PODS, &["plain"]);
    let much = cluster.scratch().join("much");
    fs::write(&much, many_bytes()).unwrap();
    for kubectl in &cluster.reaching() {
        eprintln!("--- {}", kubectl.name);
        for args in [
            &["exec", "-it", "plain", "--", "sh", "-c", "sleep 3600 & sleep 3600"][..],
            &["exec", "-i", "plain", "--", "sh", "-c", "sleep 3600"],
            &["exec", "plain", "--", "sleep", "3600"],
        ] {
            let terminal = kubectl.on_terminal(args, 80, 24);
            let count = args.iter().map(|word| word.matches("sleep 3600").count()).sum::<usize>().max(1);
            wait::until("the commands run", wait::LATER, || sleepers(&cluster, count));
            let pid = Pid::from_raw(terminal.pid().try_into().unwrap());
            kill(pid, Signal::SIGKILL).unwrap();
            wait::until("nothing of it is left", HANG_UP_LIMIT, || sleepers(&cluster, 0));
        }
        // More than fits between a program that does not read and its user.
        let mut exec = kubectl.command(["exec", "-i", "plain", "--", "sleep", "3600"]);
        let said = cluster.scratch().join("said");
        let user = Background::reading(&mut exec, File::open(&much).unwrap(), &said);
        wait::until("the command runs", wait::LATER, || sleepers(&cluster, 1));
        user.signal(Signal::SIGKILL);
        wait::until("nothing of it is left", HANG_UP_LIMIT, || sleepers(&cluster, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_ends_talks_with_an_error_and_leaves_no_command_behind() {
    let story = "an_agent_that_dies_ends_talks_with_an_error_and_leaves_no_command_behind";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let mut cluster = Cluster::start(Options::up(0));
    cluster.join_node("worker", &[]);
    let http = Http::admin(&cluster);
    cluster.node("worker").becomes(&http, "True").await;
    start(&cluster, PODS, &["plain"]);
    let folder = cluster.scratch().join("worker");
    let sleeping = |count: usize| {
        let found: Vec<_> =
            host::processes(&folder).into_iter().filter(|(_, line)| line.trim() == "sleep 3600").collect();
        wait::check(found.len() == count, format!("{found:?}"))
    };
    for kubectl in &cluster.reaching() {
        eprintln!("--- {}", kubectl.name);
        let said = cluster.scratch().join("said");
        let mut talk = kubectl.spawn(&["exec", "plain", "--", "sleep", "3600"], &said);
        wait::until("the command runs", wait::LATER, || sleeping(1));
        cluster.node("worker").kill();
        let code = wait::until("kubectl ends", wait::LATER, || talk.exit_code().ok_or("it goes on"));
        assert_ne!(code, 0, "{}", talk.output());
        wait::until("the command is gone", wait::LATER, || sleeping(0));
        cluster.node("worker").start();
        cluster.node("worker").becomes(&http, "True").await;
        // The container never stopped, and can be reached again once the new agent is in session.
        wait::until("the container is reached again", wait::LATER, || {
            let again = kubectl.run(&["exec", "plain", "--", "echo", "here"]);
            wait::check(again.stdout == "here\n", format!("{again:?}"))
        });
    }
}

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: main, image: "clawbernetes.io/toolbox:1", args: ["sleep", "86400"]}
---
apiVersion: v1
kind: Pod
metadata: {name: somebody}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 1000, runAsGroup: 3000, supplementalGroups: [2000]}
  containers:
    - name: side
      image: clawbernetes.io/toolbox:1
      args: ["sleep", "86400"]
    - name: main
      image: clawbernetes.io/toolbox:1
      args: ["sleep", "86400"]
      workingDir: /tmp
      env: [{name: WORD, value: sesame}]
"#;
