//! The calls by which a program changes files, taken over: those below one folder are logged, and one of them can fail.
//!
//! The store is not told. It, sled and the standard library end at these functions of libc, and this program's own stand
//! in front of them. Nothing is really synced here: what a sync means is for [`super::disk`] to say, and it saves the time.
//!
//! Not covered: copies that the kernel makes (`copy_file_range`). The store copies only what it is about to read, into a
//! place that need not outlive anything.

#![expect(unsafe_code, reason = "functions of libc are taken over")]

use std::{
    ffi::{CStr, c_char, c_int, c_long, c_uint, c_void},
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What is copied in order to be read: nobody relies on it.
const SCRATCH: &str = "state-read.partial";

/// One change. Paths are below the folder that is watched.
#[derive(Clone, Debug)]
pub enum Call {
    Create(PathBuf),
    MakeFolder(PathBuf),
    Write {
        path: PathBuf,
        at: u64,
        bytes: Vec<u8>,
    },
    SetLength {
        path: PathBuf,
        length: u64,
    },
    /// Of a file's content, or of a folder's list of names.
    Sync(PathBuf),
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove(PathBuf),
    /// Not a change: what the test has been told by now.
    Told(u64),
}

struct Watched {
    root: PathBuf,
    log: Vec<Call>,
    /// How many calls still go well; none fails when it is gone.
    until_fault: Option<usize>,
    failed: bool,
}

static WATCHED: Mutex<Option<Watched>> = Mutex::new(None);

fn watched() -> MutexGuard<'static, Option<Watched>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on changes below a folder are logged, and the one after `until_fault` others fails.
pub fn watch(root: &Path, until_fault: Option<usize>) {
    let root = root.canonicalize().unwrap();
    *watched() = Some(Watched { root, log: Vec::new(), until_fault, failed: false });
}

/// Notes what the test knows.
pub fn told(what: u64) {
    watched().as_mut().unwrap().log.push(Call::Told(what));
}

/// Ends it: what was called, and whether a call failed.
pub fn end() -> (Vec<Call>, bool) {
    let watched = watched().take().unwrap();
    (watched.log, watched.failed)
}

impl Watched {
    fn below(&self, path: &Path) -> Option<PathBuf> {
        let path = path.strip_prefix(&self.root).ok()?;
        (!path.components().any(|part| part.as_os_str() == SCRATCH)).then(|| path.to_owned())
    }

    /// Whether it is this call's turn to fail.
    fn fails(&mut self) -> bool {
        let Some(left) = &mut self.until_fault else { return false };
        let now = *left == 0;
        self.until_fault = if now { None } else { Some(*left - 1) };
        self.failed |= now;
        now
    }
}

/// Does a call and logs it, or lets it fail. `half` is what is done of one that fails.
fn through(
    describe: impl FnOnce(&Watched) -> Option<Call>,
    real: impl FnOnce() -> c_long,
    half: impl FnOnce(),
) -> c_long {
    let mut guard = watched();
    let Some(call) = guard.as_ref().and_then(describe) else {
        drop(guard);
        return real();
    };
    let watched = guard.as_mut().expect("it was there a moment ago");
    if watched.fails() {
        half();
        // SAFETY: the address is this thread's own.
        unsafe { *libc::__errno_location() = libc::EIO };
        return -1;
    }
    // Held while it is done, so that the log has the order in which things happened.
    let result = real();
    if result >= 0 {
        watched.log.push(call);
    }
    result
}

fn path_at(path: *const c_char) -> PathBuf {
    // SAFETY: callers of these functions pass C strings.
    let text = unsafe { CStr::from_ptr(path) };
    PathBuf::from(text.to_string_lossy().into_owned())
}

fn path_of(fd: c_int) -> Option<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{fd}")).ok()
}

fn bytes_at(buffer: *const c_void, count: usize) -> Vec<u8> {
    // SAFETY: callers of these functions pass buffers of that length.
    unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), count) }.to_vec()
}

#[unsafe(no_mangle)]
extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the arguments are the caller's.
    let real = || unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) };
    if flags & libc::O_CREAT == 0 {
        return real() as c_int;
    }
    let describe = |watched: &Watched| {
        let path = path_at(path);
        let below = watched.below(&path)?;
        match (path.exists(), flags & libc::O_TRUNC) {
            (false, _) => Some(Call::Create(below)),
            (true, 0) => None,
            (true, _) => Some(Call::SetLength { path: below, length: 0 }),
        }
    };
    through(describe, real, || ()) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn mkdir(path: *const c_char, mode: c_uint) -> c_int {
    let describe = |watched: &Watched| watched.below(&path_at(path)).map(Call::MakeFolder);
    // SAFETY: the arguments are the caller's.
    through(describe, || unsafe { libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path, mode) }, || ())
        as c_int
}

#[unsafe(no_mangle)]
extern "C" fn pwrite64(fd: c_int, buffer: *const c_void, count: usize, at: i64) -> isize {
    // SAFETY: the arguments are the caller's.
    let write = |count: usize| unsafe { libc::syscall(libc::SYS_pwrite64, fd, buffer, count, at) };
    let describe = |watched: &Watched| {
        let path = watched.below(&path_of(fd)?)?;
        Some(Call::Write { path, at: at as u64, bytes: bytes_at(buffer, count) })
    };
    through(describe, || write(count), || _ = write(count / 2)) as isize
}

#[unsafe(no_mangle)]
extern "C" fn write(fd: c_int, buffer: *const c_void, count: usize) -> isize {
    // SAFETY: the arguments are the caller's.
    let write = |count: usize| unsafe { libc::syscall(libc::SYS_write, fd, buffer, count) };
    let describe = |watched: &Watched| {
        let path = path_of(fd)?;
        let below = watched.below(&path)?;
        // SAFETY: the file is the caller's.
        let (flags, place) = unsafe { (libc::fcntl(fd, libc::F_GETFL), libc::lseek(fd, 0, libc::SEEK_CUR)) };
        let at = if flags & libc::O_APPEND == 0 { place as u64 } else { fs::metadata(&path).ok()?.len() };
        Some(Call::Write { path: below, at, bytes: bytes_at(buffer, count) })
    };
    through(describe, || write(count), || _ = write(count / 2)) as isize
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(fd: c_int, length: i64) -> c_int {
    let describe = |watched: &Watched| {
        let path = watched.below(&path_of(fd)?)?;
        Some(Call::SetLength { path, length: length as u64 })
    };
    // SAFETY: the arguments are the caller's.
    through(describe, || unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) }, || ()) as c_int
}

fn sync(fd: c_int) -> c_int {
    let describe = |watched: &Watched| watched.below(&path_of(fd)?).map(Call::Sync);
    through(describe, || 0, || ()) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd)
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(fd)
}

/// Promises nothing, and so is nothing.
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(_fd: c_int, _at: i64, _count: i64, _flags: c_uint) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let describe = |watched: &Watched| {
        Some(Call::Rename { from: watched.below(&path_at(from))?, to: watched.below(&path_at(to))? })
    };
    let here = libc::AT_FDCWD;
    // SAFETY: the arguments are the caller's.
    through(describe, || unsafe { libc::syscall(libc::SYS_renameat2, here, from, here, to, 0) }, || ())
        as c_int
}

fn remove(folder: c_int, path: *const c_char, flags: c_int) -> c_int {
    let describe = |watched: &Watched| {
        let name = path_at(path);
        let path = if name.is_absolute() { name } else { path_of(folder)?.join(name) };
        watched.below(&path).map(Call::Remove)
    };
    // SAFETY: the arguments are the caller's.
    through(describe, || unsafe { libc::syscall(libc::SYS_unlinkat, folder, path, flags) }, || ()) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn unlink(path: *const c_char) -> c_int {
    remove(libc::AT_FDCWD, path, 0)
}

#[unsafe(no_mangle)]
extern "C" fn rmdir(path: *const c_char) -> c_int {
    remove(libc::AT_FDCWD, path, libc::AT_REMOVEDIR)
}

#[unsafe(no_mangle)]
extern "C" fn unlinkat(folder: c_int, path: *const c_char, flags: c_int) -> c_int {
    remove(folder, path, flags)
}
