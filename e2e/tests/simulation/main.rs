//! A seeded simulation of a whole cluster: the real server, controllers, agents and clients on one simulated network, clock
//! and dice, with faults. Whatever happens, the invariants of `claw_e2e::{history, promises, capacity, runs}` hold.
//!
//! A seed decides everything, so a run that failed can be run again: [`SEED`] names one seed, [`SEEDS`] how many.

#![cfg(target_os = "linux")]

mod checks;
mod cluster;
mod deployers;
mod disk;
mod electors;
mod faults;
mod net;
mod os;
mod run;
mod server;
mod trace;
mod watchers;
mod world;
mod writers;

use std::{
    env,
    process::Command,
    sync::{
        Arc, Once,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use claw_apiserver::pki::Pki;

use self::{disk::Sabotage, run::Report};

/// Runs this seed alone, and tells of it.
const SEED: &str = "SIM_SEED";
/// Breaks the store of that seed on purpose, in one of the ways of [`Sabotage`].
const SABOTAGE: &str = "SIM_SABOTAGE";
/// Runs so many seeds.
const SEEDS: &str = "SIM_SEEDS";
/// What a run of the tests can afford.
const SEEDS_DEFAULT: u64 = 100;
/// A run with fewer answers has been spent in the dark.
const ANSWERS_MIN: usize = 10;
/// What is said of a seed that failed.
const BROKEN: &str = "broke its promises";
/// Futures of a debug build are large.
const STACK_BYTES: usize = 32 << 20;

#[test]
fn every_seed_holds_what_was_promised() {
    let number =
        |name| env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")));
    if let Some(seed) = number(SEED) {
        let report = simulate(seed, sabotage());
        println!("{}", told(&report));
        assert!(report.violations.is_empty(), "{}", complaint(&report));
        assert!(report.answers >= ANSWERS_MIN, "seed {seed} proves nothing");
        return;
    }
    let (next, seeds) = (AtomicU64::new(0), number(SEEDS).unwrap_or(SEEDS_DEFAULT));
    let work = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds) {
            alone(seed, Sabotage::None).unwrap_or_else(|said| panic!("{said}"));
        }
    };
    thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        // All are waited for, before the first failure is passed on.
        let failed: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().err()).collect();
        if let Some(panic) = failed.into_iter().next() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let run = |seed| alone(seed, Sabotage::None).unwrap_or_else(|said| panic!("{said}"));
    let [first, again, other] = [7, 7, 8].map(run);
    assert_eq!(first, again);
    assert_ne!(first.rsplit(' ').next(), other.rsplit(' ').next(), "another seed");
}

#[test]
fn what_a_broken_store_does_is_found_within_a_few_seeds() {
    const PATIENCE: u64 = 30;
    for sabotage in Sabotage::ALL {
        let found =
            (0..PATIENCE).find(|seed| alone(*seed, sabotage).is_err_and(|said| said.contains(BROKEN)));
        let found = found.unwrap_or_else(|| panic!("{sabotage:?} went unnoticed in {PATIENCE} seeds"));
        println!("{sabotage:?} was found by seed {found}");
    }
}

/// Runs a seed in a process of its own: whatever a process keeps for good, such as maps made when they are first needed, is
/// the same for every seed then, and for whoever repeats one. Gives the line that tells of it, or all it said.
fn alone(seed: u64, sabotage: Sabotage) -> Result<String, String> {
    let mut child = Command::new(env::current_exe().expect("a test knows itself"));
    child.args(["--exact", "every_seed_holds_what_was_promised", "--nocapture"]);
    child.env(SEED, seed.to_string()).env(SABOTAGE, format!("{sabotage:?}"));
    let output = child.output().expect("it starts");
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let told = said.lines().find(|line| line.starts_with("seed "));
    match told {
        Some(told) if output.status.success() => Ok(told.to_owned()),
        _ => Err(format!("{complained}{said}")),
    }
}

/// Runs a seed in a thread of its own, which lives in the simulation from its first breath.
fn simulate(seed: u64, sabotage: Sabotage) -> Report {
    watch_for_panics();
    let pki = pki();
    let builder = thread::Builder::new().name(format!("seed-{seed}")).stack_size(STACK_BYTES);
    let thread = builder.spawn(move || {
        os::enter(seed);
        run::run(seed, pki, sabotage)
    });
    thread.expect("a thread starts").join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What is wrong with the store on purpose.
fn sabotage() -> Sabotage {
    let named = env::var(SABOTAGE).unwrap_or_default();
    Sabotage::ALL.into_iter().find(|sabotage| format!("{sabotage:?}") == named).unwrap_or(Sabotage::None)
}

/// A task that panics takes nobody with it; here it must not go unnoticed.
fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            os::panicked();
            before(panic);
        }));
    });
}

/// Keys, which nobody looks at: they are made once, with the real clock and entropy.
fn pki() -> Arc<Pki> {
    let folder = tempfile::tempdir().expect("a folder");
    Arc::new(Pki::open(folder.path(), &["localhost".to_owned()].into()).expect("keys"))
}

fn told(report: &Report) -> String {
    let Report { seed, events, fingerprint, answers, took_ms, .. } = report;
    format!("seed {seed}: {took_ms} ms, {events} events, {answers} answers, trace {fingerprint:016x}")
}

fn complaint(report: &Report) -> String {
    let Report { seed, violations, tail, .. } = report;
    format!(
        "seed {seed} {BROKEN}:\n{}\nThe end of it:\n{tail}{}\nTo see it again: make sim SEED={seed}",
        violations.join("\n"),
        told(report),
    )
}
