//! Real kubectl, and our own command line, attach to the first process of a container, which goes on without it.

use claw_e2e::{
    Cluster, Kubectl, Options,
    http::Http,
    need::{self, Need},
    wait,
};

#[test]
fn kubectl_attaches_to_a_terminal_and_every_line_is_logged_once() {
    let story = "kubectl_attaches_to_a_terminal_and_every_line_is_logged_once";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    for (number, kubectl) in cluster.reaching().iter().enumerate() {
        eprintln!("--- {}", kubectl.name);
        let name = format!("shell-{number}");
        start(&cluster.kubectl(), &name, "stdin: true, tty: true, args: [sh]");
        let mut terminal = kubectl.on_terminal(&["attach", "-it", &name], 100, 40);
        // What was written before nobody sees, the prompt included.
        terminal.shows("If you don't see a command prompt, try pressing enter.");
        terminal.types("\r");
        terminal.shows("$ ");
        terminal.types("echo on''e\r");
        terminal.shows("one\r\n");
        wait::until("the terminal has its size", wait::LATER, || {
            terminal.types("stty size\r");
            let screen = terminal.screen();
            wait::check(screen.contains("40 100"), screen)
        });
        drop(terminal);
        // The process goes on; whoever comes next finds it.
        let mut terminal = kubectl.on_terminal(&["attach", "-it", &name], 80, 24);
        terminal.shows("try pressing enter.");
        terminal.types("\r");
        terminal.shows("$ ");
        terminal.types("echo tw''o; exit 0\r");
        terminal.shows("two\r\n");
        assert_eq!(terminal.exit_code(), 0, "{}", terminal.screen());
        let log = kubectl.ok(&["logs", &name]);
        for word in ["one", "two"] {
            let times = log.lines().filter(|line| line.trim().ends_with(word)).count();
            assert_eq!(times, 1, "{word} is logged once: {log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn input_outlives_agents_and_ends_with_its_first_writer_if_it_says_so() {
    let story = "input_outlives_agents_and_ends_with_its_first_writer_if_it_says_so";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let mut cluster = Cluster::start(Options::up(0));
    cluster.join_node("worker", &[]);
    let http = Http::admin(&cluster);
    cluster.node("worker").becomes(&http, "True").await;
    for (number, kubectl) in cluster.reaching().iter().enumerate() {
        eprintln!("--- {}", kubectl.name);
        let name = format!("reader-{number}");
        start(&cluster.kubectl(), &name, "stdin: true, stdinOnce: true, args: [cat]");
        // A new agent finds the input where the shim holds it.
        cluster.node("worker").kill();
        cluster.node("worker").start();
        // Its node is taken for ready all the while; that it is in session shows when it can be reached.
        wait::until("the new agent is in session", wait::LATER, || {
            let reached = kubectl.run(&["exec", &name, "--", "true"]);
            wait::check(reached.code == 0, reached.stderr)
        });
        let text: String = (0..2_000).map(|line| format!("line {line} of what is read\n")).collect();
        let (code, back, said) = kubectl.pipe(&["attach", "-i", &name], text.clone().into_bytes());
        assert_eq!(code, 0, "{said}");
        wait::until("it has read to the end", wait::LATER, || {
            let get = ["get", "pod", &name, "-o", "jsonpath={.status.phase}"];
            let phase = cluster.kubectl().ok(&get);
            wait::check(phase == "Succeeded", phase)
        });
        assert_eq!(kubectl.ok(&["logs", &name]), text, "what was read was written, and logged once");
        assert_eq!(String::from_utf8_lossy(&back), text, "whoever is attached sees all of it");
    }
}

fn start(kubectl: &Kubectl, name: &str, container: &str) {
    kubectl.ok_with(&["apply", "-f", "-"], &pod(name, container));
    wait::until(&format!("{name} runs"), wait::LATER, || {
        let phase = kubectl.ok(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]);
        wait::check(phase == "Running", phase)
    });
}

fn pod(name: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n    - {{name: main, image: \"clawbernetes.io/toolbox:1\", {container}}}\n"
    )
}
