//! What was found to be the fastest, remembered: in memory, and in a file where a folder for it is given.
//!
//! A choice holds for one model of card, one driver and one build of this program: kernels of another build are other kernels, whatever
//! they are called. So all three stand at the head of the file, and a file with another head is begun anew.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
            let _ = self.write(file, &known.names);
        }
    }

    /// All of them.
    #[cfg(test)]
    pub fn all(&self) -> BTreeMap<String, String> {
        self.known().names.clone()
    }

    /// Has them kept in this folder, and takes what is there from earlier.
    pub fn keep_in(&self, folder: &Path) {
        let file = folder.join("products.txt");
        let mut known = self.known();
        if let Ok(text) = std::fs::read_to_string(&file) {
            known.names.extend(self.read(&text));
        }
        known.file = Some(file);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, text: &str) -> Vec<(String, String)> {
        let mut lines = text.lines();
        if lines.next() != Some(&self.head) {
            return Vec::new();
        }
        let entry =
            |line: &str| line.split_once('\t').map(|(class, name)| (class.to_owned(), name.to_owned()));
        lines.filter_map(entry).collect()
    }

    /// Another process finds the file as it was or as it becomes.
    fn write(&self, file: &Path, names: &BTreeMap<String, String>) -> io::Result<()> {
        let lines = names.iter().map(|(class, name)| format!("{class}\t{name}\n"));
        let text: String = std::iter::once(format!("{}\n", self.head)).chain(lines).collect();
        let beside = file.with_extension(format!("{}.new", std::process::id()));
        std::fs::write(&beside, text)?;
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
        assert_eq!(choices().get("large"), None, "the file is another card's now");
    }

    #[test]
    fn a_folder_that_is_not_there_costs_nothing_but_the_memory_of_it() {
        let choices = Choices::new("a card", None);
        choices.keep_in(Path::new("/nowhere/at/all"));
        choices.put("large".to_owned(), "units".to_owned());
        assert_eq!(choices.get("large").as_deref(), Some("units"));
    }
}
