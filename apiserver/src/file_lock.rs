//! A file that one process at a time holds locked.

use std::{
    fs::{File, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// How long a lock may outlive its owner: a process that was being started at that moment holds all that its parent
/// had open until it becomes another program.
const WAIT: Duration = Duration::from_secs(1);

/// How often a taken lock is tried again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Held as long as it lives. The kernel lets go of it even when the process is killed.
#[derive(Debug)]
pub struct FileLock(File);

impl FileLock {
    /// Locks a file, made first if it is not there. `None` when somebody else holds it, and goes on to: call it where
    /// blocking is allowed.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        Self::take_within(path, WAIT)
    }

    fn take_within(path: &Path, wait: Duration) -> io::Result<Option<Self>> {
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        let deadline = Instant::now() + wait;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self(file))),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOOK_AGAIN),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process being started at this moment still has a copy of the
        // descriptor until its exec, and the lock belongs to all copies.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_free_when_its_holder_lets_go_whoever_has_a_copy_of_the_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = FileLock::take(&path).unwrap().unwrap();
        assert!(FileLock::take(&path).unwrap().is_none());
        let copy = first.0.try_clone().unwrap();
        drop(first);
        assert!(FileLock::take(&path).unwrap().is_some());
        drop(copy);
    }

    #[test]
    fn a_lock_that_outlives_its_owner_for_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let (first, asked) = (FileLock::take(&path).unwrap(), Instant::now());
        let last_copy = thread::spawn(move || {
            thread::sleep(20 * LOOK_AGAIN);
            drop(first);
        });
        // However late the other thread has its turn.
        let taken = FileLock::take_within(&path, 600 * WAIT).unwrap();
        assert!(taken.is_some() && asked.elapsed() >= LOOK_AGAIN);
        last_copy.join().unwrap();
    }
}
