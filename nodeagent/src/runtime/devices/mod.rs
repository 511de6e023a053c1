//! Which devices the processes of a container may use: enforced, looked at, and put right where somebody took it away.
//!
//! With version 1 of control groups there is a controller for it, which libcontainer writes to. With version 2 it is a
//! program that runs whenever a device file is opened or made: ours, attached to the container's group between its making
//! and its start.
//!
//! A reload of systemd's units writes its own rules over those of a group below one of its units; what a container had is
//! gone from one moment to the next. Hence the looking.

mod bpf;
mod program;
mod rules;

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use oci_spec::runtime::{Capability, Spec};

use self::rules::Rules;
use super::cgroups::{self, Version};
use crate::{Error, shim};

/// The controller of version 1.
const CONTROLLER: &str = "devices";

/// Whether this machine keeps a container from devices that are not its own, even if it makes files for them.
pub(super) fn are_guarded() -> bool {
    match cgroups::version() {
        Version::V1 => true,
        Version::V2 => bpf::load(&program::program(&Rules::default())).is_ok(),
    }
}

/// Guards a container that was made and does not run yet.
///
/// # Errors
/// When it cannot be guarded, although it may make device files.
pub fn guard(cgroup: &str, bundle: &Path) -> Result<(), Error> {
    if cgroups::version() == Version::V1 {
        return Ok(());
    }
    let spec = shim::configuration(bundle)?;
    let folder = cgroups::folder(cgroup, CONTROLLER);
    match attach(&folder, &rules_of(&spec)) {
        // It has the files that it was given, and can make no others.
        Err(_) if !may_make_files(&spec) => Ok(()),
        attached => attached.map_err(Error::io("guarding the devices of", &folder)),
    }
}

/// Puts right what a running container may use, and says what was missing. Nothing, nearly always.
///
/// # Errors
/// When it cannot be put right, or the container is going.
pub(super) fn mend(cgroup: &str, spec: &Spec) -> io::Result<Vec<String>> {
    let rules = rules_of(spec);
    let folder = cgroups::folder(cgroup, CONTROLLER);
    match cgroups::version() {
        Version::V1 => mend_list(&folder, &cgroups::folder("", CONTROLLER), &rules),
        Version::V2 => mend_program(&folder, &rules),
    }
}

/// Every group above must have what a group is to have. What one of them must not have stays missing.
fn mend_list(folder: &Path, top: &Path, rules: &Rules) -> io::Result<Vec<String>> {
    let list = || fs::read_to_string(folder.join("devices.list"));
    let mut missing = rules.missing_from(&list()?);
    if missing.is_empty() {
        return Ok(missing);
    }
    // A list does not say what an open group forbids, so all of them are told all.
    let groups: Vec<&Path> = folder.ancestors().take_while(|one| one != &top).collect();
    for (group, line) in
        groups.into_iter().rev().flat_map(|group| missing.iter().map(move |line| (group, line)))
    {
        let _ = fs::write(group.join("devices.allow"), line);
    }
    let still = rules.missing_from(&list()?);
    missing.retain(|line| !still.contains(line));
    if missing.is_empty() {
        let why = format!("no group above has {}", still.join(", "));
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(missing)
}

fn mend_program(folder: &Path, rules: &Rules) -> io::Result<Vec<String>> {
    // Who was not guarded when it began has no device files but its own.
    if is_idle(rules) || !are_guarded() || bpf::is_attached(&File::open(folder)?)? {
        return Ok(Vec::new());
    }
    attach(folder, rules)?;
    Ok(vec!["the filter".to_owned()])
}

fn attach(folder: &Path, rules: &Rules) -> io::Result<()> {
    if is_idle(rules) {
        return Ok(());
    }
    bpf::attach(&bpf::load(&program::program(rules))?, &File::open(folder)?)
}

/// Nothing is forbidden.
fn is_idle(rules: &Rules) -> bool {
    rules.is_open && rules.exceptions.is_empty()
}

fn rules_of(spec: &Spec) -> Rules {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    Rules::of(resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default())
}

fn may_make_files(spec: &Spec) -> bool {
    let capabilities = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    capabilities.is_none_or(|all| all.bounding().iter().flatten().any(|one| *one == Capability::Mknod))
}

#[cfg(test)]
mod tests;
