//! What the hosts of one simulation share beside the network: the disk, the notebook of whoever checks, and the word that
//! it is time to be quiet.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use claw_apiserver::{pki::Pki, store::Store as _};
use claw_e2e::{promises::Promises, told::Told};

use super::{
    disk::{Disk, Sabotage},
    trace::{Trace, What},
};

/// Shared by all hosts of one simulation.
pub struct World {
    pub seed: u64,
    pub trace: Arc<Trace>,
    pub disk: Arc<Disk>,
    pub pki: Arc<Pki>,
    quiet: AtomicBool,
    pub notes: Mutex<Notes>,
}

/// What clients write down for the end.
#[derive(Default)]
pub struct Notes {
    /// What the server has told them.
    pub promises: Promises,
    /// What each watcher was told.
    pub watched: BTreeMap<String, Told>,
    /// Caches, as name → revision.
    pub cached: BTreeMap<String, BTreeMap<String, u64>>,
    /// The newest epoch of each lease that somebody acted under, and who.
    pub acted: BTreeMap<String, (u64, String)>,
    /// What must not be.
    pub violations: Vec<String>,
}

impl World {
    pub fn new(seed: u64, pki: Arc<Pki>, sabotage: Sabotage) -> Arc<Self> {
        let trace = Arc::new(Trace::default());
        let disk = Arc::new(Disk::new(seed, Arc::clone(&trace), sabotage));
        Arc::new(Self { seed, trace, disk, pki, quiet: AtomicBool::new(false), notes: Mutex::default() })
    }

    /// Whether nobody is to change anything any more.
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::SeqCst)
    }

    pub fn be_quiet(&self) {
        self.quiet.store(true, Ordering::SeqCst);
    }

    /// Looks at the notes, or adds to them.
    pub fn note<T>(&self, look: impl FnOnce(&mut Notes) -> T) -> T {
        look(&mut self.notes.lock().expect("nobody panics while writing"))
    }

    /// Writes down that something happened that must not.
    pub fn violated(&self, text: String) {
        self.note(|notes| notes.violations.push(text));
    }

    /// Writes down what does not hold.
    pub fn must<T>(&self, what: &str, held: Result<T, String>) -> Option<T> {
        held.map_err(|problem| self.violated(format!("{what}: {problem}"))).ok()
    }

    /// Where the store is now.
    pub fn disk_revision(&self) -> u64 {
        self.disk.revision()
    }

    /// Traces what a client did.
    pub fn did(&self, who: &str, what: String) {
        self.trace.add(What::Deed(who.to_owned(), what));
    }
}
