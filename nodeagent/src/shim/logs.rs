//! Writes a container's log: one line per line, `TIME STREAM TAG TEXT`, as CRI runtimes do.
//!
//! The tag is `F` for a whole line and `P` for a part of one that is longer than [`LINE_BYTES_MAX`].

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::files;

/// Longest text in one log line, as in CRI runtimes.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// A container may keep two files of this size: 20 MiB.
const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// The log of one container.
pub(super) struct LogWriter {
    folder: PathBuf,
    file: File,
    written: u64,
    limit: u64,
    /// What found no room on the disk yet.
    waiting: Vec<u8>,
    /// The last line in the file is not whole: its rest waits.
    torn: bool,
}

/// One stream of it, with the line that has not ended yet.
pub(super) struct LogStream {
    name: &'static str,
    pending: Vec<u8>,
}

impl LogWriter {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        Self::with_limit(folder, FILE_BYTES_MAX)
    }

    fn with_limit(folder: &Path, limit: u64) -> io::Result<Self> {
        let file = open(folder)?;
        let written = file.metadata()?.len();
        Ok(Self { folder: folder.to_owned(), file, written, limit, waiting: Vec::new(), torn: false })
    }

    /// Writes one buffer of complete log lines, or keeps what finds no room. Whoever [`Self::waits`] is given no more, so that the
    /// container waits as well, and no line is lost.
    fn write(&mut self, lines: &[u8]) {
        if !self.flush() {
            self.waiting.extend_from_slice(lines);
            return;
        }
        let written = self.append(lines);
        self.waiting.extend_from_slice(&lines[written..]);
    }

    /// Whether something waits for room.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Writes what waits; whether nothing does any more.
    pub(super) fn flush(&mut self) -> bool {
        if self.waits() {
            let waiting = std::mem::take(&mut self.waiting);
            let written = self.append(&waiting);
            self.waiting.extend_from_slice(&waiting[written..]);
        }
        !self.waits()
    }

    /// Gives how much found room.
    fn append(&mut self, lines: &[u8]) -> usize {
        if !self.torn && self.written + lines.len() as u64 > self.limit && self.written > 0 {
            let _ = self.rotate();
        }
        let mut done = 0;
        while done < lines.len() {
            match self.file.write(&lines[done..]) {
                Ok(length) if length > 0 => done += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        self.written += done as u64;
        if done > 0 {
            self.torn = lines[done - 1] != b'\n';
        }
        done
    }

    fn rotate(&mut self) -> io::Result<()> {
        let (log, rotated) = (self.folder.join(files::LOG), self.folder.join(files::LOG_ROTATED));
        match fs::rename(log, rotated) {
            // Done by an earlier try, which found no room for the new file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        self.file = open(&self.folder)?;
        self.written = 0;
        Ok(())
    }
}

fn open(folder: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(folder.join(files::LOG))
}

impl LogStream {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, pending: Vec::new() }
    }

    /// Takes what the container wrote, and passes on every line that is complete.
    pub(super) fn push(&mut self, log: &mut LogWriter, bytes: &[u8], now: Timestamp) {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        for chunk in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(chunk);
            while self.pending.len() > LINE_BYTES_MAX && self.pending.get(LINE_BYTES_MAX) != Some(&b'\n') {
                let rest = self.pending.split_off(LINE_BYTES_MAX);
                self.emit(&mut out, "P", now);
                self.pending = rest;
            }
            if self.pending.last() == Some(&b'\n') {
                self.pending.pop();
                self.emit(&mut out, "F", now);
            }
        }
        if !out.is_empty() {
            log.write(&out);
        }
    }

    /// The stream is over: its last line may lack an end.
    pub(super) fn finish(&mut self, log: &mut LogWriter, now: Timestamp) {
        if !self.pending.is_empty() {
            let mut out = Vec::new();
            self.emit(&mut out, "P", now);
            log.write(&out);
        }
    }

    fn emit(&mut self, out: &mut Vec<u8>, tag: &str, now: Timestamp) {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{now:.9} {} {tag} ", self.name);
        out.append(&mut self.pending);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05.000000006Z".parse().unwrap()
    }

    fn read(folder: &Path, file: &str) -> String {
        fs::read_to_string(folder.join(file)).unwrap()
    }

    #[test]
    fn a_line_is_written_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(folder.path()).unwrap();
        let mut stream = LogStream::new("stdout");
        stream.push(&mut log, b"hel", now());
        assert_eq!(read(folder.path(), files::LOG), "");
        stream.push(&mut log, b"lo\nnext", now());
        assert_eq!(read(folder.path(), files::LOG), "2026-01-02T03:04:05.000000006Z stdout F hello\n");
    }

    #[test]
    fn a_last_line_without_an_end_is_kept_as_a_part() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(folder.path()).unwrap();
        let mut stream = LogStream::new("stderr");
        stream.push(&mut log, b"unfinished", now());
        stream.finish(&mut log, now());
        assert_eq!(read(folder.path(), files::LOG), "2026-01-02T03:04:05.000000006Z stderr P unfinished\n");
    }

    #[test]
    fn a_long_line_is_split_into_parts() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(folder.path()).unwrap();
        let mut stream = LogStream::new("stdout");
        let mut line = vec![b'x'; LINE_BYTES_MAX + 5];
        line.push(b'\n');
        stream.push(&mut log, &line, now());
        let text = read(folder.path(), files::LOG);
        let tags: Vec<&str> = text.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
        assert_eq!(tags, ["P", "F"]);
        assert!(text.ends_with(" F xxxxx\n"));
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(folder.path()).unwrap();
        let mut line = vec![b'x'; LINE_BYTES_MAX];
        line.push(b'\n');
        LogStream::new("stdout").push(&mut log, &line, now());
        assert_eq!(read(folder.path(), files::LOG).matches(" F ").count(), 1);
    }

    #[test]
    fn what_finds_no_room_waits_and_is_written_once_when_there_is_some() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(folder.path()).unwrap();
        let mut stream = LogStream::new("stdout");
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let disk = std::mem::replace(&mut log.file, full);
        stream.push(&mut log, b"one\n", now());
        stream.push(&mut log, b"two\n", now());
        assert!(log.waits() && !log.flush());
        log.file = disk;
        stream.push(&mut log, b"three\n", now());
        assert!(!log.waits());
        let text = read(folder.path(), files::LOG);
        let words: Vec<&str> = text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(words, ["one", "two", "three"]);
    }

    #[test]
    fn a_full_file_is_rotated_and_no_line_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogWriter::with_limit(folder.path(), 200).unwrap();
        let mut stream = LogStream::new("stdout");
        for number in 0..6 {
            stream.push(&mut log, format!("line {number}\n").as_bytes(), now());
        }
        let both = read(folder.path(), files::LOG_ROTATED) + &read(folder.path(), files::LOG);
        let numbers: Vec<&str> = both.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(numbers, ["0", "1", "2", "3", "4", "5"]);
    }
}
