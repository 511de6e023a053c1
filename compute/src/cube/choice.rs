//! What was found to be the fastest, remembered: in memory, and in a file where a folder for it is given.
//!
//! A choice holds for one model of card, one driver and one build of this program: kernels of another build are other kernels, whatever
//! they are called. So all three stand at the head of a file, which is named after them; a file with another head is begun anew.

use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Choices that a file may have: no more than a megabyte of them. One with more is begun anew.
const KEPT_MAX: usize = 4_096;

/// What was chosen, by what it was chosen for.
pub struct Choices {
    head: String,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    names: BTreeMap<String, String>,
    file: Option<PathBuf>,
}

impl Choices {
    /// For a card of this model with this driver.
    pub fn new(model: &str, driver: Option<&str>) -> Self {
        let head = format!("{model}, {}, {}", driver.unwrap_or("no driver"), build());
        Self { head: head.replace(['\n', '\t'], " "), known: Mutex::default() }
    }

    pub fn get(&self, class: &str) -> Option<String> {
        self.known().names.get(class).cloned()
    }

    pub fn put(&self, class: String, name: String) {
        let mut known = self.known();
        known.names.insert(class, name);
        if let Some(file) = &known.file {
            // Whoever comes next without a file measures again: nothing is lost but time.
            let _ = self.write(file, known.names.clone());
        }
    }

    /// All of them.
    #[cfg(test)]
    pub fn all(&self) -> BTreeMap<String, String> {
        self.known().names.clone()
    }

    /// Has them kept in this folder, and takes what is there from earlier.
    pub fn keep_in(&self, folder: &Path) {
        let digest = Sha256::digest(self.head.as_bytes());
        let name: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let file = folder.join(format!("products-{name}.txt"));
        let mut known = self.known();
        known.names.extend(self.read(&file));
        known.file = Some(file);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, file: &Path) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let mut lines = text.lines();
        if lines.next() != Some(&self.head) {
            return Vec::new();
        }
        let entry =
            |line: &str| line.split_once('\t').map(|(class, name)| (class.to_owned(), name.to_owned()));
        lines.filter_map(entry).take(KEPT_MAX).collect()
    }

    /// Another process finds the file as it was or as it becomes; what it chose meanwhile stays.
    fn write(&self, file: &Path, mut names: BTreeMap<String, String>) -> io::Result<()> {
        let others = self.read(file);
        if others.len() < KEPT_MAX {
            others.into_iter().for_each(|(class, name)| {
                names.entry(class).or_insert(name);
            });
        }
        let lines = names.iter().map(|(class, name)| format!("{class}\t{name}\n"));
        let text: String = std::iter::once(format!("{}\n", self.head)).chain(lines).collect();
        // The same number is a process of another container, too.
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let beside = file.with_extension(format!("{}-{now}.new", std::process::id()));
        File::create_new(&beside)?.write_all(text.as_bytes())?;
        std::fs::rename(&beside, file)
    }
}

/// This build of the program: its file's length and time. Where they are not told no other is the same.
fn build() -> String {
    let told = std::env::current_exe().and_then(std::fs::metadata).and_then(|file| {
        let changed = file.modified()?.duration_since(std::time::UNIX_EPOCH).map_err(io::Error::other)?;
        Ok(format!("{} bytes of {}", file.len(), changed.as_nanos()))
    });
    told.unwrap_or_else(|_| format!("process {}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_outlive_the_process_and_are_of_one_card_and_driver_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let choices = || {
            let choices = Choices::new("a card", Some("a driver"));
            choices.keep_in(folder.path());
            choices
        };
        let first = choices();
        assert_eq!(first.get("large"), None);
        first.put("large".to_owned(), "simple, cmma".to_owned());
        first.put("small".to_owned(), "units".to_owned());
        let second = choices();
        assert_eq!(second.get("large").as_deref(), Some("simple, cmma"));
        assert_eq!(second.get("small").as_deref(), Some("units"));
        let other = Choices::new("a card", Some("another driver"));
        other.keep_in(folder.path());
        assert_eq!(other.get("large"), None);
        other.put("large".to_owned(), "ordered, mma".to_owned());
        assert_eq!(choices().get("large").as_deref(), Some("simple, cmma"), "each card has a file");
        std::fs::read_dir(folder.path()).expect("it is there").flatten().for_each(|file| {
            std::fs::write(file.path(), "another head\nlarge\tunits\n").expect("it is ours");
        });
        assert_eq!(choices().get("large"), None, "a file is believed by its head, not by its name");
    }

    #[test]
    fn who_chooses_at_the_same_time_takes_nothing_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let [first, second, third] = [0; 3].map(|_| {
            let choices = Choices::new("a card", None);
            choices.keep_in(folder.path());
            choices
        });
        first.put("large".to_owned(), "simple, cmma".to_owned());
        second.put("small".to_owned(), "units".to_owned());
        third.keep_in(folder.path());
        assert_eq!(
            [third.get("large").as_deref(), third.get("small").as_deref()],
            [Some("simple, cmma"), Some("units")]
        );
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 1);
        for number in 0..=KEPT_MAX {
            third.known().names.insert(number.to_string(), "units".to_owned());
        }
        third.put("many".to_owned(), "units".to_owned());
        first.put("few".to_owned(), "units".to_owned());
        second.keep_in(folder.path());
        assert_eq!([second.get("few").is_some(), second.get("7").is_some()], [true, false], "begun anew");
    }

    #[test]
    fn a_folder_that_is_not_there_costs_nothing_but_the_memory_of_it() {
        let choices = Choices::new("a card", None);
        choices.keep_in(Path::new("/nowhere/at/all"));
        choices.put("large".to_owned(), "units".to_owned());
        assert_eq!(choices.get("large").as_deref(), Some("units"));
    }
}
