//! Loads rules into the kernel, by `nft`.

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Stdio},
};

use serde::Deserialize;

use super::rules::{Named, Rules};
use crate::Error;

/// A table of the kernel's, and what is known to be in it.
pub(super) struct Kernel {
    table: String,
    present: Option<BTreeSet<Named>>,
    loaded: Option<Rules>,
}

impl Kernel {
    pub(super) fn new(table: String) -> Self {
        Self { table, present: None, loaded: None }
    }

    /// Makes the table say this.
    pub(super) fn load(&mut self, rules: Rules) -> Result<(), Error> {
        if self.loaded.as_ref() == Some(&rules) {
            return Ok(());
        }
        let present = match self.present.take() {
            Some(present) => present,
            None => list(&self.table)?,
        };
        // After a failure the table is looked at again.
        self.loaded = None;
        nft(&["-f", "-"], &rules.transaction(&self.table, &present))?;
        self.present = Some(rules.names.clone());
        self.loaded = Some(rules);
        Ok(())
    }
}

/// Removes a table, if it is there.
pub(super) fn remove(table: &str) -> Result<(), Error> {
    nft(&["-f", "-"], &format!("add table ip {table}\ndelete table ip {table}\n")).map(drop)
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    chain: Option<NamedEntry>,
    set: Option<NamedEntry>,
}

#[derive(Deserialize)]
struct NamedEntry {
    name: String,
}

/// The chains and sets of services that an earlier run left in a table.
fn list(table: &str) -> Result<BTreeSet<Named>, Error> {
    nft(&["-f", "-"], &format!("add table ip {table}\n"))?;
    let text = nft(&["-j", "list", "table", "ip", table], "")?;
    let listing: Listing = serde_json::from_slice(&text)
        .map_err(|error| Error::Network(format!("reading what nft lists: {error}")))?;
    let ours = |name: &str| {
        ["service-", "endpoint-", "clients-", "port-"].iter().any(|prefix| name.starts_with(prefix))
    };
    let named = listing.nftables.into_iter().filter_map(|entry| match entry {
        Entry { chain: Some(chain), .. } => Some(Named::Chain(chain.name)),
        Entry { set: Some(set), .. } => Some(Named::Set(set.name)),
        _ => None,
    });
    Ok(named.filter(|one| matches!(one, Named::Chain(name) | Named::Set(name) if ours(name))).collect())
}

/// Runs nft, and returns what it printed.
fn nft(arguments: &[&str], input: &str) -> Result<Vec<u8>, Error> {
    let failed = |why: String| Error::Network(why);
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            failed(format!("running nft, by which services are routed: {error}; install nftables"))
        })?;
    // A thread of its own, as nft may say much before it has read all.
    let mut stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(stdin) = &mut stdin {
                // If nft does not read to the end, its verdict says why.
                let _ = stdin.write_all(input.as_bytes());
            }
            drop(stdin);
        });
        child.wait_with_output()
    });
    let output = output.map_err(|error| failed(format!("running nft: {error}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("nft: {}", said.lines().take(3).collect::<Vec<_>>().join("; "))))
}
