//! Tensors in files, in the format that a file's name says: NumPy's, text, or elements as they lie in memory.

use super::{npy, numbers};
use claw_graph::TensorType;
use claw_graph::order::Reason;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

/// Bytes of a text that one number may take, with what separates it from the next: the longest that makes sense is a third.
const NUMBER_BYTES_MAX: u64 = 64;
/// Bytes that a text may have beside its numbers.
const TEXT_BYTES_EXTRA: u64 = 4_096;

/// How elements are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Npy,
    Text,
    Memory,
}

impl Format {
    fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => Self::Npy,
            Some("txt") => Self::Text,
            _ => Self::Memory,
        }
    }
}

/// The elements of a tensor from a file, as they lie in memory. Nothing is read before its size was looked at.
///
/// # Errors
/// When the file is not there, or holds something else; without its name.
pub fn read(path: &Path, of: &TensorType) -> Result<Vec<u8>, String> {
    let words = |error: io::Error| error.to_string();
    // A pipe would wait for a writer as soon as it is opened.
    let found = fs::metadata(path).map_err(words)?;
    if !found.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let mut file = File::open(path).map_err(words)?;
    match Format::of(path) {
        Format::Text => read_text(file, found.len(), of),
        Format::Memory => read_elements(file, found.len(), 0, of),
        Format::Npy => {
            let header = npy::read_header(of, &mut file)?;
            read_elements(file, found.len(), header as u64, of)
        }
    }
}

fn read_elements(mut file: File, length: u64, before: u64, of: &TensorType) -> Result<Vec<u8>, String> {
    let needed = of.size_bytes();
    if length != before + needed as u64 {
        return Err(format!("{of} has {needed} bytes, and the file has {}", length.saturating_sub(before)));
    }
    let mut bytes = vec![0; needed];
    file.read_exact(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn read_text(file: File, length: u64, of: &TensorType) -> Result<Vec<u8>, String> {
    let elements = of.shape.elements();
    let longest = elements as u64 * NUMBER_BYTES_MAX + TEXT_BYTES_EXTRA;
    if length > longest {
        return Err(format!("{of} as a text has at most {longest} bytes, and the file has {length}"));
    }
    let mut text = String::new();
    file.take(longest).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let mut bytes = Vec::with_capacity(of.size_bytes());
    let mut count = 0;
    for word in text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty()) {
        let value: f64 = word.parse().map_err(|_| format!("{word:?} is no number"))?;
        numbers::encode(of.dtype, value, &mut bytes)?;
        count += 1;
    }
    if count == elements {
        Ok(bytes)
    } else {
        Err(format!("{of} has {elements} elements, and the file has {count}"))
    }
}

/// Why an output cannot be written; without the file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// [`Reason::OutputFailed`] where another machine may have what is missing here, else [`Reason::BadOrder`].
    pub reason: Reason,
    pub why: String,
}

impl Refusal {
    fn of_the_order(why: impl Into<String>) -> Self {
        Self { reason: Reason::BadOrder, why: why.into() }
    }

    fn at(path: &Path, error: &io::Error) -> Self {
        let reason = if is_of_the_machine(path, error) { Reason::OutputFailed } else { Reason::BadOrder };
        Self { reason, why: error.to_string() }
    }
}

/// Whether a disk or a machine is to blame, and not the path: the same path may be written elsewhere.
fn is_of_the_machine(path: &Path, error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(libc::EROFS) => is_disk_read_only(path),
        Some(
            libc::ENOSPC
            | libc::EDQUOT
            | libc::EFBIG
            | libc::EIO
            | libc::EREMOTEIO
            | libc::ESTALE
            | libc::ENODEV
            | libc::ENXIO
            | libc::ETIMEDOUT
            | libc::ENOTCONN
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENOMEM
            | libc::EMFILE
            | libc::ENFILE,
        ) => true,
        _ => false,
    }
}

/// Whether the file system itself takes no writes, as it does after errors. A place that was mounted read-only is so on every machine, and
/// so is the root of a container, whatever it is made of.
fn is_disk_read_only(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let existing = path.ancestors().find_map(|folder| fs::canonicalize(folder).ok());
    existing.is_some_and(|path| is_read_only_below(&mounts, &path))
}

/// The same by the kernel's list of mounts (proc(5), `/proc/pid/mountinfo`).
fn is_read_only_below(mounts: &str, path: &Path) -> bool {
    let mount = |line: &str| {
        let (own, of_disk) = line.split_once(" - ")?;
        let (place, options) = (own.split(' ').nth(4)?, of_disk.split(' ').nth(2)?);
        let is_read_only = options.split(',').any(|option| option == "ro");
        Some((PathBuf::from(place.replace("\\040", " ")), is_read_only))
    };
    // Of two at one place the later one is on top.
    let below = mounts.lines().filter_map(mount).filter(|(place, _)| path.starts_with(place));
    below
        .max_by_key(|(place, _)| place.components().count())
        .is_some_and(|(place, is_read_only)| is_read_only && place != Path::new("/"))
}

/// A file that will be written. What was there stays until all of the new one is on the disk.
#[derive(Debug)]
pub struct Destination {
    path: PathBuf,
    beside: PathBuf,
    file: File,
}

impl Destination {
    /// Makes sure that such a tensor can be written there.
    ///
    /// # Errors
    /// When the folder cannot be made or written to, or the format has no such type.
    pub fn prepare(path: &Path, of: &TensorType) -> Result<Self, Refusal> {
        if Format::of(path) == Format::Npy {
            npy::descriptor(of.dtype).map_err(Refusal::of_the_order)?;
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Refusal::of_the_order("it is no name of a file"));
        };
        fs::create_dir_all(folder).map_err(|error| Refusal::at(folder, &error))?;
        if path.is_dir() {
            return Err(Refusal::of_the_order("it is a folder"));
        }
        let beside = folder.join(format!(".{}.partial", name.to_string_lossy()));
        let file = File::create(&beside).map_err(|error| Refusal::at(folder, &error))?;
        Ok(Self { path: path.to_owned(), beside, file })
    }

    /// Where it will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the elements, and gives the file its name.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self, of: &TensorType, bytes: &[u8]) -> Result<(), Refusal> {
        self.try_to_write(of, bytes).map_err(|error| Refusal::at(&self.path, &error))
    }

    fn try_to_write(&self, of: &TensorType, bytes: &[u8]) -> io::Result<()> {
        let mut to = BufWriter::new(&self.file);
        match Format::of(&self.path) {
            Format::Memory => to.write_all(bytes)?,
            Format::Npy => {
                npy::write_header(of, &mut to)?;
                to.write_all(bytes)?;
            }
            Format::Text => write_text(of, bytes, &mut to)?,
        }
        to.flush()?;
        drop(to);
        self.file.sync_all()?;
        fs::rename(&self.beside, &self.path)
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        // Not there any more if it got its name.
        let _ = fs::remove_file(&self.beside);
    }
}

/// A line for each row of the last axis.
fn write_text(of: &TensorType, bytes: &[u8], to: &mut impl Write) -> io::Result<()> {
    let row = of.shape.last().copied().unwrap_or(1);
    for (number, word) in numbers::words(of.dtype, bytes).enumerate() {
        let end = if (number + 1).is_multiple_of(row) { '\n' } else { ' ' };
        write!(to, "{word}{end}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use claw_graph::{DType, Shape};

    fn of(dtype: DType, extents: &[usize]) -> TensorType {
        TensorType::new(dtype, Shape::new(extents.to_vec()).unwrap())
    }

    fn elements(of: &TensorType, values: &[f64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        values.iter().try_for_each(|value| numbers::encode(of.dtype, *value, &mut bytes)).unwrap();
        bytes
    }

    #[test]
    fn every_format_gives_back_what_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = [0.1, f64::NAN, f64::INFINITY, -1e-30, 12_345.678, -0.0];
        let all = DType::ALL.iter().flat_map(|dtype| ["x.npy", "x.txt", "x.bin"].map(|name| (*dtype, name)));
        for (dtype, name) in all.filter(|(dtype, name)| (*dtype, *name) != (DType::Bf16, "x.npy")) {
            let of = of(dtype, &[2, 3]);
            let values = if dtype.is_float() { numbers } else { [1.0, -2.0, 127.0, -128.0, 0.0, 7.0] };
            let bytes = elements(&of, &values);
            let path = folder.path().join("deep/er").join(name);
            Destination::prepare(&path, &of).unwrap().write(&of, &bytes).unwrap();
            assert_eq!(read(&path, &of).unwrap(), bytes, "{dtype} in {name}");
        }
        let left: Vec<_> = fs::read_dir(folder.path().join("deep/er"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 3, "nothing lies beside them: {left:?}");
    }

    #[test]
    fn a_text_has_a_line_for_each_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.txt");
        let of = of(DType::F32, &[2, 2]);
        Destination::prepare(&path, &of)
            .unwrap()
            .write(&of, &elements(&of, &[1.0, 2.5, -3.0, 1e20]))
            .unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1.0 2.5\n-3.0 1e20\n");
    }

    #[test]
    fn texts_of_others_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.txt");
        let of = of(DType::F32, &[4]);
        fs::write(&path, " 1,2.5\n\tnan, -Infinity\n").unwrap();
        let bytes = read(&path, &of).unwrap();
        assert_eq!(numbers::words(DType::F32, &bytes).collect::<Vec<_>>(), ["1.0", "2.5", "NaN", "-inf"]);
    }

    #[test]
    fn what_is_not_such_a_tensor_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let of = of(DType::I32, &[2]);
        let long = " ".repeat(5_000);
        for (name, content, why) in [
            ("short", "1234567", "has 8 bytes, and the file has 7"),
            ("long", "123456789", "has 8 bytes, and the file has 9"),
            ("few.txt", "1", "has 2 elements, and the file has 1"),
            ("many.txt", "1 2 3", "has 2 elements, and the file has 3"),
            ("word.txt", "1 two", "\"two\" is no number"),
            ("part.txt", "1 2.5", "2.5 is no i32"),
            ("long.txt", &long, "at most 4224 bytes"),
            ("no.npy", "1 2", "cut off"),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            let said = read(&path, &of).unwrap_err();
            assert!(said.contains(why), "{name}: {said} does not say {why}");
        }
        assert!(read(folder.path(), &of).unwrap_err().contains("regular"));
        assert!(read(&folder.path().join("missing"), &of).is_err());
    }

    #[test]
    fn a_disk_that_takes_no_writes_is_told_from_a_place_that_is_mounted_so() {
        let mounts = "20 1 0:1 / / ro,relatime - overlay overlay ro,lowerdir=/l\n\
                      21 20 8:1 /a /results rw,relatime shared:1 - ext4 /dev/sda ro,errors=remount-ro\n\
                      22 20 8:1 /b /results/fixed\\040ones ro,relatime - ext4 /dev/sda rw\n\
                      23 20 8:1 /c /over rw - ext4 /dev/sda ro\n\
                      24 20 0:2 / /over rw - tmpfs tmpfs rw\n";
        let is_read_only = |path: &str| is_read_only_below(mounts, Path::new(path));
        assert!(is_read_only("/results/x") && is_read_only("/results"));
        for (path, why) in [
            ("/results/fixed ones/x", "it is mounted so"),
            ("/over/x", "what is on top counts"),
            ("/x", "the root is so everywhere"),
            ("/results2/x", "that is another folder"),
        ] {
            assert!(!is_read_only(path), "{path}: {why}");
        }
        assert!(!is_read_only_below("", Path::new("/x")));
    }

    #[test]
    fn a_file_stays_as_it_was_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "before").unwrap();
        drop(Destination::prepare(&path, &of(DType::I8, &[3])).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        for (name, dtype) in [("x/below", DType::I8), ("x.npy", DType::Bf16), ("..", DType::I8)] {
            assert!(Destination::prepare(&folder.path().join(name), &of(dtype, &[3])).is_err(), "{name}");
        }
    }
}
