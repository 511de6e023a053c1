//! Reads container logs back: since, tail, previous runs, following across rotation.
//!
//! The format is the shim's: `TIME STREAM TAG TEXT`. So are the two files: the shim renames the present one over the one before,
//! and goes on in a new one. What a reader has opened stays whole for it, so it opens what follows while it is still there.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Seek as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::shim::files;

/// Bytes handed on at a time.
const CHUNK_BYTES: usize = 32 * 1024;

/// Files that one reader holds open and on the disk, of 10 MiB each, when a container writes faster than is read.
const FILES_MAX: usize = 4;

/// Which lines, and how they look.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only lines from then on.
    pub since: Option<Timestamp>,
    /// Only so many from the end.
    pub tail: Option<usize>,
    /// With their time.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit_bytes: Option<usize>,
}

/// A place in the log of one run.
pub struct LogReader {
    folder: PathBuf,
    /// What is to be read, oldest first. All but the last are complete.
    files: VecDeque<BufReader<File>>,
    /// Lines to leave out before the tail.
    skip: usize,
    /// A line that is not complete yet.
    partial: Vec<u8>,
    selection: Selection,
    sent: usize,
    /// The last line was only a part: its rest belongs to it.
    mid_line: bool,
}

impl LogReader {
    /// At the beginning of the log in a bundle folder.
    pub fn new(folder: &Path, selection: Selection) -> Self {
        Self {
            folder: folder.to_owned(),
            files: VecDeque::new(),
            skip: 0,
            partial: Vec::new(),
            selection,
            sent: 0,
            mid_line: false,
        }
    }

    /// The beginning of what was asked for, at most one chunk; empty if there is nothing. Follow with [`Self::more`].
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn start(&mut self) -> io::Result<Vec<u8>> {
        self.look()?;
        if let Some(tail) = self.selection.tail {
            self.skip = self.count()?.saturating_sub(tail);
        }
        self.more()
    }

    /// How many lines there are to choose the last from. They are counted first and read again, so that no log has to fit
    /// into memory.
    fn count(&mut self) -> io::Result<usize> {
        let mut count = 0;
        for at in 0..self.files.len() {
            while let Some(line) = self.next_line(at)? {
                count += usize::from(self.render(&line).is_some());
            }
            self.partial.clear();
            self.mid_line = false;
            self.files[at].rewind()?;
        }
        Ok(count)
    }

    /// What comes next, at most one chunk; empty if there is no more yet.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn more(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        // Before it is needed: soon it may be gone.
        if self.files.len() < FILES_MAX {
            self.look()?;
        }
        while out.len() < CHUNK_BYTES {
            let Some(line) = self.advance()? else { break };
            let text = self.render(&line);
            match text {
                Some(_) if self.skip > 0 => self.skip -= 1,
                text => out.extend(text.unwrap_or_default()),
            }
        }
        Ok(self.limited(out))
    }

    /// The next line of any file.
    fn advance(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(line) = self.next_line(0)? {
                return Ok(Some(line));
            }
            if self.files.len() > 1 {
                // It was complete before it was read to its end.
                self.files.pop_front();
                self.partial.clear();
            } else if !self.look()? {
                return Ok(None);
            }
        }
    }

    /// The byte limit is used up.
    pub fn is_full(&self) -> bool {
        self.selection.limit_bytes.is_some_and(|limit| self.sent >= limit)
    }

    /// Opens the files that follow the last one; whether there are any.
    fn look(&mut self) -> io::Result<bool> {
        self.look_while(|| {})
    }

    /// The same, and what happens between two looks at the folder.
    fn look_while(&mut self, mut meanwhile: impl FnMut()) -> io::Result<bool> {
        let (log, rotated) = (self.folder.join(files::LOG), self.folder.join(files::LOG_ROTATED));
        let known = self.files.len();
        loop {
            if self.last().is_some() && self.last() == inode(&log)? {
                break;
            }
            // From here on the last one is complete, and what is not the last one came after it.
            let before = open(&rotated)?;
            let before_is = before.as_ref().map(File::metadata).transpose()?.map(|metadata| metadata.ino());
            meanwhile();
            if let Some(file) = before.filter(|_| before_is != self.last()) {
                self.files.push_back(BufReader::new(file));
                continue;
            }
            let present = open(&log)?;
            // With another rotation in between, there is a file between the two.
            if inode(&rotated)? == before_is {
                self.files.extend(present.map(BufReader::new));
                break;
            }
        }
        Ok(self.files.len() > known)
    }

    /// Which file the last one is.
    fn last(&self) -> Option<u64> {
        self.files.back().and_then(|file| file.get_ref().metadata().ok()).map(|metadata| metadata.ino())
    }

    fn next_line(&mut self, at: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(reader) = self.files.get_mut(at) else { return Ok(None) };
        reader.read_until(b'\n', &mut self.partial)?;
        if self.partial.last() != Some(&b'\n') {
            return Ok(None);
        }
        self.partial.pop();
        Ok(Some(std::mem::take(&mut self.partial)))
    }

    fn render(&mut self, line: &[u8]) -> Option<Vec<u8>> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, _stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if let Some(since) = self.selection.since {
            let written: Timestamp = std::str::from_utf8(time).ok()?.parse().ok()?;
            if written < since {
                return None;
            }
        }
        let mut out = Vec::with_capacity(line.len() + 1);
        if self.selection.timestamps && !self.mid_line {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        self.mid_line = tag == b"P";
        if !self.mid_line {
            out.push(b'\n');
        }
        Some(out)
    }

    fn limited(&mut self, mut out: Vec<u8>) -> Vec<u8> {
        if let Some(limit) = self.selection.limit_bytes {
            out.truncate(limit.saturating_sub(self.sent));
        }
        self.sent += out.len();
        out
    }
}

/// `None` if there is none: in the middle of a rotation, or before the first line.
fn open(path: &Path) -> io::Result<Option<File>> {
    if_there(File::open(path))
}

fn inode(path: &Path) -> io::Result<Option<u64>> {
    Ok(if_there(fs::metadata(path))?.map(|metadata| metadata.ino()))
}

fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write as _};

    fn folder(lines: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join(files::LOG),
            lines.iter().map(|line| format!("{line}\n")).collect::<String>(),
        )
        .unwrap();
        folder
    }

    fn read(folder: &Path, selection: Selection) -> String {
        let mut reader = LogReader::new(folder, selection);
        let mut all = reader.start().unwrap();
        loop {
            let more = reader.more().unwrap();
            if more.is_empty() {
                return String::from_utf8(all).unwrap();
            }
            assert!(more.len() < 2 * CHUNK_BYTES, "a chunk of {} bytes", more.len());
            all.extend(more);
        }
    }

    const LINES: [&str; 3] = [
        "2026-01-01T00:00:01.000000000Z stdout F one",
        "2026-01-01T00:00:02.000000000Z stderr P two ",
        "2026-01-01T00:00:03.000000000Z stderr F and a half",
    ];

    #[test]
    fn parts_are_joined_to_lines() {
        let folder = folder(&LINES);
        assert_eq!(read(folder.path(), Selection::default()), "one\ntwo and a half\n");
    }

    #[test]
    fn lines_are_chosen_by_time_and_from_the_end() {
        let folder = folder(&LINES);
        let since =
            Selection { since: Some("2026-01-01T00:00:02Z".parse().unwrap()), ..Selection::default() };
        assert_eq!(read(folder.path(), since), "two and a half\n");
        let tail = Selection { tail: Some(0), ..Selection::default() };
        assert_eq!(read(folder.path(), tail), "");
        let times = Selection { timestamps: true, limit_bytes: Some(34), ..Selection::default() };
        assert_eq!(read(folder.path(), times), "2026-01-01T00:00:01.000000000Z one");
    }

    #[test]
    fn following_sees_new_lines_across_a_rotation() {
        let folder = folder(&LINES[..1]);
        let path = folder.path().join(files::LOG);
        let mut reader = LogReader::new(folder.path(), Selection::default());
        assert_eq!(reader.start().unwrap(), b"one\n");
        assert_eq!(reader.more().unwrap(), b"");
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        write!(file, "2026-01-01T00:00:04.000000000Z stdout F before").unwrap();
        assert_eq!(reader.more().unwrap(), b"", "a line that is not complete is not handed on");
        writeln!(file).unwrap();
        fs::rename(&path, folder.path().join(files::LOG_ROTATED)).unwrap();
        fs::write(&path, "2026-01-01T00:00:05.000000000Z stdout F after\n").unwrap();
        assert_eq!(reader.more().unwrap(), b"before\nafter\n");
    }

    /// Writes as the shim does.
    struct Shim {
        folder: tempfile::TempDir,
        written: usize,
    }

    impl Shim {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), written: 0 }
        }

        fn reader(&self) -> LogReader {
            LogReader::new(self.folder.path(), Selection::default())
        }

        fn line(&mut self) {
            let path = self.folder.path().join(files::LOG);
            let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            self.written += 1;
            writeln!(file, "2026-01-01T00:00:01.000000000Z stdout F {}", self.written).unwrap();
        }

        fn rename(&self) {
            let path = |name| self.folder.path().join(name);
            fs::rename(path(files::LOG), path(files::LOG_ROTATED)).unwrap();
        }

        /// All of a file and the first line of the next.
        fn rotate(&mut self) {
            self.line();
            self.rename();
            self.line();
        }

        /// What comes until there is no more is all lines from one on.
        fn expect_from(&self, first: usize, reader: &mut LogReader) {
            let mut all = Vec::new();
            loop {
                let more = reader.more().unwrap();
                if more.is_empty() {
                    break;
                }
                all.extend(more);
            }
            let expected: String = (first..=self.written).map(|number| format!("{number}\n")).collect();
            assert_eq!(String::from_utf8(all).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_written_between_the_end_of_a_file_and_its_rotation_is_read() {
        let mut shim = Shim::new();
        shim.line();
        let mut reader = shim.reader();
        assert_eq!(reader.start().unwrap(), b"1\n");
        assert_eq!(reader.next_line(0).unwrap(), None, "its end, for now");
        shim.rotate();
        assert!(reader.look().unwrap());
        shim.expect_from(2, &mut reader);
    }

    #[test]
    fn a_rotation_between_two_looks_at_the_folder_loses_and_doubles_nothing() {
        for rotations in 1..=3 {
            for begins in [true, false] {
                let mut shim = Shim::new();
                shim.rotate();
                let mut reader = shim.reader();
                if !begins {
                    assert_eq!(reader.start().unwrap(), b"1\n2\n");
                    shim.rotate();
                }
                let mut left = rotations;
                let meanwhile = || {
                    if left > 0 {
                        left -= 1;
                        shim.rotate();
                    }
                };
                assert!(reader.look_while(meanwhile).unwrap());
                shim.expect_from(if begins { 1 } else { 3 }, &mut reader);
            }
        }
    }

    #[test]
    fn a_reader_that_is_two_files_behind_reads_both() {
        let mut shim = Shim::new();
        shim.line();
        let mut reader = shim.reader();
        assert_eq!(reader.start().unwrap(), b"1\n");
        shim.rotate();
        shim.rotate();
        shim.expect_from(2, &mut reader);
        for _ in 0..3 {
            shim.rotate();
            assert!(reader.look().unwrap(), "it keeps what it has seen");
        }
        shim.expect_from(6, &mut reader);
    }

    #[test]
    fn between_the_rename_and_the_new_file_there_is_nothing_to_read_yet() {
        let mut shim = Shim::new();
        shim.line();
        let mut reader = shim.reader();
        assert_eq!(reader.start().unwrap(), b"1\n");
        shim.rename();
        assert_eq!(reader.more().unwrap(), b"");
        shim.line();
        shim.expect_from(2, &mut reader);
        shim.rename();
        let mut late = shim.reader();
        assert_eq!(late.start().unwrap(), b"2\n");
        shim.line();
        shim.expect_from(3, &mut late);
        shim.expect_from(3, &mut reader);
    }

    #[test]
    fn nothing_is_there_before_the_first_line_nor_after_all_was_removed() {
        let mut shim = Shim::new();
        let mut reader = shim.reader();
        assert_eq!(reader.start().unwrap(), b"");
        shim.line();
        shim.expect_from(1, &mut reader);
        fs::remove_file(shim.folder.path().join(files::LOG)).unwrap();
        assert_eq!(reader.more().unwrap(), b"");
    }

    #[test]
    fn a_long_log_comes_in_chunks_and_its_tail_is_counted_from_the_end() {
        let lines: Vec<String> =
            (0..20_000).map(|n| format!("2026-01-01T00:00:01.000000000Z stdout F line {n}")).collect();
        let (older, newer) = lines.split_at(15_000);
        let of = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(files::LOG_ROTATED), of(older)).unwrap();
        fs::write(folder.path().join(files::LOG), of(newer)).unwrap();
        let all = read(folder.path(), Selection::default());
        assert_eq!((all.lines().count(), all.lines().last()), (20_000, Some("line 19999")));
        let tail = read(folder.path(), Selection { tail: Some(6_000), ..Selection::default() });
        assert_eq!((tail.lines().count(), tail.lines().next()), (6_000, Some("line 14000")));
    }

    #[test]
    fn the_rotated_file_comes_first() {
        let folder = folder(&LINES[2..]);
        fs::write(folder.path().join(files::LOG_ROTATED), format!("{}\n", LINES[0])).unwrap();
        assert_eq!(read(folder.path(), Selection::default()), "one\nand a half\n");
    }
}
