//! Every driver on the inputs that are kept, and on more that a seed makes of them.
//!
//! An input that fails is written to a file, and the command that repeats it is printed.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use claw_fuzz::{Driver, driver, mutate::Mutator};

/// The seed of the inputs, unless `FUZZ_SEED` says otherwise: everybody sees the same.
const SEED: u64 = 1;

/// Drivers, and how many inputs each gets beside the kept ones, unless `FUZZ_RUNS` says otherwise: a second's worth or two.
macro_rules! replays {
    ($($name:ident: $runs:literal,)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name), $runs);
            }
        )*

        #[test]
        fn no_driver_is_left_out() {
            assert_eq!(claw_fuzz::DRIVERS.map(|driver| driver.name), [$(stringify!($name)),*]);
        }
    };
}

replays! {
    applies: 1500,
    backups: 1500,
    cel: 300,
    credentials: 500,
    definitions: 500,
    fields: 1500,
    graphs: 1500,
    journals: 150,
    manifests: 500,
    messages: 500,
    objects: 300,
    patches: 1500,
    picks: 1500,
    protobufs: 800,
    quantities: 1500,
    requests: 150,
    selectors: 1500,
}

fn replay(name: &str, runs: u64) {
    let driver = driver(name).expect("the driver exists");
    if let Ok(path) = env::var("FUZZ_INPUT") {
        return (driver.run)(&fs::read(path).unwrap());
    }
    let kept = corpus(name);
    kept.iter().for_each(|input| run(driver, input));
    let mut inputs = Mutator::new(number("FUZZ_SEED").unwrap_or(SEED));
    for _ in 0..number("FUZZ_RUNS").unwrap_or(runs) {
        run(driver, &inputs.next(&kept));
    }
}

fn run(driver: Driver, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (driver.run)(input))) {
        let path = keep(driver.name, input);
        eprintln!(
            "this repeats it:\n  FUZZ_INPUT={} cargo test --locked --workspace --test replay {} -- --exact",
            path.display(),
            driver.name
        );
        std::panic::resume_unwind(panic);
    }
}

fn keep(name: &str, input: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}.input"));
    fs::write(&path, input).unwrap();
    path
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(name);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}
