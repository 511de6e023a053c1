//! Files of an image as its containers will see them, read without mounting anything: a small overlayfs in user space.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Component, Path, PathBuf},
};

use crate::overlay;

/// As the kernel.
const LINKS_MAX: usize = 40;

/// Reads a file that the layers (topmost first) make up together; `None` if there is none, or nothing regular. What is
/// longer than `bytes_max` is cut off.
pub(super) fn read(layers: &[PathBuf], path: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = find(layers, Path::new(path))? else { return Ok(None) };
    let mut text = Vec::new();
    File::open(file)?.take(bytes_max).read_to_end(&mut text)?;
    Ok(Some(text))
}

/// What one name in merged folders stands for.
enum Found {
    Nothing,
    /// In these layers, topmost first.
    Folder(Vec<PathBuf>),
    Link(PathBuf),
    File(PathBuf),
}

fn find(layers: &[PathBuf], path: &Path) -> io::Result<Option<PathBuf>> {
    // Folders that were gone through; each is what the layers have of it.
    let mut way: Vec<Vec<PathBuf>> = vec![layers.to_vec()];
    let mut left: VecDeque<OsString> = VecDeque::new();
    prepend(path, &mut left);
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            // Above the root is the root.
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        match look(way.last().map_or(&[], Vec::as_slice), &name)? {
            Found::Nothing => return Ok(None),
            Found::Folder(folders) => way.push(folders),
            Found::File(file) => return Ok(left.is_empty().then_some(file)),
            Found::Link(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return Ok(None);
                }
                if target.is_absolute() {
                    way.truncate(1);
                }
                prepend(&target, &mut left);
            }
        }
    }
    Ok(None)
}

fn prepend(path: &Path, left: &mut VecDeque<OsString>) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => left.push_front(name.to_owned()),
            Component::ParentDir => left.push_front("..".into()),
            _ => {}
        }
    }
}

fn look(folders: &[PathBuf], name: &OsStr) -> io::Result<Found> {
    let mut merged = Vec::new();
    for folder in folders {
        let path = folder.join(name);
        // None of the folders is a link, and this does not follow one.
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if found.is_dir() {
            let is_opaque = overlay::is_opaque(&path)?;
            merged.push(path);
            if is_opaque {
                break;
            }
            continue;
        }
        if !merged.is_empty() || (found.file_type().is_char_device() && found.rdev() == 0) {
            break;
        }
        return Ok(if found.is_symlink() {
            Found::Link(fs::read_link(&path)?)
        } else if found.is_file() {
            Found::File(path)
        } else {
            Found::Nothing
        });
    }
    Ok(if merged.is_empty() { Found::Nothing } else { Found::Folder(merged) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Two layers, topmost first.
    fn layers(folder: &Path) -> Vec<PathBuf> {
        ["top", "bottom"].map(|name| folder.join(name)).to_vec()
    }

    fn put(layer: &Path, path: &str, text: &str) {
        let path = layer.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn text(layers: &[PathBuf], path: &str) -> Option<String> {
        read(layers, path, 1 << 20).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn upper_layers_come_first_and_links_stay_inside() {
        let folder = tempfile::tempdir().unwrap();
        let layers = layers(folder.path());
        put(&layers[1], "etc/passwd", "bottom");
        put(&layers[1], "etc/group", "groups");
        put(&layers[0], "etc/passwd", "top");
        put(&layers[1], "nix/store/passwd", "stored");
        symlink("/nix/store/passwd", layers[0].join("etc/absolute")).unwrap();
        symlink("../../../../nix/store/passwd", layers[0].join("etc/relative")).unwrap();
        symlink("loop", layers[0].join("etc/loop")).unwrap();
        assert_eq!(text(&layers, "/etc/passwd").as_deref(), Some("top"));
        assert_eq!(text(&layers, "/etc/group").as_deref(), Some("groups"));
        assert_eq!(text(&layers, "/etc/absolute").as_deref(), Some("stored"));
        assert_eq!(text(&layers, "/etc/relative").as_deref(), Some("stored"));
        for nothing in ["/etc/loop", "/etc/missing", "/etc", "/etc/passwd/x"] {
            assert_eq!(text(&layers, nothing), None, "{nothing}");
        }
        assert_eq!(read(&layers, "/etc/passwd", 2).unwrap().unwrap(), b"to");
    }

    #[test]
    fn a_file_over_a_folder_hides_it() {
        let folder = tempfile::tempdir().unwrap();
        let layers = layers(folder.path());
        put(&layers[1], "etc/passwd", "bottom");
        put(&layers[0], "etc", "a file");
        assert_eq!(text(&layers, "/etc/passwd"), None);
        assert_eq!(text(&layers, "/etc").as_deref(), Some("a file"));
    }

    #[test]
    fn what_an_upper_layer_takes_away_is_gone() {
        if !nix::unistd::geteuid().is_root() {
            // Only root may make the marks of overlayfs; the stories with containers say so when they cannot run.
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let layers = layers(folder.path());
        put(&layers[1], "etc/passwd", "bottom");
        put(&layers[1], "opt/a", "bottom");
        put(&layers[0], "opt/b", "top");
        fs::create_dir(layers[0].join("etc")).unwrap();
        let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::empty());
        nix::sys::stat::mknod(&layers[0].join("etc/passwd"), kind, mode, 0).unwrap();
        overlay::make_opaque(&File::open(layers[0].join("opt")).unwrap()).unwrap();
        assert_eq!(text(&layers, "/etc/passwd"), None);
        assert_eq!(text(&layers, "/opt/a"), None);
        assert_eq!(text(&layers, "/opt/b").as_deref(), Some("top"));
    }
}
