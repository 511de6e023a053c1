//! Backups: what is written is read, and nothing else is taken for one, whatever checksum stands under it.

use bytes::Bytes;
use claw_apiserver::{
    backup::{self, Pieces},
    store::{Key, Record},
};

use crate::tape::Tape;

fn records(tape: &mut Tape<'_>, revision: u64) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    while tape.more(records.len(), 6) {
        let key = Key::object("", "configmaps", tape.pick(&["a", "b"]), &tape.text(&["x", "y", "z", "é"]));
        let length = tape.below(40);
        let value = Bytes::copy_from_slice(tape.take(length));
        records.push(Record { key, revision: 1 + u64::from(tape.byte()) % revision, value });
    }
    records.sort_by(|a, b| a.key.cmp(&b.key));
    records.dedup_by(|a, b| a.key == b.key);
    records
}

fn written(revision: u64, records: &[Record]) -> Vec<u8> {
    Pieces::new(revision, records.to_vec()).flatten().collect()
}

/// A backup that is sound, then one that is not.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let revision = 1 + u64::from(tape.byte());
    let records = records(&mut tape, revision);
    let sound = written(revision, &records);
    let (found, summary) = read(&sound).expect("what is written is read");
    assert_eq!(
        (found.len(), summary.revision, summary.objects),
        (records.len(), revision, records.len() as u64)
    );
    for (found, record) in found.iter().zip(&records) {
        assert_eq!((&found.key, found.revision, &found.value), (&record.key, record.revision, &record.value));
    }
    let mut harmed = sound.clone();
    while !tape.is_spent() {
        let at = tape.below(harmed.len());
        match tape.below(3) {
            0 => harmed[at] = tape.byte(),
            1 => harmed.truncate(at + 1),
            _ => harmed.insert(at, tape.byte()),
        }
    }
    match read(&harmed) {
        // Only what is written so can be read.
        Ok((found, summary)) => assert!(written(summary.revision, &found) == harmed),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn read(bytes: &[u8]) -> Result<(Vec<Record>, backup::Summary), backup::BackupError> {
    let mut found = Vec::new();
    let summary = backup::read(bytes, |record| found.push(record))?;
    Ok((found, summary))
}
