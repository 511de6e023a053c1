//! `clawbernetes gpu check`: whether devices are fit for work. Each is looked at by a process of its own, which may die.

use std::{
    io::{IsTerminal as _, Write as _},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, ensure};
use claw_compute::{Known, qualify::apart};
use claw_graph::{
    order::Backend,
    qualification::{Level, Qualification, compare},
};

use crate::verbs::print;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// All memory and a minute of load (under three minutes a GPU), instead of a part of both (half a minute)
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// The default
    #[arg(long)]
    quick: bool,
    /// A device (`cuda:0`, `vulkan:0`, `vulkan:UUID`, `cpu`), may be repeated; all GPUs if absent
    #[arg(long = "device", value_name = "NAME")]
    devices: Vec<String>,
    /// `json` for all figures
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json"])]
    output: Option<String>,
    /// In this process: look at the one device, or at the link between two
    #[arg(long, hide = true)]
    apart: bool,
}

/// Looks at devices one after the other. Fails if one of them is not fit.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let level = if options.full { Level::Full } else { Level::Quick };
    match (options.apart, options.devices.as_slice()) {
        (true, [one, other]) => {
            return Ok(apart::say_peers([one, other], level).map(|()| ExitCode::SUCCESS)?);
        }
        (true, [device]) => return Ok(apart::say(device, level).map(|()| ExitCode::SUCCESS)?),
        _ => {}
    }
    let devices = wanted(options)?;
    let mut found = Vec::with_capacity(devices.len());
    for device in &devices {
        found.push(look(device, level)?);
    }
    look_at_peers(&mut found, level)?;
    compare(&mut found);
    match options.output {
        Some(_) => print(&format!("{}\n", serde_json::to_string_pretty(&found)?))?,
        None => print(&found.iter().map(text).collect::<String>())?,
    }
    let all_passed = found.iter().all(Qualification::passed);
    Ok(if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// NVIDIA's GPUs through CUDA; where there are none, those that Vulkan knows.
fn wanted(options: &Options) -> anyhow::Result<Vec<String>> {
    if !options.devices.is_empty() {
        return Ok(options.devices.clone());
    }
    let known = known()?;
    let of = |backend: &str| {
        let is_it = |known: &&Known| known.name.starts_with(backend) && !known.is_cpu;
        known.iter().filter(is_it).map(|known| known.name.clone()).collect::<Vec<_>>()
    };
    let (cuda, vulkan) = (of("cuda:"), of("vulkan:"));
    let devices = if cuda.is_empty() { vulkan } else { cuda };
    let others: Vec<_> = known.iter().map(|known| known.name.as_str()).collect();
    ensure!(
        !devices.is_empty(),
        "no driver of this machine knows a GPU; to look at another device, name it: --device {}",
        others.join(", --device ")
    );
    Ok(devices)
}

/// Asks for the devices in a process of its own, too: drivers talk on standard error, and some crash when they are asked.
fn known() -> anyhow::Result<Vec<Known>> {
    let asked = apart("known")?
        .stderr(Stdio::null())
        .output()
        .context("no process could be started to ask the drivers")?;
    ensure!(
        asked.status.success(),
        "a driver took the process along that asked it for its devices ({})",
        asked.status
    );
    Ok(serde_json::from_slice(&asked.stdout)?)
}

/// This program once more, for what drivers may do to a process.
fn apart(verb: &str) -> anyhow::Result<Command> {
    let mut process = Command::new(std::env::current_exe().context("this program cannot be found again")?);
    process.args(["gpu", verb]);
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // Mesa complains of it for each device, and needs it for windows only.
        process.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    }
    Ok(process)
}

/// The device that this container was given, of which it sees no other: the first of the backend that is no processor. Where nobody can be
/// asked, the first of all: looking at it says what is wrong.
pub fn given(backend: Backend) -> String {
    let is_it = |known: &Known| known.name.starts_with(&format!("{backend}:")) && !known.is_cpu;
    let known = known().unwrap_or_default().into_iter().find(is_it);
    known.map_or_else(|| format!("{backend}:0"), |known| known.name)
}

fn look(device: &str, level: Level) -> anyhow::Result<Qualification> {
    watched(&[device], level)
}

/// Links between NVIDIA's GPUs that are fit, each by a process of its own. What is found counts for both ends: nothing tells which is to blame.
fn look_at_peers(found: &mut [Qualification], level: Level) -> anyhow::Result<()> {
    let is_peer = |one: &Qualification| one.passed() && one.device.id.starts_with("cuda:");
    let peers: Vec<usize> = (0..found.len()).filter(|at| is_peer(&found[*at])).collect();
    for (nth, one) in peers.iter().enumerate() {
        for other in &peers[nth + 1..] {
            let names = [found[*one].device.id.clone(), found[*other].device.id.clone()];
            let link = watched(&[&names[0], &names[1]], level)?;
            for end in [*one, *other] {
                found[end].findings.extend(link.findings.clone());
                found[end].seconds += link.seconds;
            }
        }
    }
    Ok(())
}

/// The process that looks at a device, or at the link between two.
pub fn looking_at(devices: &[&str], level: Level) -> anyhow::Result<Command> {
    let mut process = apart("check")?;
    process.arg("--apart");
    devices.iter().for_each(|device| {
        process.args(["--device", device]);
    });
    if level == Level::Full {
        process.arg("--full");
    }
    Ok(process)
}

/// Has a process look at a device, or at the link between two.
fn watched(devices: &[&str], level: Level) -> anyhow::Result<Qualification> {
    let process = looking_at(devices, level)?;
    let name = devices.join(" and ");
    let mut progress = Progress::default();
    let found =
        apart::watch(process, &name, level, apart::SILENCE, &mut |_, words| progress.show(&name, words));
    progress.clear();
    found.with_context(|| format!("{name}: no process could be started for it"))
}

/// A line that changes, where somebody looks.
#[derive(Default)]
struct Progress {
    width: usize,
}

impl Progress {
    fn show(&mut self, device: &str, words: &str) {
        let mut err = std::io::stderr();
        if err.is_terminal() {
            let line = format!("{device}  {words}");
            let width = self.width;
            let _ = write!(err, "\r{line:width$}");
            let _ = err.flush();
            self.width = line.chars().count();
        }
    }

    fn clear(&mut self) {
        if self.width > 0 {
            let _ = write!(std::io::stderr(), "\r{:width$}\r", "", width = self.width);
            self.width = 0;
        }
    }
}

fn text(found: &Qualification) -> String {
    let verdict = if found.passed() { "fit" } else { "NOT FIT" };
    let driver = found.driver.as_deref().map_or_else(String::new, |driver| format!(", {driver}"));
    let model = if found.device.model.is_empty() { "unknown" } else { &found.device.model };
    let mut text = format!("{}   {verdict}   {model}{driver}   ({:.0} s)\n", found.device.id, found.seconds);
    for finding in &found.findings {
        let mark = if finding.passed { "ok  " } else { "FAIL" };
        text.push_str(&format!("  {mark}  {:<12}  {}\n", finding.check.to_string(), finding.words));
    }
    text
}
