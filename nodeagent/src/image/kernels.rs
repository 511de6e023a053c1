//! The image of workers that calculate: this very program, once more, with the machine's libraries around it.
//!
//! The program is linked to the machine's libraries, and drivers of GPUs are of the machine's kernel and cannot come with an image. So containers of
//! this image see the machine's folders of libraries, read-only, where they are. It is the only image that does, and is so by its name alone.
//!
//! Each program has a root of its own below the folder of images, named after what identifies the program's file: one that is replaced
//! while containers of it run is another program.

use std::{
    collections::HashSet,
    fs::{self, Metadata},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use claw_graph::order::VERB;
use claw_schemas::api::places::KEPT;
use sha2::{Digest as _, Sha256};

use super::{
    Image, Settings,
    kept::{self, Kept},
    name::Name,
};
use crate::{Error, ids, rootless::Ids, tree};

/// Registry and repository of the image. Every tag is the same program.
const PLACE: (&str, &str) = ("clawbernetes.io", "kernels");

/// What roots are called, before what identifies their program.
const PREFIX: &str = "kernels-";

/// This program, whatever became of its name.
const OWN: &str = "/proc/self/exe";

/// Its name in the image.
const PROGRAM: &str = "clawbernetes";

/// Who has no rights.
const NOBODY: u32 = 65_534;

/// What containers see of the machine where it is there: libraries, and by what the loader and Vulkan find them.
const SHOWN: [&str; 9] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/vulkan",
    "/etc/vulkan",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf.d",
    "/opt/rocm",
];

/// Where containers find CUDA, wherever the machine has it.
const CUDA: &str = "/usr/local/cuda";

/// Where what containers keep lies, below the folder of images.
const KEPT_BESIDE: &str = "kept-of-kernels";

/// What drivers look for, and complain of in the log where it is not: a folder of the user's session, and those for compiled kernels. All that
/// they keep is half of what a namespace may.
fn environment() -> Vec<String> {
    vec![
        "XDG_RUNTIME_DIR=/tmp".to_owned(),
        format!("MESA_SHADER_CACHE_DIR={KEPT}"),
        "MESA_SHADER_CACHE_MAX_SIZE=16M".to_owned(),
        format!("CUDA_CACHE_PATH={KEPT}/cuda"),
        format!("CUDA_CACHE_MAXSIZE={}", 16 << 20),
    ]
}

/// A folder or a file of the machine that containers see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Where it is.
    pub source: PathBuf,
    /// Where they see it.
    pub target: PathBuf,
}

/// Whether a name means it.
pub(super) fn is_meant(name: &Name) -> bool {
    (name.registry(), name.repository()) == PLACE
}

/// Whether an image, by its id, is this one: its containers say what they do.
pub fn is_id(id: &str) -> bool {
    id.strip_prefix(PLACE.0)
        .and_then(|rest| rest.strip_prefix('/')?.strip_prefix(PLACE.1))
        .is_some_and(|rest| rest.starts_with('@'))
}

/// The image, made below `folder`. `cuda` is the machine's folder of CUDA's compiler and headers, if it has one.
pub(super) fn image(folder: &Path, cuda: Option<&Path>) -> Result<Image, Error> {
    let own = fs::metadata(OWN).map_err(Error::io("looking at", OWN))?;
    let key = key(&own);
    let root = folder.join(format!("{PREFIX}{key}"));
    make(&root, &own)?;
    let cuda = cuda.and_then(|cuda| shown(cuda, Path::new(CUDA)));
    let cuda_env = cuda.iter().flat_map(|cuda| cuda_environment(&cuda.source));
    let env = environment().into_iter().chain(cuda_env).collect();
    let settings = Settings {
        entrypoint: Some(vec![format!("/{PROGRAM}"), VERB.to_owned()]),
        env: Some(env),
        user: Some(user()),
        ..Settings::default()
    };
    let id = format!("{}/{}@{key}", PLACE.0, PLACE.1);
    let libraries = SHOWN.iter().filter_map(|path| shown(Path::new(path), Path::new(path)));
    Ok(Image {
        shown: libraries.chain(cuda).collect(),
        kept: Some(Kept::of_program(&folder.join(KEPT_BESIDE), &key)),
        is_confined: true,
        ..Image::built_in(id, root, settings, own.len())
    })
}

/// Whoever has no rights, or the user whose node this is, where there is nobody else.
fn user() -> String {
    let has_nobody = Ids::of_users().has(NOBODY) && Ids::of_groups().has(NOBODY);
    let id = if has_nobody { NOBODY } else { 0 };
    format!("{id}:{id}")
}

fn shown(source: &Path, target: &Path) -> Option<Shown> {
    // On most machines /lib is a link.
    let source = fs::canonicalize(source).ok()?;
    Some(Shown { source, target: target.to_owned() })
}

/// CUDA's loader of compilers looks where the system's loader does, and for headers where a variable says.
fn cuda_environment(folder: &Path) -> Vec<String> {
    let libraries = ["lib64", "lib"].into_iter().filter(|name| folder.join(name).is_dir());
    let paths: Vec<String> = libraries.map(|name| format!("{CUDA}/{name}")).collect();
    let search = (!paths.is_empty()).then(|| format!("LD_LIBRARY_PATH={}", paths.join(":")));
    std::iter::once(format!("CUDA_PATH={CUDA}")).chain(search).collect()
}

/// What tells a program's file from all others that were ever there.
fn key(file: &Metadata) -> String {
    let facts =
        format!("{} {} {} {} {}", file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec());
    ids::hex(&Sha256::digest(facts.as_bytes()))[..16].to_owned()
}

/// Removes what belongs to programs that are neither this one nor in use: `in_use` are ids of images.
pub(super) fn sweep(folder: &Path, in_use: &HashSet<String>) -> Result<(), Error> {
    let own = key(&fs::metadata(OWN).map_err(Error::io("looking at", OWN))?);
    let is_used = |key: &str| key == own || in_use.iter().any(|id| id.ends_with(&format!("@{key}")));
    for root in roots(folder)? {
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        if !is_used(name.trim_start_matches(PREFIX)) {
            tree::remove(&root).map_err(Error::io("removing", &root))?;
        }
    }
    kept::sweep(&folder.join(KEPT_BESIDE), is_used)
}

/// How many programs have a root or have kept something.
pub(super) fn programs(folder: &Path) -> Result<usize, Error> {
    Ok(roots(folder)?.len().max(kept::entries(&folder.join(KEPT_BESIDE))?.len()))
}

/// Roots of all programs.
fn roots(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(Error::io("reading", folder))?;
    let is_root =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
    Ok(entries.flatten().map(|entry| entry.path()).filter(is_root).collect())
}

/// Makes it beside and renames, so that what exists is complete.
fn make(root: &Path, own: &Metadata) -> Result<(), Error> {
    if root.exists() {
        return Ok(());
    }
    let parent = root.parent().unwrap_or(Path::new("/"));
    let beside = parent.join(format!(".unpacking-{}", ids::random()?));
    let creating = |path: &Path| fs::create_dir_all(path).map_err(Error::io("creating", path));
    // The mount points of a container, so that no run needs to create them in its own layer.
    for folder in
        ["dev", "etc", "inputs", "job", KEPT.trim_start_matches('/'), "proc", "sys", "tmp", "volumes"]
    {
        creating(&beside.join(folder))?;
    }
    let below = |path: &Path| beside.join(path.strip_prefix("/").unwrap_or(path));
    for path in SHOWN.iter().map(Path::new).chain([Path::new(CUDA)]) {
        if path.is_file() {
            write(&below(path), "")?;
        } else {
            creating(&below(path))?;
        }
    }
    let files = [
        ("etc/passwd", "root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/:/\n"),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        ("etc/hosts", ""),
        ("etc/hostname", ""),
        ("etc/resolv.conf", ""),
    ];
    files.iter().try_for_each(|(name, text)| write(&beside.join(name), text))?;
    place(own, &beside.join(PROGRAM))?;
    set_mode(&beside.join("tmp"), 0o1777)?;
    set_mode(&beside, 0o755)?;
    match fs::rename(&beside, root) {
        Err(_) if root.exists() => fs::remove_dir_all(&beside).map_err(Error::io("removing", &beside)),
        renamed => renamed.map_err(Error::io("creating", root)),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::io("writing", path))?;
    set_mode(path, 0o644)
}

/// The program under another name, which takes no room; or a copy, if it lies on another disk, has no name any more, is not for everybody, or
/// belongs to somebody whose files may not be given more names.
fn place(own: &Metadata, target: &Path) -> Result<(), Error> {
    if link(own, target).is_some() {
        return Ok(());
    }
    let _ = fs::remove_file(target);
    fs::copy(OWN, target).map_err(Error::io("copying this program to", target))?;
    set_mode(target, 0o755)
}

fn link(own: &Metadata, target: &Path) -> Option<()> {
    let path = fs::read_link(OWN).ok().filter(|_| own.mode() & 0o555 == 0o555)?;
    fs::hard_link(path, target).ok()?;
    // Its name may be another's by now.
    let linked = fs::symlink_metadata(target).ok()?;
    ((linked.dev(), linked.ino()) == (own.dev(), own.ino())).then_some(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(Error::io("setting the mode of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(folder: &Path) -> Image {
        image(folder, None).unwrap()
    }

    #[test]
    fn every_tag_of_the_image_is_this_program() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["clawbernetes.io/kernels:1", "clawbernetes.io/kernels"] {
            assert!(is_meant(&Name::parse(name).unwrap()));
        }
        assert!(!is_meant(&Name::parse("kernels:1").unwrap()));
        assert!(!is_id("clawbernetes.io/kernels-of-others@1") && !is_id("docker.io/library/x@sha256:1"));
        let image = made(folder.path());
        let program = fs::metadata(image.layers[0].join(PROGRAM)).unwrap();
        assert_eq!((program.len(), program.mode() & 0o555), (fs::metadata(OWN).unwrap().len(), 0o555));
        assert_eq!(image.settings.entrypoint, Some(vec!["/clawbernetes".to_owned(), VERB.to_owned()]));
        assert!(image.is_confined && is_id(&image.id));
        assert_eq!(made(folder.path()).layers, image.layers);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_shown_of_the_machine_is_there_and_has_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let image = made(folder.path());
        assert!(image.shown.iter().any(|shown| shown.target == Path::new("/usr/lib")));
        for shown in &image.shown {
            let place = image.layers[0].join(shown.target.strip_prefix("/").unwrap());
            assert_eq!(place.is_dir(), shown.source.is_dir(), "{shown:?}");
        }
    }

    #[test]
    fn cuda_is_found_wherever_the_machine_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let cuda = tempfile::tempdir().unwrap();
        fs::create_dir(cuda.path().join("lib64")).unwrap();
        let image = image(folder.path(), Some(cuda.path())).unwrap();
        let source = fs::canonicalize(cuda.path()).unwrap();
        assert!(image.shown.contains(&Shown { source, target: CUDA.into() }));
        let expected = ["CUDA_PATH=/usr/local/cuda", "LD_LIBRARY_PATH=/usr/local/cuda/lib64"];
        assert!(image.settings.env.unwrap().ends_with(&expected.map(str::to_owned)));
    }

    #[test]
    fn programs_that_nobody_uses_any_more_go_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let own = made(folder.path()).layers.remove(0);
        let other = |key: &str| folder.path().join(format!("{PREFIX}{key}"));
        for key in ["used", "unused"] {
            fs::create_dir_all(other(key).join("etc")).unwrap();
        }
        let in_use =
            HashSet::from(["clawbernetes.io/kernels@used".to_owned(), "x@sha256:unused1".to_owned()]);
        sweep(folder.path(), &in_use).unwrap();
        assert!(own.join(PROGRAM).exists() && other("used").exists() && !other("unused").exists());
        let kept = folder.path().join(KEPT_BESIDE);
        for key in ["used", "unused"] {
            Kept::of_program(&kept, key).for_namespace("a").unwrap();
        }
        assert_eq!(programs(folder.path()).unwrap(), 2);
        sweep(folder.path(), &in_use).unwrap();
        assert_eq!(kept::entries(&kept).unwrap(), [kept.join("used")]);
        sweep(folder.path(), &HashSet::new()).unwrap();
        assert_eq!(kept::entries(&kept).unwrap().len(), 0);
        assert_eq!(roots(folder.path()).unwrap(), [own]);
    }
}
