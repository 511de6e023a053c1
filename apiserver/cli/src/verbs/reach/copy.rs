//! `cp`: files into a container and out of it, by the `tar` that must be in it.
//!
//! What comes out of a container is not trusted: nothing is written outside of the place that was named, and links are
//! left out.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    part,
    talk::{Ends, Listener, PIECES_MAX, Wish, talk},
};
use crate::verbs::{context::Context, pods, session::Session};

/// An archive travels in pieces of this size.
const PIECE_BYTES: usize = 32 * 1024;

/// What others may do with a file is for its new owner to say.
const MODE_MASK: u32 = 0o755;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A path here, or [NAMESPACE/]POD:PATH
    from: String,
    /// Where to: the other of the two
    to: String,
    /// The container (default: the first)
    #[arg(short = 'c', long)]
    container: Option<String>,
    /// Leave owners and modes to the container
    #[arg(long)]
    no_preserve: bool,
}

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Here(PathBuf),
    Pod { namespace: Option<String>, pod: String, path: String },
}

/// A container to copy from or to.
struct Far<'a> {
    session: &'a Session,
    resource: claw_client::ResourceRef,
    container: String,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let session = context.session()?;
    match (place(&args.from)?, place(&args.to)?) {
        (Place::Here(from), Place::Pod { namespace, pod, path }) => {
            let far = far(&args, &session, namespace, &pod).await?;
            far.put(&from, &path, args.no_preserve).await
        }
        (Place::Pod { namespace, pod, path }, Place::Here(to)) => {
            far(&args, &session, namespace, &pod).await?.get(&path, &to).await
        }
        _ => bail!("one of the two must be in a pod, as [NAMESPACE/]POD:PATH, and the other here"),
    }
}

fn place(text: &str) -> anyhow::Result<Place> {
    if text.starts_with(['/', '.']) {
        return Ok(Place::Here(text.into()));
    }
    let Some((place, path)) = text.split_once(':') else { return Ok(Place::Here(text.into())) };
    let (namespace, pod) = match place.split_once('/') {
        Some((namespace, pod)) => (Some(namespace.to_owned()), pod),
        None => (None, place),
    };
    if pod.is_empty() || pod.contains('/') || path.is_empty() || namespace.as_deref() == Some("") {
        bail!("\"{text}\": write [NAMESPACE/]POD:PATH");
    }
    Ok(Place::Pod { namespace, pod: pod.to_owned(), path: path.to_owned() })
}

async fn far<'a>(
    args: &Args,
    session: &'a Session,
    namespace: Option<String>,
    pod: &str,
) -> anyhow::Result<Far<'a>> {
    let kind = session.kind("v1", "Pod")?;
    let namespace = namespace.unwrap_or_else(|| session.namespace.clone());
    let pod = session.get(&Session::collection(&kind, Some(&namespace)).named(pod)).await?;
    let container = pods::container(&pod, args.container.as_deref(), true)?;
    Ok(Far { session, resource: part(session, &pod, "exec")?, container })
}

impl Far<'_> {
    fn wish(&self, command: &[&str], stdin: bool) -> Wish {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Wish { container: self.container.clone(), command, stdin, tty: false }
    }

    async fn talk(&self, wish: &Wish, ends: Ends<impl Listener>) -> anyhow::Result<()> {
        match talk(self.session, &self.resource, wish, ends).await? {
            0 => Ok(()),
            code => {
                bail!("\"{}\" ended with code {code} in the container", wish.command.join(" "))
            }
        }
    }

    async fn is_folder(&self, path: &str) -> anyhow::Result<bool> {
        let ends = Ends { input: None, sizes: None, listener: Complaints };
        let wish = self.wish(&["test", "-d", path], false);
        Ok(talk(self.session, &self.resource, &wish, ends).await? == 0)
    }

    /// Copies into the container.
    async fn put(&self, from: &Path, to: &str, no_preserve: bool) -> anyhow::Result<()> {
        fs::symlink_metadata(from)
            .with_context(|| format!("{} doesn't exist in local filesystem", from.display()))?;
        let to = to.trim_end_matches('/');
        let to = match self.is_folder(if to.is_empty() { "/" } else { to }).await? {
            true => format!("{to}/{}", name_of(from)?),
            false => to.to_owned(),
        };
        let (folder, name) = to.rsplit_once('/').map_or((".", &*to), |(folder, name)| (folder, name));
        let folder = if folder.is_empty() { "/" } else { folder };
        let mut command = vec!["tar", "-xmf", "-"];
        if no_preserve {
            command.extend(["--no-same-permissions", "--no-same-owner"]);
        }
        command.extend(["-C", folder]);
        let (sender, input) = mpsc::channel(PIECES_MAX);
        let (from, name) = (from.to_owned(), name.to_owned());
        let packing = spawn_blocking(move || pack(&from, &name, Pieces { sender, piece: Vec::new() }));
        let ends = Ends { input: Some(input), sizes: None, listener: Complaints };
        let unpacked = self.talk(&self.wish(&command, true), ends).await;
        // If the container took no more, that says why.
        unpacked?;
        packing.await??;
        Ok(())
    }

    /// Copies out of the container.
    async fn get(&self, from: &str, to: &Path) -> anyhow::Result<()> {
        let from = from.trim_end_matches('/');
        let to = if to.is_dir() { to.join(name_of(Path::new(from))?) } else { to.to_owned() };
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let inside = from.trim_start_matches("./").trim_start_matches('/').to_owned();
        let unpacking =
            spawn_blocking(move || unpack(Assembled { pieces, rest: Bytes::new() }, &inside, &to));
        let ends = Ends { input: None, sizes: None, listener: Archive(sender) };
        let packed = self.talk(&self.wish(&["tar", "cf", "-", from], false), ends).await;
        // If nothing more could be written here, that says why.
        let unpacked = unpacking.await?;
        match unpacked {
            Err(error) if error.is_ours => Err(error.error),
            unpacked => {
                packed?;
                unpacked.map_err(|error| error.error)
            }
        }
    }
}

fn name_of(path: &Path) -> anyhow::Result<String> {
    // ".." and "." have none of their own.
    let whole =
        if path.file_name().is_some() { path.to_owned() } else { fs::canonicalize(path).unwrap_or_default() };
    let name = whole.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| anyhow!("{} has no name to keep", path.display()))
}

/// Passes on what a program complains of.
struct Complaints;

impl Listener for Complaints {
    async fn stdout(&mut self, _: Bytes) -> io::Result<()> {
        Ok(())
    }

    async fn stderr(&mut self, data: Bytes) -> io::Result<()> {
        io::stderr().lock().write_all(&data)
    }
}

/// Takes an archive in.
struct Archive(mpsc::Sender<Bytes>);

impl Listener for Archive {
    async fn stdout(&mut self, data: Bytes) -> io::Result<()> {
        // What follows the end of an archive is nothing; what cannot be written is told by whoever could not.
        let _ = self.0.send(data).await;
        Ok(())
    }

    async fn stderr(&mut self, data: Bytes) -> io::Result<()> {
        io::stderr().lock().write_all(&data)
    }
}

/// An archive on its way out.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(data);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        let is_taken = piece.is_empty() || self.sender.blocking_send(piece).is_ok();
        is_taken.then_some(()).ok_or_else(|| io::Error::other("the container takes no more"))
    }
}

/// An archive as it comes.
struct Assembled {
    pieces: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Assembled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.pieces.blocking_recv().unwrap_or_default();
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

fn pack(from: &Path, name: &str, out: Pieces) -> anyhow::Result<()> {
    let mut archive = tar::Builder::new(out);
    archive.follow_symlinks(false);
    let read = || format!("reading {}", from.display());
    if fs::symlink_metadata(from).with_context(read)?.is_dir() {
        archive.append_dir_all(name, from).with_context(read)?;
    } else {
        archive.append_path_with_name(from, name).with_context(read)?;
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

/// Why nothing more was unpacked: because of this machine, or because of what came.
#[derive(Debug)]
struct NotUnpacked {
    is_ours: bool,
    error: anyhow::Error,
}

impl NotUnpacked {
    fn theirs(error: impl Into<anyhow::Error>) -> Self {
        Self { is_ours: false, error: error.into() }
    }
}

fn unpack(archive: impl Read, inside: &str, to: &Path) -> Result<(), NotUnpacked> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().map_err(NotUnpacked::theirs)? {
        let mut entry = entry.map_err(NotUnpacked::theirs)?;
        let name = entry.path().map_err(NotUnpacked::theirs)?.into_owned();
        let below = below(&name, inside).map_err(NotUnpacked::theirs)?;
        let target = if below.as_os_str().is_empty() { to.to_owned() } else { to.join(below) };
        let kind = entry.header().entry_type();
        let mode = entry.header().mode().unwrap_or(MODE_MASK) & MODE_MASK;
        let written = match () {
            () if kind.is_dir() => fs::create_dir_all(&target),
            () if kind.is_file() => write(&mut entry, &target, mode),
            () => {
                eprintln!("warning: skipping {}: it is no file and no folder", name.display());
                Ok(())
            }
        };
        written.map_err(|error| NotUnpacked {
            is_ours: true,
            error: anyhow::Error::new(error).context(format!("writing {}", target.display())),
        })?;
    }
    Ok(())
}

/// What a name has below the path that was asked for. Names that lead elsewhere are refused.
fn below(name: &Path, inside: &str) -> anyhow::Result<PathBuf> {
    let plain = |path: &Path| -> Option<PathBuf> {
        let parts = path.components().filter(|part| !matches!(part, Component::CurDir | Component::RootDir));
        parts.map(|part| if let Component::Normal(part) = part { Some(part) } else { None }).collect()
    };
    let asked = plain(Path::new(inside));
    let found =
        plain(name).zip(asked).and_then(|(name, asked)| name.strip_prefix(asked).ok().map(Path::to_owned));
    found.ok_or_else(|| anyhow!("the container sent \"{}\", which is not in {inside}", name.display()))
}

fn write(from: &mut impl Read, target: &Path, mode: u32) -> io::Result<()> {
    if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::create(target)?;
    io::copy(from, &mut file)?;
    file.set_permissions(fs::Permissions::from_mode(mode | 0o200))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            // Not by `set_path`, which refuses what must be refused here.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            if kind.is_symlink() {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn places_are_told_apart_as_kubectl_does() {
        let here = |path: &str| Some(Place::Here(path.into()));
        let pod = |namespace: Option<&str>, pod: &str, path: &str| {
            let namespace = namespace.map(str::to_owned);
            Some(Place::Pod { namespace, pod: pod.to_owned(), path: path.to_owned() })
        };
        for (text, expected) in [
            ("file", here("file")),
            ("./a:b", here("./a:b")),
            ("/a:b", here("/a:b")),
            ("web:/tmp/x", pod(None, "web", "/tmp/x")),
            ("team/web:x", pod(Some("team"), "web", "x")),
            ("web:", None),
            (":x", None),
            ("a/b/c:x", None),
        ] {
            assert_eq!(place(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn what_comes_out_lies_below_the_place_that_was_named() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("back");
        let (file, dir, link) = (tar::EntryType::Regular, tar::EntryType::Directory, tar::EntryType::Symlink);
        let good =
            archive(&[("tmp/tree/", dir, ""), ("tmp/tree/a/b", file, "few\n"), ("tmp/tree/link", link, "")]);
        unpack(&good[..], "tmp/tree", &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("a/b")).unwrap(), "few\n");
        assert!(fs::symlink_metadata(to.join("link")).is_err(), "links are left out");
        for name in ["tmp/tree/../../out", "/etc/out", "tmp/treehouse", "../out"] {
            let error = unpack(&archive(&[(name, file, "x")])[..], "tmp/tree", &to).unwrap_err();
            assert!(!error.is_ours && error.error.to_string().contains("is not in tmp/tree"), "{name}");
        }
        assert!(!folder.path().join("out").exists());
    }

    #[test]
    fn one_file_takes_the_name_that_it_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("other");
        let sent = archive(&[("tmp/file", tar::EntryType::Regular, "whole\n")]);
        unpack(&sent[..], "tmp/file", &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "whole\n");
        let half = &sent[..600];
        assert!(
            !unpack(half, "tmp/file", &to).is_err_and(|error| error.is_ours),
            "half an archive is theirs"
        );
    }
}
