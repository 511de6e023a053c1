//! What an agent takes of a machine on which nothing happens: 100 pods that sleep. Needs root. The bars are 30 MB and half a percent
//! of a core.

use std::{fmt::Write as _, thread, time::Duration};

use claw_e2e::{Cluster, Options, kubectl::Outcome, load::process, wait};

const PODS: usize = 100;
/// What the allocator takes to give back what is free, and then some.
const REST: Duration = Duration::from_secs(30);
/// Three rounds of what an agent looks after by itself.
const WATCHED: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options::up(0));
    cluster.join_node("idle", &[]);
    let pid = cluster.node("idle").pid();
    wait::until("the node is ready", wait::LATER, || {
        let nodes = said(&cluster, &["get", "nodes"], "")?;
        wait::check(nodes.contains(" Ready "), nodes)
    });
    thread::sleep(REST);
    let (without, _) = process::resident_mib(pid)?;

    said(&cluster, &["apply", "-f", "-"], &pods()).map_err(anyhow::Error::msg)?;
    wait::until("all pods run", wait::LATER, || {
        let running =
            said(&cluster, &["get", "pods", "-o", "name", "--field-selector=status.phase=Running"], "")?;
        let count = running.lines().count();
        wait::check(count == PODS, format!("{count} run"))
    });
    thread::sleep(REST);
    let (with, most) = process::resident_mib(pid)?;
    let before = process::cpu(pid)?;
    thread::sleep(WATCHED);
    let used = process::cpu(pid)?.saturating_sub(before);
    let share = used.as_secs_f64() / WATCHED.as_secs_f64() * 100.0;

    println!("| an agent at rest | |\n|---|---|");
    println!("| resident without pods | {without:.1} MiB |");
    println!("| resident with {PODS} pods | {with:.1} MiB |");
    println!("| resident at most while they started | {most:.1} MiB |");
    println!("| CPU with {PODS} pods | {share:.2} % of a core |");
    Ok(())
}

fn said(cluster: &Cluster, words: &[&str], input: &str) -> Result<String, String> {
    Outcome::of(cluster.cli().args(words), input).success()
}

fn pods() -> String {
    (0..PODS).fold(String::new(), |mut text, number| {
        let _ = writeln!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: sleeper-{number}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
             containers: [{{name: main, image: 'clawbernetes.io/toolbox:1', args: [sleep, '86400']}}]"
        );
        text
    })
}
