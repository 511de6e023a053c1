//! Locks between threads and processes: a file that is locked while somebody works, and goes when they are done.
//!
//! The kernel frees a lock with its holder, however that ended, so whatever nobody holds a lock on is left over.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::Error;

/// How often to try for a lock that somebody holds: pulls take seconds.
const POLL: Duration = Duration::from_millis(20);

/// Held until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    /// Closing it frees the lock.
    pub file: File,
    path: PathBuf,
}

impl Lock {
    /// `None` when somebody else holds it.
    pub(super) fn attempt(path: &Path) -> Result<Option<Self>, Error> {
        loop {
            let file = open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(Error::io("locking", path)(error)),
            }
            // Whoever held it has removed it, perhaps, and somebody else made and locked another.
            if is_still_at(&file, path).map_err(Error::io("looking at", path))? {
                return Ok(Some(Self { file, path: path.to_owned() }));
            }
        }
    }

    /// Waits for it.
    pub(super) async fn take(path: &Path) -> Result<Self, Error> {
        loop {
            if let Some(lock) = Self::attempt(path)? {
                return Ok(lock);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits for it in the caller's thread.
    pub(super) fn wait(path: &Path) -> Result<Self, Error> {
        loop {
            let file = open(path)?;
            file.lock().map_err(Error::io("locking", path))?;
            if is_still_at(&file, path).map_err(Error::io("looking at", path))? {
                return Ok(Self { file, path: path.to_owned() });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked, so it is our own.
        let _ = fs::remove_file(&self.path);
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    file.map_err(Error::io("opening", path))
}

fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((own.dev(), own.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn one_at_a_time_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = Lock::attempt(&path).unwrap().unwrap();
        assert!(Lock::attempt(&path).unwrap().is_none());
        drop(held);
        assert!(!path.exists());

        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _lock = Lock::wait(&path).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    }
                });
            }
        });
    }
}
