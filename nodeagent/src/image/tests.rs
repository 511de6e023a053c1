//! Layers that are made by hand, good ones and bad ones.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::{Compression, write::GzEncoder};
use tar::{Builder, EntryType, Header};

use super::{
    Digest, Limits,
    unpack::{self, Unpacked},
};
use crate::Error;

/// One entry. Names are written as they are, unlike by those who mean well.
fn entry(archive: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, link: &str, mode: u32, content: &[u8]) {
    let mut header = Header::new_gnu();
    let put = |field: &mut [u8], text: &str| field[..text.len()].copy_from_slice(text.as_bytes());
    put(&mut header.as_gnu_mut().unwrap().name, name);
    put(&mut header.as_gnu_mut().unwrap().linkname, link);
    header.set_entry_type(kind);
    header.set_mode(mode);
    // Whoever runs the tests may give away nothing.
    header.set_uid(nix::unistd::geteuid().as_raw().into());
    header.set_gid(nix::unistd::getegid().as_raw().into());
    header.set_mtime(1_000_000_000);
    header.set_size(content.len() as u64);
    header.set_cksum();
    archive.append(&header, content).unwrap();
}

fn archive(build: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    build(&mut archive);
    archive.into_inner().unwrap()
}

fn file(archive: &mut Builder<Vec<u8>>, name: &str, content: &str) {
    entry(archive, EntryType::Regular, name, "", 0o644, content.as_bytes());
}

fn link(archive: &mut Builder<Vec<u8>>, name: &str, target: &str) {
    entry(archive, EntryType::Symlink, name, target, 0o777, b"");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn unpack_with(bytes: &[u8], into: &Path, limits: &Limits) -> Result<Unpacked, Error> {
    let budget = Arc::new(AtomicU64::new(limits.image_bytes_max));
    unpack::layer(bytes, None, into, limits, &budget)
}

fn unpack(bytes: &[u8], into: &Path) -> Result<Unpacked, Error> {
    unpack_with(bytes, into, &Limits::default())
}

fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    unpack(bytes, folder.path()).unwrap_err().to_string()
}

/// Whether this process may make the marks of overlayfs; the stories with containers say so when they cannot run.
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn a_layer_is_unpacked_the_same_however_it_is_compressed() {
    let plain = archive(|archive| {
        entry(archive, EntryType::Directory, "./bin/", "", 0o755, b"");
        entry(archive, EntryType::Regular, "bin/su", "", 0o4755, b"program");
        entry(archive, EntryType::Link, "bin/sudo", "bin/su", 0o4755, b"");
        link(archive, "bin/sh", "su");
        entry(archive, EntryType::Fifo, "run/pipe", "", 0o600, b"");
        entry(archive, EntryType::Directory, "tmp", "", 0o1777, b"");
    });
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    for compressed in [plain.clone(), gzip(&plain), zstd] {
        let folder = tempfile::tempdir().unwrap();
        let unpacked = unpack(&compressed, folder.path()).unwrap();
        let expected = Unpacked {
            diff_id: Digest::of(&plain),
            bytes: plain.len() as u64,
            digest: Digest::of(&compressed),
        };
        assert_eq!(unpacked, expected);
        let found = |name: &str| fs::symlink_metadata(folder.path().join(name)).unwrap();
        assert_eq!(found("bin/su").mode(), 0o104_755, "set-user-id is kept");
        assert_eq!(found("bin/su").ino(), found("bin/sudo").ino());
        assert_eq!(fs::read(folder.path().join("bin/sh")).unwrap(), b"program");
        assert!(found("run/pipe").file_type().is_fifo());
        assert_eq!(found("tmp").mode(), 0o041_777);
        for name in ["bin", "bin/su", "bin/sh", "tmp"] {
            assert_eq!(found(name).mtime(), 1_000_000_000, "{name}");
        }
    }
}

#[test]
fn whiteouts_become_those_of_overlayfs() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let bytes = archive(|archive| {
        file(archive, "etc/.wh.gone", "");
        file(archive, "opt/.wh..wh..opq", "");
        file(archive, "opt/new", "new");
        file(archive, ".wh..wh.plnk/1.2", "bookkeeping of aufs");
        // What the layer takes away and brings again.
        file(archive, ".wh.var", "");
        entry(archive, EntryType::Directory, "var", "", 0o755, b"");
        entry(archive, EntryType::Directory, "srv", "", 0o755, b"");
        file(archive, "srv/x", "x");
        file(archive, ".wh.srv", "");
        file(archive, ".wh.home", "");
        file(archive, "home", "a file");
    });
    unpack(&bytes, folder.path()).unwrap();
    let opaque = |name: &str| xattr::get(folder.path().join(name), "trusted.overlay.opaque").unwrap();
    let gone = fs::symlink_metadata(folder.path().join("etc/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for name in ["opt", "var", "srv"] {
        assert_eq!(opaque(name).as_deref(), Some(&b"y"[..]), "{name}");
    }
    assert_eq!(opaque("etc"), None);
    assert_eq!(fs::read_to_string(folder.path().join("srv/x")).unwrap(), "x");
    assert_eq!(fs::read_to_string(folder.path().join("home")).unwrap(), "a file");
}

#[test]
fn what_leads_out_of_the_image_is_refused_and_touches_nothing() {
    type Fill<'a> = &'a dyn Fn(&mut Builder<Vec<u8>>);
    let cases: [(&str, Fill<'_>); 9] = [
        ("up", &|archive| file(archive, "../victim", "mine")),
        ("up inside", &|archive| file(archive, "a/../../victim", "mine")),
        ("through a link up", &|archive| {
            link(archive, "out", "..");
            file(archive, "out/victim", "mine");
        }),
        ("through an absolute link", &|archive| {
            link(archive, "out", "/");
            file(archive, "out/victim", "mine");
        }),
        ("through two links", &|archive| {
            link(archive, "a", "b/..");
            link(archive, "b", "..");
            file(archive, "a/victim", "mine");
        }),
        ("a hard link up", &|archive| entry(archive, EntryType::Link, "copy", "../victim", 0o644, b"")),
        ("a hard link through a link", &|archive| {
            link(archive, "out", "..");
            entry(archive, EntryType::Link, "copy", "out/victim", 0o644, b"");
        }),
        ("a whiteout through a link", &|archive| {
            link(archive, "out", "..");
            file(archive, "out/.wh.victim", "");
        }),
        ("a folder through a link", &|archive| {
            link(archive, "out", "..");
            entry(archive, EntryType::Directory, "out/victim", "", 0o777, b"");
        }),
    ];
    for (name, build) in cases {
        let around = tempfile::tempdir().unwrap();
        let (victim, into) = (around.path().join("victim"), around.path().join("layer"));
        fs::write(&victim, "theirs").unwrap();
        fs::create_dir(&into).unwrap();
        let error = unpack(&archive(build), &into).unwrap_err().to_string();
        assert!(error.contains("leads out of the image"), "{name}: {error}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "theirs", "{name}");
        let left: Vec<_> = fs::read_dir(around.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "{name}: {left:?}");
    }
}

#[test]
fn absolute_paths_begin_at_the_root_of_the_layer_as_some_builders_write_them() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = archive(|archive| {
        entry(archive, EntryType::Directory, "/", "", 0o711, b"");
        file(archive, "/bin/x", "x");
        entry(archive, EntryType::Link, "/bin/y", "/bin/x", 0o644, b"");
    });
    unpack(&bytes, folder.path()).unwrap();
    assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o711);
    assert_eq!(fs::read_to_string(folder.path().join("bin/y")).unwrap(), "x");
    assert!(!Path::new("/bin/y").exists());
}

#[test]
fn a_folder_that_comes_many_times_has_the_time_of_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = archive(|archive| {
        for _ in 0..1000 {
            entry(archive, EntryType::Directory, "often", "", 0o755, b"");
        }
        file(archive, "often/x", "x");
    });
    unpack(&bytes, folder.path()).unwrap();
    assert_eq!(fs::metadata(folder.path().join("often")).unwrap().mtime(), 1_000_000_000);
}

#[test]
fn a_layer_whose_folders_would_fill_the_memory_is_refused() {
    let (part, mut names) = ("n".repeat(200), Vec::new());
    let deep = [part.as_str(); 15].join("/");
    let bytes = archive(|archive| {
        for number in 0..23 {
            names.push(format!("{deep}/{number}"));
        }
        for name in &names {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            header.set_uid(nix::unistd::geteuid().as_raw().into());
            header.set_gid(nix::unistd::getegid().as_raw().into());
            header.set_mtime(0);
            header.set_size(0);
            archive.append_data(&mut header, name, &b""[..]).unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let narrow = Limits { folders_bytes_max: 64 << 10, ..Limits::default() };
    let error = unpack_with(&bytes, folder.path(), &narrow).unwrap_err().to_string();
    assert!(error.contains("folders take more than 65536 bytes"), "{error}");
}

#[test]
fn links_that_stay_inside_are_followed_and_may_point_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = archive(|archive| {
        entry(archive, EntryType::Directory, "usr/lib", "", 0o755, b"");
        link(archive, "lib", "usr/lib");
        file(archive, "lib/x", "x");
        link(archive, "etc/mtab", "/proc/mounts");
        link(archive, "etc/up", "../../../../etc/passwd");
    });
    unpack(&bytes, folder.path()).unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("usr/lib/x")).unwrap(), "x");
    assert_eq!(fs::read_link(folder.path().join("etc/mtab")).unwrap(), Path::new("/proc/mounts"));
}

#[test]
fn a_link_is_replaced_by_what_comes_later_and_not_written_through() {
    let around = tempfile::tempdir().unwrap();
    let (victim, into) = (around.path().join("victim"), around.path().join("layer"));
    fs::write(&victim, "theirs").unwrap();
    fs::create_dir(&into).unwrap();
    let bytes = archive(|archive| {
        link(archive, "x", "../victim");
        file(archive, "x", "mine");
        link(archive, "y", "..");
        entry(archive, EntryType::Directory, "y", "", 0o700, b"");
        file(archive, "y/z", "z");
        file(archive, "y", "a file now");
        file(archive, "d/e", "e");
        link(archive, "d", "y2");
        entry(archive, EntryType::Directory, "y2", "", 0o755, b"");
        file(archive, "d/f", "f");
    });
    unpack(&bytes, &into).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "theirs");
    assert_eq!(fs::read_to_string(into.join("x")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(into.join("y")).unwrap(), "a file now");
    assert_eq!(fs::read_to_string(into.join("y2/f")).unwrap(), "f");
}

#[test]
fn devices_and_strange_things_are_refused_by_name() {
    for (kind, complaint) in
        [(EntryType::Char, "device"), (EntryType::Block, "device"), (EntryType::new(b'V'), "not known")]
    {
        let bytes = archive(|archive| {
            let mut header = Header::new_gnu();
            header.set_path("dev/sda").unwrap();
            header.set_entry_type(kind);
            header.set_mode(0o666);
            header.set_device_major(8).unwrap();
            header.set_device_minor(0).unwrap();
            for field in [Header::set_uid, Header::set_gid] {
                field(&mut header, 0);
            }
            header.set_size(0);
            header.set_mtime(0);
            header.set_cksum();
            archive.append(&header, &b""[..]).unwrap();
        });
        let error = refusal(&bytes);
        assert!(error.contains("dev/sda") && error.contains(complaint), "{error}");
    }
    let missing = archive(|archive| entry(archive, EntryType::Link, "a", "b", 0o644, b""));
    assert!(refusal(&missing).contains("not in the layer"));
    let nothing = archive(|archive| file(archive, "a/.wh.", ""));
    assert!(refusal(&nothing).contains("hides nothing"));
}

#[test]
fn bombs_end_before_they_fill_the_disk() {
    let zeros = vec![0; 96 << 20];
    let bomb = gzip(&archive(|archive| entry(archive, EntryType::Regular, "zeros", "", 0o644, &zeros)));
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    let tight = Limits { ratio_max: 50, ..Limits::default() };
    let folder = tempfile::tempdir().unwrap();
    let error = unpack_with(&bomb, folder.path(), &tight).unwrap_err().to_string();
    assert!(error.contains("more than 50 times") && error.contains("--image-ratio-max"), "{error}");
    let written = fs::metadata(folder.path().join("zeros")).unwrap().len();
    assert!(written <= 65 << 20, "{written}");

    let small = Limits { image_bytes_max: 10 << 20, ratio_max: 10_000, ..Limits::default() };
    let folder = tempfile::tempdir().unwrap();
    let error = unpack_with(&bomb, folder.path(), &small).unwrap_err().to_string();
    assert!(error.contains("--image-bytes-max"), "{error}");
    let wide = Limits { ratio_max: 10_000, ..Limits::default() };
    let folder = tempfile::tempdir().unwrap();
    unpack_with(&bomb, folder.path(), &wide).unwrap();

    let many = archive(|archive| (0..5).for_each(|number| file(archive, &number.to_string(), "")));
    let few = Limits { entries_max: 4, ..Limits::default() };
    let folder = tempfile::tempdir().unwrap();
    assert!(unpack_with(&many, folder.path(), &few).unwrap_err().to_string().contains("4 entries"));
}

#[test]
fn layers_of_one_image_share_what_it_may_take() {
    let bytes = archive(|archive| entry(archive, EntryType::Regular, "a", "", 0o644, &[7; 6000]));
    let budget = Arc::new(AtomicU64::new(10_000));
    let unpack = || {
        let folder = tempfile::tempdir().unwrap();
        unpack::layer(&bytes[..], None, folder.path(), &Limits::default(), &budget).map(drop)
    };
    unpack().unwrap();
    assert!(budget.load(Ordering::Relaxed) < 4000);
    assert!(unpack().unwrap_err().to_string().contains("larger than images may be"));
}

#[test]
fn a_header_without_end_is_not_kept_in_memory() {
    for kind in [EntryType::GNULongName, EntryType::XHeader] {
        let name = vec![b'a'; 8 << 20];
        let bytes = archive(|archive| {
            entry(archive, kind, "././@LongLink", "", 0o644, &name);
            file(archive, "a", "a");
        });
        let error = refusal(&bytes);
        assert!(error.contains("header is longer"), "{kind:?}: {error}");
    }
}

#[test]
fn attributes_that_speak_to_overlayfs_are_left_out() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let bytes = archive(|archive| {
        let attributes = [
            ("SCHILY.xattr.trusted.overlay.redirect", &b"/etc"[..]),
            ("SCHILY.xattr.user.overlay.opaque", &b"y"[..]),
            ("SCHILY.xattr.user.mine", &b"kept"[..]),
        ];
        archive.append_pax_extensions(attributes).unwrap();
        file(archive, "a", "a");
    });
    unpack(&bytes, folder.path()).unwrap();
    let value = |name| xattr::get(folder.path().join("a"), name).unwrap();
    assert_eq!((value("trusted.overlay.redirect"), value("user.overlay.opaque")), (None, None));
    assert_eq!(value("user.mine").as_deref(), Some(&b"kept"[..]));
}

#[test]
fn what_is_not_the_promised_archive_is_said_to_be_another() {
    let good = gzip(&archive(|archive| file(archive, "a", "a")));
    let promised = Digest::of(&good);
    let attempt = |bytes: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        let budget = Arc::new(AtomicU64::new(u64::MAX));
        unpack::layer(bytes, Some(&promised), folder.path(), &Limits::default(), &budget)
    };
    attempt(&good).unwrap();
    let other = gzip(&archive(|archive| file(archive, "a", "b")));
    let mut damaged = good.clone();
    damaged[20] ^= 0xff;
    for bytes in [&other[..], &damaged, &good[..good.len() / 2], b""] {
        let error = attempt(bytes).unwrap_err().to_string();
        let came = Digest::of(bytes);
        assert_eq!(error, format!("the layer should be {promised}, and what came is {came}"));
    }
    // Nothing was promised, so this is all that can be said.
    let error = refusal(&good[..good.len() / 2]);
    assert!(error.contains("cannot be read"), "{error}");
}

#[test]
fn an_unpacked_folder_is_not_left_by_who_is_in_it() {
    // A folder that turns into a link while it is the last one used.
    let around = tempfile::tempdir().unwrap();
    let into = around.path().join("layer");
    fs::create_dir(&into).unwrap();
    symlink("..", into.join("trap")).unwrap();
    let bytes = archive(|archive| {
        entry(archive, EntryType::Directory, "safe", "", 0o755, b"");
        file(archive, "safe/a", "a");
        link(archive, "safe", "trap");
        file(archive, "safe/b", "b");
    });
    let error = unpack(&bytes, &into).unwrap_err().to_string();
    assert!(error.contains("leads out"), "{error}");
    assert!(!around.path().join("b").exists());
}
