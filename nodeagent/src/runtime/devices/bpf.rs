//! The system call that gives the kernel programs, as far as control groups need it.
#![expect(unsafe_code, reason = "bpf(2) has no safe form")]

use std::{
    ffi::CStr,
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use super::program::Instruction;

/// Commands, kinds and flags (`linux/bpf.h`).
const PROGRAM_LOAD: libc::c_int = 5;
const PROGRAM_ATTACH: libc::c_int = 8;
const PROGRAM_BY_ID: libc::c_int = 13;
const INFORMATION: libc::c_int = 15;
const PROGRAM_QUERY: libc::c_int = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Others, systemd's above all, may have programs here, too; a device is to be had if all say so.
const ALLOW_MULTI: u32 = 2;

/// More programs than anybody attaches to one group: the kernel's own limit.
const PROGRAMS_MAX: usize = 64;

/// Under this name our programs are found again.
const NAME: &CStr = c"claw_devices";

/// The kernel gives helpers for some licenses only; this program calls none.
const LICENSE: &CStr = c"Apache-2.0";

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instructions: u32,
    program: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_kind: u32,
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    group: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    group: u32,
    kind: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
}

#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next_id: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Ask {
    descriptor: u32,
    bytes: u32,
    information: u64,
}

/// What the kernel says of a program, up to its name.
#[repr(C)]
#[derive(Default)]
struct Information {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    code: [u64; 2],
    loaded_at: u64,
    made_by: u32,
    maps: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// Gives the kernel a program. It stays for as long as somebody holds it, or a group has it.
pub(super) fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..NAME.to_bytes().len()].copy_from_slice(NAME.to_bytes());
    let mut load = Load {
        kind: TYPE_CGROUP_DEVICE,
        instructions: u32::try_from(program.len()).map_err(io::Error::other)?,
        program: program.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        name,
        attach_kind: ATTACH_CGROUP_DEVICE,
        ..Load::default()
    };
    let descriptor = call(PROGRAM_LOAD, &mut load)?;
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Has a group run the program from now on, until the group is removed.
pub(super) fn attach(program: &impl AsFd, group: &impl AsFd) -> io::Result<()> {
    let mut attach = Attach {
        group: number(group),
        program: number(program),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
        ..Attach::default()
    };
    call(PROGRAM_ATTACH, &mut attach).map(drop)
}

/// Whether a group has a program of ours.
pub(super) fn is_attached(group: &impl AsFd) -> io::Result<bool> {
    let mut ids = [0_u32; PROGRAMS_MAX];
    let mut query = Query {
        group: number(group),
        kind: ATTACH_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: PROGRAMS_MAX as u32,
        ..Query::default()
    };
    call(PROGRAM_QUERY, &mut query)?;
    Ok(ids.iter().take(query.count as usize).any(|id| is_ours(*id).unwrap_or(false)))
}

fn is_ours(id: u32) -> io::Result<bool> {
    let descriptor = call(PROGRAM_BY_ID, &mut ById { id, ..ById::default() })?;
    // SAFETY: the kernel just made it for us.
    let program = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let mut information = Information::default();
    let mut ask = Ask {
        descriptor: number(&program),
        bytes: size_of::<Information>() as u32,
        information: (&raw mut information) as u64,
    };
    call(INFORMATION, &mut ask)?;
    Ok(CStr::from_bytes_until_nul(&information.name).is_ok_and(|name| name == NAME))
}

/// Descriptors are never negative.
fn number(descriptor: &impl AsFd) -> u32 {
    descriptor.as_fd().as_raw_fd().cast_unsigned()
}

fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: each structure is laid out as the kernel has it for its command, zero where it says nothing, and what it
    // points to lives until the call is over.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        RawFd::try_from(answer).map_err(io::Error::other)
    }
}
