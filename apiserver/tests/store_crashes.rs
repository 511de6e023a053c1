//! The store against `kill -9` and power cuts: what was acknowledged is there, and no revision is given twice.
//!
//! The tests run this very binary again as a child that writes and reports each acknowledgement over a pipe.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod store;

use std::path::Path;

use claw_apiserver::store::{self as api, Key};

use crate::store::{
    SMALL,
    child::{Acked, Child, Ledger},
    power::Disk,
};

/// How many write, by turns: those who are alone commit by themselves.
const WRITERS: [usize; 2] = [6, 1];

/// Not a test: what the others start in a process of its own.
#[test]
#[ignore = "the other tests run it in a process of its own"]
fn child_writes_until_it_is_killed() {
    store::child::run();
}

#[tokio::test]
async fn fifty_kills_lose_no_acknowledged_write_and_repeat_no_revision() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::default();
    for round in 0..50 {
        let mut child = Child::start(folder.path(), WRITERS[round % 2]);
        child.read_acks(&mut ledger, 1 + random(400));
        child.kill(&mut ledger);
        check(folder.path(), &mut ledger, &format!("kill {round}")).await;
    }
    assert!(states_written(folder.path()), "no state was written: the kills met the journal alone");
}

#[tokio::test]
async fn twenty_power_cuts_lose_no_acknowledged_write_and_repeat_no_revision() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = match Disk::format(folder.path()) {
        Ok(disk) => disk,
        Err(why) => return store::skip("power cuts", &why),
    };
    let mut ledger = Ledger::default();
    for round in 0..20 {
        let data = disk.mount().join("data");
        let mut child = Child::start(&data, WRITERS[round % 2]);
        child.read_acks(&mut ledger, 1 + random(300));
        // From here on the child writes nothing new; what the kernel has not yet written to the device is lost.
        child.freeze();
        child.read_waiting_acks(&mut ledger);
        let after = disk.cut_power();
        child.kill(&mut Ledger::default());
        disk = after;
        check(&disk.mount().join("data"), &mut ledger, &format!("power cut {round}")).await;
    }
    assert!(
        states_written(&disk.mount().join("data")),
        "no state was written: the cuts met the journal alone"
    );
}

/// Opens the folder and compares it with what was acknowledged. What is found is what must be there from now on.
async fn check(folder: &Path, ledger: &mut Ledger, when: &str) {
    let store = api::open_sled_with(folder, SMALL).unwrap_or_else(|error| panic!("{when}: {error}"));
    assert!(store.revision() >= ledger.last_revision, "{when}: revisions went back");
    ledger.last_revision = store.revision();
    ledger.floor = store.revision();
    for (key, acked) in &mut ledger.keys {
        let found = store.get(&Key::from_text(key)).await.unwrap();
        let found = found.map(|record| store::child::counter_in(&record.value));
        // The write that was on its way may have made it, or not.
        assert!(acked.allows(found), "{when}: {key} holds {found:?}, acknowledged was {acked:?}");
        *acked = found.map_or(Acked::Gone, Acked::Count);
    }
    store.close().await;
}

fn states_written(folder: &Path) -> bool {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with("state-"))
}

fn random(below: usize) -> usize {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    (u64::from_le_bytes(bytes) % below as u64) as usize
}

#[test]
fn a_folder_in_use_is_refused_to_another_process_until_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Child::start(folder.path(), 1);
    let mut ledger = Ledger::default();
    child.read_acks(&mut ledger, 1);
    let refused = api::open_sled(folder.path()).err().expect("it is in use");
    assert!(refused.to_string().contains("in use by another server"), "{refused}");
    child.kill(&mut ledger);
    api::open_sled(folder.path()).unwrap();
}
