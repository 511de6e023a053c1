//! A container's root without overlayfs, where it does not stack on what is below (an overlay in a container, some
//! network disks): layer after layer is copied, by the marks that overlayfs would go by.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown, symlink},
    path::{Path, PathBuf},
};

use crate::{Error, overlay};

/// Attributes of files that mean something to who runs them.
const KEPT_ATTRIBUTES: [&str; 2] = ["security.capability", "user."];

/// Copies layers, topmost first, into a folder.
pub(super) fn layers(layers: &[PathBuf], to: &Path) -> Result<(), Error> {
    layers.iter().rev().try_for_each(|layer| folder(layer, to))
}

fn folder(from: &Path, to: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(from).map_err(Error::io("reading", from))? {
        let entry = entry.map_err(Error::io("reading", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let found = fs::symlink_metadata(&source).map_err(Error::io("reading", &source))?;
        let kind = found.file_type();
        let is_whiteout = kind.is_char_device() && found.rdev() == 0;
        let keeps = kind.is_dir() && fs::symlink_metadata(&target).is_ok_and(|there| there.is_dir());
        if !keeps || overlay::is_opaque(&source).unwrap_or(false) {
            remove(&target).map_err(Error::io("replacing", &target))?;
        }
        if is_whiteout {
            continue;
        }
        copy(&source, &target, &found).map_err(Error::io("copying to", &target))?;
        if kind.is_dir() {
            folder(&source, &target)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => crate::tree::remove(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn copy(source: &Path, target: &Path, found: &fs::Metadata) -> io::Result<()> {
    let kind = found.file_type();
    if kind.is_dir() {
        match fs::create_dir(target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    } else if kind.is_symlink() {
        symlink(fs::read_link(source)?, target)?;
        return lchown(target, Some(found.uid()), Some(found.gid()));
    } else if kind.is_fifo() {
        nix::unistd::mkfifo(target, nix::sys::stat::Mode::S_IRUSR)?;
    } else {
        fs::copy(source, target)?;
    }
    // Owners first: changing them takes set-user-id and capabilities away.
    lchown(target, Some(found.uid()), Some(found.gid()))?;
    fs::set_permissions(target, fs::Permissions::from_mode(found.mode() & 0o7777))?;
    for name in xattr::list(source)? {
        let text = name.to_string_lossy();
        if KEPT_ATTRIBUTES.iter().any(|kept| text.starts_with(kept))
            && !text.starts_with(overlay::OF_USERS)
            && let Some(value) = xattr::get(source, &name)?
        {
            xattr::set(target, &name, &value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(layer: &Path, path: &str, text: &str) {
        let path = layer.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn upper_layers_cover_lower_ones_and_take_away() {
        let scratch = tempfile::tempdir().unwrap();
        let [top, bottom, to] = ["top", "bottom", "to"].map(|name| scratch.path().join(name));
        put(&bottom, "kept/a", "a");
        put(&bottom, "gone", "gone");
        put(&bottom, "opt/old", "old");
        put(&bottom, "turned/into", "a file");
        put(&top, "kept/b", "b");
        put(&top, "opt/new", "new");
        put(&top, "turned", "file");
        symlink("kept/a", top.join("link")).unwrap();
        fs::create_dir(&to).unwrap();
        let is_root = nix::unistd::geteuid().is_root();
        if is_root {
            // Only root may make the marks of overlayfs.
            let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::empty());
            nix::sys::stat::mknod(&top.join("gone"), kind, mode, 0).unwrap();
            overlay::make_opaque(&fs::File::open(top.join("opt")).unwrap()).unwrap();
        }
        layers(&[top, bottom], &to).unwrap();
        let text = |path: &str| fs::read_to_string(to.join(path)).ok();
        assert_eq!((text("kept/a"), text("kept/b")), (Some("a".to_owned()), Some("b".to_owned())));
        assert_eq!((text("turned"), text("link")), (Some("file".to_owned()), Some("a".to_owned())));
        assert_eq!(text("opt/new").as_deref(), Some("new"));
        assert_eq!((text("gone").is_none(), text("opt/old").is_none()), (is_root, is_root));
    }
}
