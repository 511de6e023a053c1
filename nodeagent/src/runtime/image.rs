//! Images: what a name stands for, and its root folder on disk.
//!
//! Today there is one, the toolbox, which this binary carries with it. Registries come later; an
//! unknown name fails the way a kubelet's failed pull does.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use sha2::{Digest as _, Sha256};

use super::StartFailure;
use crate::{Error, ids};

/// Name of the embedded image, without tag.
pub const TOOLBOX: &str = "clawbernetes.io/toolbox";

/// What it is found as in `/bin`: the names that people type, and that `kubectl cp` needs.
const TOOLBOX_COMMANDS: [&str; 15] = [
    "toolbox", "cat", "echo", "env", "false", "id", "pwd", "sh", "sleep", "stty", "tar", "test", "true",
    "tty", "yes",
];

/// Compiled by the build script.
static TOOLBOX_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/toolbox"));

/// Over a megabyte: once is enough.
static TOOLBOX_DIGEST: LazyLock<String> = LazyLock::new(|| ids::hex(&Sha256::digest(TOOLBOX_PROGRAM)));

/// An image on this machine.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its root folder, read-only by convention.
    pub root: PathBuf,
    /// Run when the container names no command.
    pub entrypoint: Vec<String>,
    /// Environment from the image.
    pub environment: Vec<(String, String)>,
    /// Name and digest.
    pub id: String,
}

/// The images under one folder.
pub struct Images {
    folder: PathBuf,
}

impl Images {
    /// Keeps images in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Finds the image by the name a pod gives, and makes sure that it is on disk.
    pub fn resolve(&self, name: &str, pull_policy: Option<&str>) -> Result<Image, StartFailure> {
        let (repository, tag) = split(name);
        if repository != TOOLBOX {
            let (reason, why) = match pull_policy {
                Some("Never") => ("ErrImageNeverPull", "is not present with pull policy of Never"),
                _ => (
                    "ErrImagePull",
                    "cannot be pulled: this version has no registries or OCI layouts yet, only the built-in clawbernetes.io/toolbox",
                ),
            };
            return Err(StartFailure::new(reason, format!("image \"{name}\" {why}")));
        }
        let digest = &*TOOLBOX_DIGEST;
        let root = self.folder.join(format!("toolbox-{}", &digest[..16]));
        unpack_toolbox(&root).map_err(|error| {
            StartFailure::new("ErrImagePull", format!("image \"{name}\": {}", error.full()))
        })?;
        Ok(Image {
            root,
            entrypoint: vec!["/toolbox".to_owned()],
            environment: vec![("TOOLBOX_TAG".to_owned(), tag.to_owned())],
            id: format!("{TOOLBOX}@sha256:{digest}"),
        })
    }
}

/// Repository and tag of an image name; the tag defaults to `latest`, a digest is dropped.
fn split(name: &str) -> (&str, &str) {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    match name.rsplit_once(':') {
        // A colon before a slash belongs to a port.
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

/// Unpacks beside and renames, so that what exists is complete.
fn unpack_toolbox(root: &Path) -> Result<(), Error> {
    if root.exists() {
        return Ok(());
    }
    let parent = root.parent().unwrap_or(Path::new("/"));
    let beside = parent.join(format!(".unpacking-{}", ids::random()?));
    // The mount points of a container, so that no run needs to create them in its own layer.
    for folder in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var/tmp"] {
        let path = beside.join(folder);
        fs::create_dir_all(&path).map_err(Error::io("creating", &path))?;
    }
    let files: [(&str, &[u8], u32); 6] = [
        ("toolbox", TOOLBOX_PROGRAM, 0o755),
        ("etc/passwd", b"root:x:0:0:root:/root:/toolbox\nnobody:x:65534:65534:nobody:/:/toolbox\n", 0o644),
        ("etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644),
        ("etc/hosts", b"", 0o644),
        ("etc/hostname", b"", 0o644),
        ("etc/resolv.conf", b"", 0o644),
    ];
    for (name, content, mode) in files {
        let path = beside.join(name);
        fs::write(&path, content).map_err(Error::io("writing", &path))?;
        set_mode(&path, mode)?;
    }
    for name in TOOLBOX_COMMANDS {
        std::os::unix::fs::symlink("../toolbox", beside.join("bin").join(name))
            .map_err(Error::io("linking in", &beside))?;
    }
    for folder in ["tmp", "var/tmp"] {
        set_mode(&beside.join(folder), 0o1777)?;
    }
    set_mode(&beside, 0o755)?;
    match fs::rename(&beside, root) {
        Err(_) if root.exists() => fs::remove_dir_all(&beside).map_err(Error::io("removing", &beside)),
        renamed => renamed.map_err(Error::io("creating", root)),
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(Error::io("setting the mode of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_told_from_a_port() {
        assert_eq!(split("clawbernetes.io/toolbox"), ("clawbernetes.io/toolbox", "latest"));
        assert_eq!(split("clawbernetes.io/toolbox:v2"), ("clawbernetes.io/toolbox", "v2"));
        assert_eq!(split("localhost:5000/x"), ("localhost:5000/x", "latest"));
        assert_eq!(split("x:v1@sha256:abc"), ("x", "v1"));
    }

    #[test]
    fn every_tag_of_the_toolbox_is_the_same_program_and_knows_its_tag() {
        let folder = tempfile::tempdir().unwrap();
        let images = Images::new(folder.path().to_owned());
        let one = images.resolve("clawbernetes.io/toolbox:v1", None).unwrap();
        let two = images.resolve("clawbernetes.io/toolbox:v2", None).unwrap();
        assert_eq!(one.root, two.root);
        assert_eq!(two.environment, [("TOOLBOX_TAG".to_owned(), "v2".to_owned())]);
        assert!(one.root.join("toolbox").is_file());
    }

    #[test]
    fn an_unknown_image_says_what_there_is() {
        let failure = Images::new("/nowhere".into()).resolve("nginx:1", None).unwrap_err();
        assert_eq!(failure.reason, "ErrImagePull");
        assert!(
            failure.message.contains("nginx:1") && failure.message.contains(TOOLBOX),
            "{}",
            failure.message
        );
        let failure = Images::new("/nowhere".into()).resolve("nginx:1", Some("Never")).unwrap_err();
        assert_eq!(failure.reason, "ErrImageNeverPull");
    }
}
