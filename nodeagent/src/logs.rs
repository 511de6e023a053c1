//! Reads container logs back: since, tail, previous runs, following across rotation.
//!
//! The format is the shim's: `TIME STREAM TAG TEXT`.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Seek as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::shim::files;

/// Bytes handed on at a time.
const CHUNK_BYTES: usize = 32 * 1024;

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
    /// The log before the present one, while it is not read to its end.
    older: Option<BufReader<File>>,
    file: Option<BufReader<File>>,
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
            older: None,
            file: None,
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
        // Both stay open, so that a rotation meanwhile loses nothing and counts nothing twice.
        self.older = match File::open(self.folder.join(files::LOG_ROTATED)) {
            Ok(file) => Some(BufReader::new(file)),
            Err(_) => None,
        };
        self.open()?;
        if let Some(tail) = self.selection.tail {
            self.skip = self.count()?.saturating_sub(tail);
        }
        self.more()
    }

    /// How many lines there are to choose the last from. They are counted first and read again, so that no log has to fit
    /// into memory.
    fn count(&mut self) -> io::Result<usize> {
        let mut count = 0;
        let (mut older, mut file) = (self.older.take(), self.file.take());
        for reader in [&mut older, &mut file].into_iter().flatten() {
            while let Some(line) = self.next_line(reader)? {
                count += usize::from(self.render(&line).is_some());
            }
            self.partial.clear();
            self.mid_line = false;
            reader.rewind()?;
        }
        (self.older, self.file) = (older, file);
        Ok(count)
    }

    /// What comes next, at most one chunk; empty if there is no more yet.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn more(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        if self.file.is_none() {
            self.open()?;
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

    /// The next line of either file.
    fn advance(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(mut older) = self.older.take() {
            if let Some(line) = self.next_line(&mut older)? {
                self.older = Some(older);
                return Ok(Some(line));
            }
            // The rotated file is complete.
            self.partial.clear();
        }
        loop {
            let Some(mut reader) = self.file.take() else { return Ok(None) };
            let line = self.next_line(&mut reader)?;
            let rotated = line.is_none() && self.was_rotated(reader.get_ref())?;
            self.file = Some(reader);
            if line.is_some() || !rotated {
                return Ok(line);
            }
            self.open()?;
        }
    }

    /// The byte limit is used up.
    pub fn is_full(&self) -> bool {
        self.selection.limit_bytes.is_some_and(|limit| self.sent >= limit)
    }

    fn open(&mut self) -> io::Result<()> {
        self.file = match File::open(self.folder.join(files::LOG)) {
            Ok(file) => Some(BufReader::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Whether the file of that name is another one by now. The old one is complete then.
    fn was_rotated(&self, file: &File) -> io::Result<bool> {
        match std::fs::metadata(self.folder.join(files::LOG)) {
            Ok(present) => Ok(present.ino() != file.metadata()?.ino()),
            // Between the rename and the new file.
            Err(_) => Ok(false),
        }
    }

    fn next_line(&mut self, reader: &mut BufReader<File>) -> io::Result<Option<Vec<u8>>> {
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
