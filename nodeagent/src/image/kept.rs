//! What containers of the image of kernels keep for those that come after them: which way of calculating was the fastest, and kernels that
//! were compiled.
//!
//! Each program has a folder for each namespace, so that nobody reads what another program made, or what people of another namespace did.
//! Whoever may make pods in a namespace may change what the others there calculate anyway, so nothing in it is checked. It is bounded, and
//! nobody misses what is thrown away: it is made again.

use std::{
    fs::{self, File, FileTimes},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{Error, ids, tree};

/// Bytes on the disk that a namespace may keep; what has become more is thrown away before its next container begins.
const BYTES_MAX: u64 = 64 << 20;

/// Entries in a namespace's folder, of all levels, beyond which it is thrown away unseen.
const ENTRIES_MAX: usize = 10_000;

/// Namespaces that keep something: those that had a container last.
const NAMESPACES_MAX: usize = 32;

/// The folders of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// Below a folder, for the program with this key.
    pub(super) fn of_program(folder: &Path, key: &str) -> Self {
        Self { folder: folder.join(key) }
    }

    /// The folder for containers of a namespace, for all users, made if it is not there. Blocks.
    ///
    /// # Errors
    /// When it cannot be made, or what is too much not be removed.
    pub fn for_namespace(&self, namespace: &str) -> Result<PathBuf, Error> {
        // Whatever a namespace is called, it is one folder.
        let own = self.folder.join(ids::hex(namespace.as_bytes()));
        // Only through a container does anybody but the node's user come here.
        create_private(&own)?;
        touch(&own)?;
        self.forget_all_but_the_last(NAMESPACES_MAX)?;
        let shared = own.join("all");
        if shared.is_dir() && !is_within_bounds(&shared, BYTES_MAX, ENTRIES_MAX) {
            self.remove(&shared)?;
        }
        match fs::create_dir(&shared) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("creating", &shared)(error));
            }
            _ => {}
        }
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777))
            .map_err(Error::io("setting the mode of", &shared))?;
        Ok(shared)
    }

    /// Forgets what was kept for namespaces whose last container began before those of so many others.
    fn forget_all_but_the_last(&self, count: usize) -> Result<(), Error> {
        let mut namespaces: Vec<(SystemTime, PathBuf)> =
            entries(&self.folder)?.into_iter().filter_map(|path| Some((used(&path)?, path))).collect();
        namespaces.sort_by(|one, other| other.cmp(one));
        namespaces.iter().skip(count).try_for_each(|(_, path)| self.remove(path))
    }

    /// Under another name first: containers that still use it write to what has no name any more.
    fn remove(&self, path: &Path) -> Result<(), Error> {
        let gone = self.folder.with_extension(format!("gone-{}", ids::random()?));
        fs::rename(path, &gone).map_err(Error::io("renaming", path))?;
        tree::remove(&gone).map_err(Error::io("removing", &gone))
    }
}

/// Removes what is of no program that `is_used` names by its key, and what an agent began to remove.
pub(super) fn sweep(folder: &Path, is_used: impl Fn(&str) -> bool) -> Result<(), Error> {
    for path in entries(folder)? {
        let key = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !is_used(&key) {
            tree::remove(&path).map_err(Error::io("removing", &path))?;
        }
    }
    Ok(())
}

/// What is in a folder; nothing if there is none.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("reading", folder)(error)),
    }
}

fn create_private(folder: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(Error::io("creating", folder))
}

fn touch(folder: &Path) -> Result<(), Error> {
    let now = FileTimes::new().set_modified(SystemTime::now());
    File::open(folder).and_then(|open| open.set_times(now)).map_err(Error::io("touching", folder))
}

fn used(path: &Path) -> Option<SystemTime> {
    fs::symlink_metadata(path).ok()?.modified().ok()
}

/// Whether a folder is no larger than that. Links are not followed, and what goes while it is looked at does not count.
fn is_within_bounds(folder: &Path, bytes_max: u64, entries_max: usize) -> bool {
    let (mut bytes, mut seen) = (0, 0);
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            bytes += found.blocks() * 512;
            seen += 1;
            if bytes > bytes_max || seen > entries_max {
                return false;
            }
            if found.is_dir() {
                left.push(entry.path());
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_finds_again_what_it_kept_and_no_other_does() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::of_program(folder.path(), "one");
        let first = kept.for_namespace("team-a").unwrap();
        assert_eq!(fs::metadata(&first).unwrap().mode() & 0o7777, 0o777, "whoever the worker is");
        fs::write(first.join("choices"), "units").unwrap();
        let again = Kept::of_program(folder.path(), "one").for_namespace("team-a").unwrap();
        assert_eq!(fs::read_to_string(again.join("choices")).unwrap(), "units");
        for other in
            [kept.for_namespace("team-b"), Kept::of_program(folder.path(), "two").for_namespace("team-a")]
        {
            assert_eq!(entries(&other.unwrap()).unwrap(), [""; 0].map(PathBuf::from));
        }
        for part in first.ancestors().skip(1).take(2) {
            assert_eq!(fs::metadata(part).unwrap().mode() & 0o7777, 0o700, "{}", part.display());
        }
        let odd = kept.for_namespace("../..").unwrap();
        assert!(odd.starts_with(&kept.folder) && odd != kept.folder, "{}", odd.display());
    }

    #[test]
    fn what_is_too_much_is_thrown_away_before_the_next_begins() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::of_program(folder.path(), "one");
        let shared = kept.for_namespace("a").unwrap();
        fs::write(shared.join("small"), [1; 4_096]).unwrap();
        std::os::unix::fs::symlink("/", shared.join("link")).unwrap();
        assert_eq!(entries(&kept.for_namespace("a").unwrap()).unwrap().len(), 2, "a link is one entry");
        fs::create_dir(shared.join("deep")).unwrap();
        fs::write(shared.join("deep/large"), vec![1; usize::try_from(BYTES_MAX).unwrap()]).unwrap();
        assert_eq!(entries(&kept.for_namespace("a").unwrap()).unwrap().len(), 0);
        assert!(!is_within_bounds(Path::new("/proc/self"), u64::MAX, 10), "entries count, too");
        assert_eq!(entries(folder.path()).unwrap().len(), 1, "nothing is left beside it");
    }

    #[test]
    fn only_so_many_namespaces_keep_something() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::of_program(folder.path(), "one");
        for number in 0..3 {
            let own = kept.for_namespace(&number.to_string()).unwrap();
            let when = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number);
            File::open(own.parent().unwrap()).unwrap().set_modified(when).unwrap();
        }
        kept.forget_all_but_the_last(2).unwrap();
        let left = |number: u64| kept.folder.join(ids::hex(number.to_string().as_bytes())).exists();
        assert_eq!([left(0), left(1), left(2)], [false, true, true]);
    }

    #[test]
    fn programs_that_are_gone_keep_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for key in ["one", "two"] {
            fs::write(Kept::of_program(folder.path(), key).for_namespace("a").unwrap().join("x"), "")
                .unwrap();
        }
        sweep(folder.path(), |key| key == "two").unwrap();
        assert_eq!(entries(folder.path()).unwrap(), [folder.path().join("two")]);
        sweep(&folder.path().join("none"), |_| false).unwrap();
    }
}
