//! The system calls that the standard library and `nix` have no safe form for.
#![expect(unsafe_code, reason = "raw system calls: record locks, fork, descriptors received over sockets")]

use std::{
    ffi::CStr,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::process::ExitStatusExt as _,
    },
    path::Path,
    process::ExitStatus,
};

use nix::unistd::{ForkResult, Pid};

/// Takes the lock file's record lock for the life of this process. It is not inherited by children,
/// so it tells exactly whether this process lives. The file must never be opened again in this
/// process: closing any descriptor of it would drop the lock.
///
/// The file is made by who may later remove its folder: a process that comes too late must not add to a folder
/// that is being removed.
pub fn lock_for_life(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let lock = whole_file_lock();
    // SAFETY: the descriptor is open and the struct is a valid flock.
    let locked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) };
    if locked < 0 {
        return Err(io::Error::last_os_error());
    }
    std::mem::forget(file);
    Ok(())
}

/// The process that holds the lock of [`lock_for_life`], if any. Nobody holds a missing file.
pub fn lock_holder(path: &Path) -> io::Result<Option<Pid>> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut lock = whole_file_lock();
    // SAFETY: the descriptor is open and the struct is a valid flock, which the kernel fills in.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((i32::from(lock.l_type) != libc::F_UNLCK).then(|| Pid::from_raw(lock.l_pid)))
}

fn whole_file_lock() -> libc::flock {
    // SAFETY: flock is plain integers, for which zero is valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

/// Sends a signal, which may be one of those that have numbers and no names.
pub(super) fn signal(pid: Pid, number: i32) -> io::Result<()> {
    // SAFETY: integers alone.
    match unsafe { libc::kill(pid.as_raw(), number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// When a process started, in ticks since the machine did: with its number, a name that nobody else ever has.
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything, come the state and 18 more.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Takes leave of one child that is over, whatever ended it. `None` while none is.
pub(super) fn reap_one() -> Option<(Pid, ExitStatus)> {
    let mut status = 0;
    loop {
        // SAFETY: the kernel fills in the status.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            pid if pid > 0 => return Some((Pid::from_raw(pid), ExitStatus::from_raw(status))),
            _ => return None,
        }
    }
}

/// Forks this single-threaded process. `None` in the child.
pub(super) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the starter has one thread, so the child may do anything.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Puts signals back as a program expects to find them. What a process ignores or blocks survives
/// exec: without this, containers would be deaf to SIGTERM and SIGPIPE; and to what the agent was told to ignore by whoever
/// started it, such as `nohup` (SIGHUP) or a script, in the background (SIGINT).
pub(crate) fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: resets to the default action. It is refused for the few that have no other.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// Lets the kernel collect children of the starter, which never asks how they ended.
pub(super) fn ignore_children() {
    // SAFETY: sets the disposition to ignore.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Orphans among the descendants of this process become its children.
pub(super) fn become_subreaper() {
    // SAFETY: takes no pointers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
}

/// Takes over a descriptor that came as a number (inherited, or in a message).
///
/// The caller must be its only owner.
pub(crate) fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: callers pass descriptors that this process just received and nobody else owns.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Points stdin, stdout and stderr at `/dev/null`.
pub(crate) fn detach_standard_streams() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for standard in 0..3 {
        nix::unistd::dup2(null.as_raw_fd(), standard)?;
    }
    Ok(())
}

/// Moves `descriptor` to number 3 in a process about to be executed, where the starter looks for it.
pub(super) fn command_with_descriptor(command: &mut std::process::Command, descriptor: OwnedFd) {
    use std::os::unix::process::CommandExt as _;
    let raw = descriptor.as_raw_fd();
    let place = move || {
        let _keeps_it_open = &descriptor;
        if raw == STARTER_SOCKET {
            // Already there: only let it survive exec.
            nix::fcntl::fcntl(raw, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
        } else {
            nix::unistd::dup2(raw, STARTER_SOCKET)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec it only calls dup2 or fcntl, which are async-signal-safe.
    unsafe { command.pre_exec(place) };
}

/// This program's file, to be executed in a way that nobody can write to it by `/proc/PID/exe`: a container's root, who sees
/// that link while a process enters the container, would else change the program of the host (CVE-2019-5736). It is a
/// mount of the file alone, read-only and nowhere in the tree, so it costs no copy. `None`: the kernel is older than 5.12.
pub(super) fn sealed_program() -> Option<OwnedFd> {
    sealed(c"/proc/self/exe").or_else(sealed_by_name)
}

/// The program of a process that has joined another mount namespace is in the one that it came from, where nothing can be mounted.
/// By its name it is found here, if that still is the same file.
fn sealed_by_name() -> Option<OwnedFd> {
    use std::os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _};
    let name = std::env::current_exe().ok()?;
    let sealed = sealed(&std::ffi::CString::new(name.as_os_str().as_bytes()).ok()?)?;
    let found = std::fs::metadata(format!("/proc/self/fd/{}", sealed.as_raw_fd())).ok()?;
    let own = std::fs::metadata("/proc/self/exe").ok()?;
    ((found.dev(), found.ino()) == (own.dev(), own.ino())).then_some(sealed)
}

fn sealed(path: &CStr) -> Option<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let empty = c"";
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned();
    // SAFETY: the path is a C string that lives through the call.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let tree = own(RawFd::try_from(tree).ok().filter(|descriptor| *descriptor >= 0)?);
    let attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the structure is of the size that is said, and lives through the call.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if set != 0 {
        return None;
    }
    // Away from the number at which the starter finds its socket.
    let moved =
        nix::fcntl::fcntl(tree.as_raw_fd(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(STARTER_SOCKET + 1))
            .ok()?;
    Some(own(moved))
}

/// Gives up a capability, by number, for all programs that come of this process.
pub(super) fn drop_from_bounding_set(capability: u8) -> io::Result<()> {
    // SAFETY: takes no pointers.
    let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has a program of classic BPF decide about the system calls of this process and all that come of it.
pub(super) fn filter_system_calls(program: &[u8], flags: u32) -> io::Result<()> {
    let mut steps: Vec<libc::sock_filter> = program
        .chunks_exact(8)
        .map(|step| libc::sock_filter {
            code: u16::from_ne_bytes([step[0], step[1]]),
            jt: step[2],
            jf: step[3],
            k: u32::from_ne_bytes([step[4], step[5], step[6], step[7]]),
        })
        .collect();
    let len = u16::try_from(steps.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let program = libc::sock_fprog { len, filter: steps.as_mut_ptr() };
    // SAFETY: the program lives through the call and is as long as it says.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Where the starter finds its socket.
pub(super) const STARTER_SOCKET: RawFd = 3;

/// Non-blocking mode for a pipe end.
pub(super) fn set_nonblocking(file: &File) -> io::Result<()> {
    nix::fcntl::fcntl(file.as_raw_fd(), nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Tells a terminal its size, of which its programs learn.
pub fn resize(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open and the struct is a valid winsize.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes the program's pages out of this process: what its start needed is not what it lives on. They stay where the kernel keeps
/// files, and those that are used again come back one by one, without the disk unless the machine was short of memory meanwhile.
pub fn let_go_of_program() {
    // SAFETY: the callback is called before this returns, and keeps nothing.
    unsafe { libc::dl_iterate_phdr(Some(let_go_of), std::ptr::null_mut()) };
}

fn page_bytes() -> u64 {
    // SAFETY: asks for a number.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

unsafe extern "C" fn let_go_of(
    program: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader hands over a program that is loaded, with as many headers as it says.
    let (base, headers) = unsafe {
        let program = &*program;
        (program.dlpi_addr, std::slice::from_raw_parts(program.dlpi_phdr, program.dlpi_phnum.into()))
    };
    // Only what was never written to is still in the file: a writable part has addresses that the loader put there.
    let is_as_in_file =
        |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
    for header in headers.iter().filter(is_as_in_file) {
        // What was linked for an address above the one that it is at has a base "below zero".
        let at = base.wrapping_add(header.p_vaddr);
        let start = at & !(page_bytes() - 1);
        let length = at - start + header.p_memsz;
        // SAFETY: pages of a file that nobody has written to read the same when they come back.
        unsafe { libc::madvise(start as *mut libc::c_void, length as usize, libc::MADV_DONTNEED) };
    }
    0
}

#[cfg(test)]
mod tests {
    use std::os::{fd::IntoRawFd as _, unix::fs::FileExt as _};

    use super::*;

    /// Of a program's file, and of no use to anybody else.
    static TABLE: [u8; 1 << 20] = [7; 1 << 20];

    fn is_present(byte: &u8) -> bool {
        let page = std::ptr::from_ref(byte).addr() / usize::try_from(page_bytes()).unwrap();
        let mut entry = [0; 8];
        let pages = File::open("/proc/self/pagemap").unwrap();
        pages.read_exact_at(&mut entry, page as u64 * 8).unwrap();
        u64::from_ne_bytes(entry) >> 63 == 1
    }

    #[test]
    fn what_a_program_let_go_of_is_out_of_memory_until_it_is_used_again() {
        let middle = std::hint::black_box(&TABLE[TABLE.len() / 2]);
        assert!(*middle == 7 && is_present(middle));
        let_go_of_program();
        assert!(!is_present(middle));
        assert!(*middle == 7 && is_present(middle));
    }

    #[test]
    fn nobody_writes_to_what_is_sealed() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: sealing needs root");
            return;
        }
        assert!(sealed_program().is_some());
        // Not this program: one that runs refuses writers anyway, but only for as long as it runs.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("program");
        std::fs::write(&file, "as it is").unwrap();
        let path = std::ffi::CString::new(file.to_str().unwrap()).unwrap();
        let sealed = format!("/proc/self/fd/{}", sealed(&path).unwrap().into_raw_fd());
        assert_eq!(std::fs::read_to_string(&sealed).unwrap(), "as it is");
        let error = OpenOptions::new().write(true).open(&sealed).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
        assert!(OpenOptions::new().write(true).open(&file).is_ok());
    }
}
