//! `tar`, as far as `kubectl cp` needs it: folders, files and links, to and from a stream.
//!
//! Source of the format: POSIX.1 `pax` (ustar). Names of any length are read from extended headers and written as GNU's
//! long names.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Component, Path, PathBuf},
};

const BLOCK: usize = 512;
const NAME_BYTES: usize = 100;

/// What is asked for: `tar cf - PATH...`, `tar xf - [-C FOLDER] [PATH...]`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    create: bool,
    extract: bool,
    folder: Option<PathBuf>,
    paths: Vec<String>,
}

pub(crate) fn run(arguments: &[String]) -> Result<u8, String> {
    let wish = Wish::parse(arguments)?;
    let folder = wish.folder.clone().unwrap_or_else(|| PathBuf::from("."));
    let done = match (wish.create, wish.extract) {
        (true, false) => create(&folder, &wish.paths, io::stdout().lock()),
        (false, true) => extract(&folder, io::stdin().lock()),
        _ => return Err("tar: use `tar cf - PATH...` or `tar xf - [-C FOLDER]`".to_owned()),
    };
    done.map(|()| 0).map_err(|error| format!("tar: {error}"))
}

impl Wish {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut wish = Self::default();
        let mut rest = arguments.iter().enumerate();
        while let Some((index, argument)) = rest.next() {
            let letters = match argument.strip_prefix('-') {
                _ if argument.starts_with("--") => continue,
                Some(letters) if !letters.is_empty() => letters,
                None if index == 0 => argument,
                _ => {
                    wish.paths.push(argument.clone());
                    continue;
                }
            };
            for letter in letters.chars() {
                let mut value = || rest.next().map(|(_, value)| value).ok_or("tar: a value is missing");
                match letter {
                    'c' => wish.create = true,
                    'x' => wish.extract = true,
                    'f' if value()? != "-" => return Err("tar: only standard streams, `f -`".to_owned()),
                    'C' => wish.folder = Some(PathBuf::from(value()?)),
                    'f' | 'm' | 'o' | 'p' | 'v' => {}
                    other => return Err(format!("tar: unknown option {other}")),
                }
            }
        }
        Ok(wish)
    }
}

fn create(folder: &Path, paths: &[String], mut out: impl Write) -> io::Result<()> {
    for path in paths {
        add(folder, Path::new(path), &mut out)?;
    }
    out.write_all(&[0; 2 * BLOCK])?;
    out.flush()
}

fn add(folder: &Path, path: &Path, out: &mut impl Write) -> io::Result<()> {
    let from = folder.join(path);
    let found = fs::symlink_metadata(&from).map_err(|error| named(&from, &error))?;
    let name = path.to_string_lossy().trim_start_matches('/').to_owned();
    let meta = (found.mode() & 0o7777, found.mtime());
    if found.is_dir() {
        write_entry(out, b'5', &format!("{}/", name.trim_end_matches('/')), "", meta, 0)?;
        let mut inside: Vec<PathBuf> = fs::read_dir(&from)?
            .map(|entry| entry.map(|entry| path.join(entry.file_name())))
            .collect::<Result<_, _>>()?;
        inside.sort();
        return inside.iter().try_for_each(|path| add(folder, path, out));
    }
    if found.is_symlink() {
        let target = fs::read_link(&from)?;
        return write_entry(out, b'2', &name, &target.to_string_lossy(), meta, 0);
    }
    if !found.is_file() {
        return Ok(());
    }
    let mut file = fs::File::open(&from).map_err(|error| named(&from, &error))?;
    write_entry(out, b'0', &name, "", meta, found.len())?;
    let copied = io::copy(&mut Read::by_ref(&mut file).take(found.len()), out)?;
    // A file that shrank meanwhile is filled up: its length is said already.
    io::copy(&mut io::repeat(0).take(found.len() - copied), out)?;
    pad(out, found.len())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn write_entry(
    out: &mut impl Write,
    kind: u8,
    name: &str,
    target: &str,
    (mode, modified): (u32, i64),
    size: u64,
) -> io::Result<()> {
    for (long, kind) in [(name, b'L'), (target, b'K')] {
        if long.len() > NAME_BYTES {
            let size = long.len() as u64;
            out.write_all(&header(kind, "././@LongLink", "", (0o644, 0), size))?;
            out.write_all(long.as_bytes())?;
            pad(out, size)?;
        }
    }
    out.write_all(&header(kind, name, target, (mode, modified), size))
}

fn header(kind: u8, name: &str, target: &str, (mode, modified): (u32, i64), size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name.as_bytes()[..name.len().min(NAME_BYTES)]);
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000\x000000000\x00");
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{:011o}", modified.max(0)).as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &target.as_bytes()[..target.len().min(NAME_BYTES)]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn pad(out: &mut impl Write, size: u64) -> io::Result<()> {
    out.write_all(&[0; BLOCK][..padding(size)])
}

fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// What headers before an entry say about it.
#[derive(Default)]
struct Before {
    name: Option<String>,
    target: Option<String>,
}

fn extract(folder: &Path, mut from: impl Read) -> io::Result<()> {
    let mut before = Before::default();
    let mut block = [0; BLOCK];
    loop {
        from.read_exact(&mut block)?;
        if block == [0; BLOCK] {
            // What follows the end is only there to fill something up.
            io::copy(&mut from, &mut io::sink())?;
            return Ok(());
        }
        let size = octal(&block[124..136])?;
        match block[156] {
            b'L' => before.name = Some(text(&read(&mut from, size)?)),
            b'K' => before.target = Some(text(&read(&mut from, size)?)),
            b'x' => extended(&read(&mut from, size)?, &mut before),
            b'g' => drop(read(&mut from, size)?),
            kind => {
                let Before { name, target } = std::mem::take(&mut before);
                let name = name.unwrap_or_else(|| full_name(&block));
                let target = target.unwrap_or_else(|| text(&block[157..257]));
                let mode = u32::try_from(octal(&block[100..108])?).unwrap_or(0o644);
                make(folder, &name, kind, &target, mode, (&mut from).take(size))?;
            }
        }
        io::copy(&mut (&mut from).take(padding(size) as u64), &mut io::sink())?;
    }
}

fn make(folder: &Path, name: &str, kind: u8, target: &str, mode: u32, mut data: impl Read) -> io::Result<()> {
    let path = folder.join(inside(name)?);
    match kind {
        b'5' => fs::create_dir_all(&path)?,
        b'2' => {
            let _ = fs::remove_file(&path);
            symlink(target, &path)?;
        }
        _ => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let mut file = fs::File::create(&path).map_err(|error| named(&path, &error))?;
            io::copy(&mut data, &mut file)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o777))?;
        }
    }
    io::copy(&mut data, &mut io::sink()).map(drop)
}

/// A path that leads nowhere else.
fn inside(name: &str) -> io::Result<PathBuf> {
    let path = Path::new(name.trim_start_matches('/'));
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(io::Error::other(format!("{name} leads out of the folder")));
    }
    Ok(path.to_owned())
}

fn full_name(block: &[u8; BLOCK]) -> String {
    let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
    if prefix.is_empty() || &block[257..262] != b"ustar" { name } else { format!("{prefix}/{name}") }
}

/// `LENGTH KEY=VALUE\n`, of which only names matter here.
fn extended(records: &[u8], before: &mut Before) {
    for record in String::from_utf8_lossy(records).lines() {
        let Some((key, value)) = record.split_once(' ').and_then(|(_, record)| record.split_once('=')) else {
            continue;
        };
        match key {
            "path" => before.name = Some(value.to_owned()),
            "linkpath" => before.target = Some(value.to_owned()),
            _ => {}
        }
    }
}

fn read(from: &mut impl Read, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn octal(bytes: &[u8]) -> io::Result<u64> {
    let digits = text(bytes);
    let digits = digits.trim();
    if digits.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(digits, 8).map_err(|_| io::Error::other("this is no archive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// A folder of its own for one test; std has none.
    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("toolbox-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn options_are_taken_as_kubectl_writes_them() {
        let created = Wish { create: true, paths: words("/a b"), ..Wish::default() };
        assert_eq!(Wish::parse(&words("cf - /a b")).unwrap(), created);
        let extracted = Wish { extract: true, folder: Some("/to".into()), ..Wish::default() };
        assert_eq!(Wish::parse(&words("--no-same-owner -xmf - -C /to")).unwrap(), extracted);
        assert!(Wish::parse(&words("xf file.tar")).is_err());
    }

    #[test]
    fn a_tree_comes_out_as_it_went_in() {
        let (from, to) = (scratch("from"), scratch("to"));
        let long = "n".repeat(150);
        fs::create_dir_all(from.join("tree/inner")).unwrap();
        fs::write(from.join("tree/inner").join(&long), vec![7; 1000]).unwrap();
        fs::write(from.join("tree/run"), "x").unwrap();
        fs::set_permissions(from.join("tree/run"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("run", from.join("tree/link")).unwrap();
        let mut archive = Vec::new();
        create(&from, &["tree".to_owned()], &mut archive).unwrap();
        assert_eq!(archive.len() % BLOCK, 0);
        extract(&to, archive.as_slice()).unwrap();
        assert_eq!(fs::read(to.join("tree/inner").join(&long)).unwrap(), vec![7; 1000]);
        assert_eq!(fs::metadata(to.join("tree/run")).unwrap().mode() & 0o777, 0o750);
        assert_eq!(fs::read_link(to.join("tree/link")).unwrap(), Path::new("run"));
        fs::remove_dir_all(from).unwrap();
        fs::remove_dir_all(to).unwrap();
    }

    #[test]
    fn names_that_lead_elsewhere_and_broken_archives_are_refused() {
        assert!(inside("../x").is_err() && inside("a/../../x").is_err());
        assert_eq!(inside("/etc/x").unwrap(), Path::new("etc/x"));
        assert!(extract(Path::new("/nowhere"), &[7_u8; 100][..]).is_err());
    }
}
