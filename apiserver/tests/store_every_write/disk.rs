//! A disk that a log of calls is played to, and what may be left of it when the power goes.
//!
//! The promises are those of POSIX and no more: the content of a file is safe when the file was synced, a name when its
//! folder was. Until then anything may have happened to it: file systems promise more, each something else.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

use super::calls::Call;

/// What a device writes whole.
const SECTOR: usize = 512;

type Names = BTreeMap<String, usize>;

enum Node {
    Folder {
        /// The names as of the last sync, then as of each change after it. Never empty.
        names: Vec<Names>,
    },
    File {
        safe: Vec<u8>,
        /// Changes since the last sync.
        since: Vec<Change>,
    },
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLength(u64),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::SetLength(length) => content.resize(*length as usize, 0),
            Self::Write(at, bytes) => put(content, *at as usize, bytes),
        }
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    content.resize(content.len().max(at + bytes.len()), 0);
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

/// What is left after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process was killed: everything is there.
    Kill,
    /// The power went, and nothing had been written but what was synced.
    NothingElse,
    /// The power went; names and lengths had been written, contents not.
    NamesOnly,
    /// The power went; of what was not synced some sectors and some names had been written, as a seed says.
    Some(u64),
}

/// Files and folders, the root first.
pub struct Disk {
    nodes: Vec<Node>,
}

impl Disk {
    pub fn new() -> Self {
        Self { nodes: vec![Node::folder()] }
    }

    /// Plays a call.
    pub fn play(&mut self, call: &Call) {
        match call {
            Call::Create(path) => self.add(path, Node::File { safe: Vec::new(), since: Vec::new() }),
            Call::MakeFolder(path) => self.add(path, Node::folder()),
            Call::Write { path, at, bytes } => self.change(path, Change::Write(*at, bytes.clone())),
            Call::SetLength { path, length } => self.change(path, Change::SetLength(*length)),
            Call::Sync(path) => self.sync(path),
            Call::Rename { from, to } => {
                let moved = self.find(from).expect("what is renamed is there");
                assert_eq!(
                    from.parent(),
                    to.parent(),
                    "nothing is moved between folders, which is no one step"
                );
                self.rename(to, Some(moved), Some(from));
            }
            Call::Remove(path) => self.rename(path, None, None),
            Call::Told(_) => {}
        }
    }

    fn find(&self, path: &Path) -> Option<usize> {
        path.components().try_fold(0, |at, part| match (&self.nodes[at], part) {
            (Node::Folder { names }, Component::Normal(name)) => {
                names.last()?.get(&*name.to_string_lossy()).copied()
            }
            _ => None,
        })
    }

    fn add(&mut self, path: &Path, node: Node) {
        self.nodes.push(node);
        self.rename(path, Some(self.nodes.len() - 1), None);
    }

    /// Gives a name to a node, or takes it away, and takes away another in the same step.
    fn rename(&mut self, path: &Path, node: Option<usize>, before: Option<&Path>) {
        let name = |path: &Path| path.file_name().expect("it has a name").to_string_lossy().into_owned();
        let parent = path.parent().and_then(|parent| self.find(parent)).expect("its folder is there");
        let Node::Folder { names } = &mut self.nodes[parent] else { panic!("{path:?} is not in a folder") };
        let mut now = names.last().expect("never empty").clone();
        before.map(|before| now.remove(&name(before)));
        match node {
            Some(node) => now.insert(name(path), node),
            None => now.remove(&name(path)),
        };
        names.push(now);
    }

    fn change(&mut self, path: &Path, change: Change) {
        // A file that has lost its name is of no interest.
        if let Some(at) = self.find(path)
            && let Node::File { since, .. } = &mut self.nodes[at]
        {
            since.push(change);
        }
    }

    fn sync(&mut self, path: &Path) {
        let Some(at) = self.find(path) else { return };
        match &mut self.nodes[at] {
            Node::Folder { names } => drop(names.drain(..names.len() - 1)),
            Node::File { safe, since } => since.drain(..).for_each(|change| change.apply(safe)),
        }
    }

    /// What is left after a crash.
    pub fn leave(&self, crash: Crash) -> Left {
        let mut dice = Dice(match crash {
            Crash::Some(seed) => seed,
            _ => 0,
        });
        let mut left = Left::new();
        self.leave_node(0, crash, &mut dice, Path::new(""), &mut left);
        left
    }

    fn leave_node(&self, at: usize, crash: Crash, dice: &mut Dice, path: &Path, left: &mut Left) {
        match &self.nodes[at] {
            Node::Folder { names } => {
                let chosen = match crash {
                    Crash::NothingElse => 0,
                    Crash::Kill | Crash::NamesOnly => names.len() - 1,
                    Crash::Some(_) => dice.below(names.len()),
                };
                left.insert(path.to_owned(), None);
                for (name, node) in &names[chosen] {
                    self.leave_node(*node, crash, dice, &path.join(name), left);
                }
            }
            Node::File { safe, since } => {
                let mut content = safe.clone();
                since.iter().for_each(|change| leave_change(change, crash, dice, &mut content));
                left.insert(path.to_owned(), Some(content));
            }
        }
    }
}

/// Files with their content, and folders, by path: a folder comes before what is in it.
pub type Left = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Makes it so, in a folder that is not there yet.
pub fn write(left: &Left, to: &Path) {
    for (path, content) in left {
        match content {
            Some(content) => fs::write(to.join(path), content).unwrap(),
            None => fs::create_dir(to.join(path)).unwrap(),
        }
    }
}

impl Node {
    fn folder() -> Self {
        Self::Folder { names: vec![Names::new()] }
    }
}

fn leave_change(change: &Change, crash: Crash, dice: &mut Dice, content: &mut Vec<u8>) {
    match (crash, change) {
        (Crash::NothingElse, _) => {}
        (Crash::NamesOnly, Change::Write(at, bytes)) => {
            content.resize(content.len().max(*at as usize + bytes.len()), 0);
        }
        (Crash::Some(_), Change::Write(at, bytes)) => {
            let mut at = *at as usize;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (sector, after) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                if dice.below(2) == 0 {
                    put(content, at, sector);
                }
                (at, rest) = (at + sector.len(), after);
            }
        }
        (Crash::Some(_), Change::SetLength(_)) if dice.below(2) == 0 => {}
        (_, change) => change.apply(content),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}
