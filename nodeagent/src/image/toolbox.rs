//! The image that this binary carries with it, so that a cluster has something to run without any registry.
//!
//! Every tag of it is the same program, and tells it its tag.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::LazyLock};

use sha2::{Digest as _, Sha256};

use super::{
    Image, Settings,
    name::{Name, Version},
};
use crate::{Error, ids};

/// Registry and repository of the image.
const PLACE: (&str, &str) = ("clawbernetes.io", "toolbox");

/// Compiled by the build script.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/toolbox"));

/// Over a megabyte: once is enough.
static DIGEST: LazyLock<String> = LazyLock::new(|| ids::hex(&Sha256::digest(PROGRAM)));

/// Whether a name means it.
pub(super) fn is_meant(name: &Name) -> bool {
    (name.registry(), name.repository()) == PLACE
}

/// The image, unpacked below `folder`.
pub(super) fn image(folder: &Path, name: &Name) -> Result<Image, Error> {
    let root = folder.join(format!("toolbox-{}", &DIGEST[..16]));
    unpack(&root)?;
    let tag = match name.version() {
        Version::Tag(tag) => tag,
        Version::Digest(_) => "latest",
    };
    let id = format!("{}/{}@sha256:{}", PLACE.0, PLACE.1, &*DIGEST);
    let settings = Settings {
        entrypoint: Some(vec!["/toolbox".to_owned()]),
        env: Some(vec![format!("TOOLBOX_TAG={tag}")]),
        ..Settings::default()
    };
    Ok(Image::built_in(id, root, settings, PROGRAM.len() as u64))
}

/// What it is found as in `/bin`: the names that people type, and that `kubectl cp` needs.
const COMMANDS: [&str; 16] = [
    "toolbox", "cat", "echo", "env", "false", "id", "ps", "pwd", "sh", "sleep", "stty", "tar", "test",
    "true", "tty", "yes",
];

/// Unpacks beside and renames, so that what exists is complete.
fn unpack(root: &Path) -> Result<(), Error> {
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
        ("toolbox", PROGRAM, 0o755),
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
    for name in COMMANDS {
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
    fn every_tag_of_the_toolbox_is_the_same_program_and_knows_its_tag() {
        let folder = tempfile::tempdir().unwrap();
        let image = |name: &str| {
            let name = Name::parse(name).unwrap();
            assert!(is_meant(&name));
            image(folder.path(), &name).unwrap()
        };
        let (one, two) = (image("clawbernetes.io/toolbox:v1"), image("clawbernetes.io/toolbox:v2"));
        assert_eq!(one.layers, two.layers);
        assert_eq!(two.settings.env, Some(vec!["TOOLBOX_TAG=v2".to_owned()]));
        assert!(one.layers[0].join("toolbox").is_file());
        assert!(!is_meant(&Name::parse("toolbox").unwrap()));
    }
}
