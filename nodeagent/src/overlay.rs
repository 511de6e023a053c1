//! What overlayfs reads of the folders that it stacks.
//!
//! A whiteout is a device of number 0, for everybody. That a folder has nothing of those below is an attribute, which only root of the
//! machine may set; root of an ordinary user has another one, which overlayfs looks for when it is told to.

use std::{fs::File, io, path::Path};

use xattr::FileExt as _;

use crate::rootless;

/// Attributes that a layer must not bring: they would speak to overlayfs.
pub(crate) const OF_USERS: &str = "user.overlay.";

/// What a mount is told beside its folders.
pub(crate) fn option() -> &'static str {
    if rootless::is_inside() { ",userxattr" } else { "" }
}

fn opaque_attribute() -> &'static str {
    if rootless::is_inside() { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
}

/// Says of a folder that it has nothing of lower layers.
pub(crate) fn make_opaque(folder: &File) -> io::Result<()> {
    folder.set_xattr(opaque_attribute(), b"y")
}

/// Whether that was said.
pub(crate) fn is_opaque(folder: &Path) -> io::Result<bool> {
    Ok(xattr::get(folder, opaque_attribute())?.is_some_and(|value| value == b"y"))
}
