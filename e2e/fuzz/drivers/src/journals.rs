//! The journal of the store: segments whose checksums are right and whose content may be anything.

use std::{cell::OnceCell, collections::BTreeMap, fs, path::PathBuf};

use claw_apiserver::store::{self, Key, Sizes, StoreError};

use crate::{tape::Tape, world};

const SIZES: Sizes = Sizes { segment: 8 << 10, journal: 64 << 20, part: 64 << 10 };

/// Where frames begin.
const START: usize = 4096;

struct Folder {
    scratch: tempfile::TempDir,
}

thread_local! {
    static FOLDER: OnceCell<Folder> = const { OnceCell::new() };
}

impl Folder {
    /// A store that holds nothing.
    fn begin() -> Self {
        let folder = Self { scratch: tempfile::tempdir().unwrap() };
        drop(store::open_sled_with(&folder.data(), SIZES).unwrap());
        folder
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// Puts a segment in the place of the journal.
    fn put(&self, segment: &[u8]) {
        let journal = self.data().join("journal");
        fs::remove_dir_all(&journal).unwrap();
        fs::create_dir(&journal).unwrap();
        fs::write(journal.join("000000000001.log"), segment).unwrap();
    }
}

/// One change: what the bytes say, and what they mean if they mean something.
struct Change {
    bytes: Vec<u8>,
    meaning: Option<(String, Option<Vec<u8>>)>,
}

/// A few frames, written into a segment and opened.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let salt: [u8; 16] = std::array::from_fn(|at| tape.byte() | u8::from(at == 0));
    let mut frames = Vec::new();
    let (mut expected, mut revision, mut is_sound) = (BTreeMap::new(), 0, true);
    while tape.more(frames.len(), 5) {
        let changes: Vec<Change> = (0..1 + tape.below(3)).map(|_| change(&mut tape)).collect();
        let first = if tape.below(12) == 11 { u64::from(tape.byte()) } else { revision + 1 };
        is_sound &= first == revision + 1 || (revision == 0 && first == 0);
        revision = first + changes.len() as u64 - 1;
        frames.push(frame(&salt, first, &changes));
        for change in changes {
            match change.meaning {
                Some((key, Some(value))) => drop(expected.insert(key, value)),
                Some((key, None)) => drop(expected.remove(&key)),
                None => is_sound = false,
            }
        }
    }
    let mut segment = header(&salt);
    segment.extend(frames.concat());
    segment.resize(segment.len().max(SIZES.segment as usize), 0);
    let length = segment.len() as u64;
    segment[..44].copy_from_slice(&header_of(&salt, length));
    opened(&segment, is_sound.then_some((revision, expected)));
}

fn opened(segment: &[u8], expected: Option<(u64, BTreeMap<String, Vec<u8>>)>) {
    let data = FOLDER.with(|folder| {
        let folder = folder.get_or_init(Folder::begin);
        folder.put(segment);
        folder.data()
    });
    match (store::open_sled_with(&data, SIZES), expected) {
        (Ok(store), Some((revision, records))) => {
            assert_eq!(store.revision(), revision);
            let all =
                world::within(|world| world.runtime.block_on(store.list(&Key::everything(), None, 0, None)));
            let found = all
                .unwrap()
                .items
                .into_iter()
                .map(|record| (record.key.as_str().to_owned(), record.value.to_vec()));
            assert_eq!(found.collect::<BTreeMap<_, _>>(), records);
        }
        (Err(StoreError::Unusable(why)), None) => assert!(why.contains("snapshot"), "{why}"),
        // A frame of revision zero says nothing new to a store that knows nothing.
        (Ok(_), None) => panic!("a journal that makes no sense was opened"),
        (Err(error), _) => panic!("{error}"),
    }
}

fn change(tape: &mut Tape<'_>) -> Change {
    let key = format!("/configmaps/{}/{}", tape.pick(&["a", "b"]), tape.pick(&["x", "y", "z"]));
    let length = tape.below(20);
    let value = tape.take(length).to_vec();
    let kind = if tape.below(16) == 15 { tape.byte() } else { 1 + u8::from(tape.below(4) == 3) };
    let mut bytes = vec![kind];
    let stretch = if tape.below(24) == 23 { u32::from(tape.byte()) << 20 } else { 0 };
    bytes.extend((key.len() as u32).to_le_bytes());
    bytes.extend((value.len() as u32 + stretch).to_le_bytes());
    bytes.extend(key.as_bytes());
    bytes.extend(&value);
    let meaning = match kind {
        1 => Some((key, Some(value))),
        2 => Some((key, None)),
        _ => None,
    };
    Change { bytes, meaning: meaning.filter(|_| stretch == 0) }
}

fn frame(salt: &[u8; 16], first: u64, changes: &[Change]) -> Vec<u8> {
    let payload: Vec<u8> = changes.iter().flat_map(|change| change.bytes.clone()).collect();
    let mut checked = (payload.len() as u32).to_le_bytes().to_vec();
    checked.extend((changes.len() as u32).to_le_bytes());
    checked.extend(first.to_le_bytes());
    checked.extend(payload);
    let crc = crc32fast::hash(&[&salt[..], &checked].concat());
    let mut out = [&salt[..4], &crc.to_le_bytes(), &checked].concat();
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

fn header(salt: &[u8; 16]) -> Vec<u8> {
    let mut out = header_of(salt, 0).to_vec();
    out.resize(START, 0);
    out
}

fn header_of(salt: &[u8; 16], length: u64) -> [u8; 44] {
    let mut out = [0; 44];
    out[..8].copy_from_slice(b"clawjrnl");
    out[8..16].copy_from_slice(&1_u64.to_le_bytes());
    out[16..24].copy_from_slice(&length.to_le_bytes());
    out[24..40].copy_from_slice(salt);
    let crc = crc32fast::hash(&out[..40]);
    out[40..].copy_from_slice(&crc.to_le_bytes());
    out
}
