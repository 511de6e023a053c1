//! What an agent takes of a machine on which nothing happens: 100 pods that sleep. Needs root. The bars are 30 MB and half a percent
//! of a core.

use std::{fmt::Write as _, path::Path, thread, time::Duration};

use claw_e2e::{Cluster, Options, kubectl::Outcome, load::process, wait};
use nix::unistd::Pid;

const PODS: usize = 100;
/// What the allocator takes to give back what is free, and then some.
const REST: Duration = Duration::from_secs(30);
/// One round of what an agent looks after by itself, and another.
const WATCHED: u64 = 120;

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
    let (_, peak) = process::resident_mib(pid)?;
    thread::sleep(REST);

    println!("| an agent at rest | |\n|---|---|");
    println!("| resident without pods | {without:.1} MiB |");
    println!("| resident at most while they started | {peak:.1} MiB |");
    watch(pid)?;
    // The starter and the shims have the same command line.
    containers(&cluster.scratch().join("idle/node"), pid)
}

/// Looks each second.
fn watch(pid: Pid) -> anyhow::Result<()> {
    let before = process::cpu(pid)?;
    let mut resident = Vec::new();
    for _ in 0..WATCHED {
        thread::sleep(Duration::from_secs(1));
        resident.push(process::resident_mib(pid)?.0);
    }
    let share = process::cpu(pid)?.saturating_sub(before).as_secs_f64() / WATCHED as f64 * 100.0;
    resident.sort_by(f64::total_cmp);
    let (median, most) = (resident[resident.len() / 2], resident[resident.len() - 1]);
    let ((own, files), shared_out) = (process::own_and_files_mib(pid)?, process::share_mib(pid)?);
    println!("| resident with {PODS} pods, median and most of {WATCHED} s | {median:.1}, {most:.1} MiB |");
    println!("| of that at the end: its own, pages of files | {own:.1}, {files:.1} MiB |");
    println!("| the same with shared pages shared out | {shared_out:.1} MiB |");
    println!("| CPU with {PODS} pods | {share:.2} % of a core |");
    Ok(())
}

/// What stays with the containers, a pod.
fn containers(folder: &Path, agent: Pid) -> anyhow::Result<()> {
    let pids: Vec<Pid> = process::of_folder(folder).into_iter().filter(|pid| *pid != agent).collect();
    let (mut resident, mut shared_out) = (0.0, 0.0);
    for pid in &pids {
        resident += process::resident_mib(*pid)?.0;
        shared_out += process::share_mib(*pid)?;
    }
    let (count, pods) = (pids.len(), PODS as f64);
    println!(
        "| starter and shims ({count} processes), a pod, each page of each counted | {:.2} MiB |",
        resident / pods
    );
    println!("| the same with shared pages shared out | {:.2} MiB |", shared_out / pods);
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
