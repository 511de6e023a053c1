//! Images from files, by the command line, while no agent runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use claw_e2e::{
    binary::clawbernetes,
    kubectl::Outcome,
    need::{self, Need},
};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::made::{self, Layer, Made, gzip};

/// What `docker save` writes.
pub fn docker_archive(image: &Made, names: &[&str]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    let mut layers = Vec::new();
    for (number, content) in image.archives.iter().enumerate() {
        let path = format!("{number}/layer.tar");
        // Of two that are the same, the second is a link.
        match image.archives[..number].iter().position(|other| other == content) {
            Some(first) => add_link(&mut archive, &path, &format!("../{first}/layer.tar")),
            None => add(&mut archive, &path, content),
        }
        layers.push(path);
    }
    add(&mut archive, "config.json", &image.config);
    let list = json!([{"Config": "config.json", "RepoTags": names, "Layers": layers}]);
    add(&mut archive, "manifest.json", list.to_string().as_bytes());
    archive.into_inner().unwrap()
}

fn add(archive: &mut Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content).unwrap();
}

fn add_link(archive: &mut Builder<Vec<u8>>, path: &str, target: &str) {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    archive.append_link(&mut header, path, target).unwrap();
}

/// An OCI layout, with an image under a name.
fn layout(image: &Made, name: &str, folder: &Path) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let contents = image.blobs.values().chain([&image.manifest]);
    for content in contents {
        fs::write(blobs.join(&made::digest(content)[7..]), content).unwrap();
    }
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": image.media_type, "digest": image.digest(), "size": image.manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": name},
    }]});
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
}

/// The command line on a folder of its own.
struct Rig {
    scratch: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        Self { scratch: tempfile::tempdir().unwrap() }
    }

    fn image(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new(clawbernetes());
        command.arg("image").args(args).arg("--data-dir").arg(self.scratch.path().join("data"));
        Outcome::of(&mut command, "")
    }

    fn ok(&self, args: &[&str]) -> String {
        self.image(args).success().unwrap_or_else(|text| panic!("{text}"))
    }

    fn fails(&self, args: &[&str]) -> String {
        let outcome = self.image(args);
        assert_ne!(outcome.code, 0, "{outcome:?}");
        outcome.stderr
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.scratch.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn listed(&self) -> Vec<Value> {
        serde_json::from_str(&self.ok(&["ls", "-o", "json"])).unwrap()
    }
}

fn image() -> Made {
    let same = Layer::new().file("a", b"a").done();
    let other = Layer::new().file("b", b"b").done();
    Made::new(json!({"Cmd": ["x"]}), vec![same.clone(), other, same])
}

#[test]
fn what_docker_saves_is_imported_listed_and_removed() {
    if !need::all("what_docker_saves_is_imported_listed_and_removed", &[Need::Root]) {
        return;
    }
    let (rig, made) = (Rig::new(), image());
    let archive = docker_archive(&made, &["app:v1", "reg.example:5000/team/app:v1"]);
    let file = rig.write("app.tar", &archive);
    assert_eq!(rig.ok(&["import", file.to_str().unwrap()]), "docker.io/library/app:v1\n");
    // Compressed, and once more, and under a name of one's own.
    let file = rig.write("app.tar.gz", &gzip(&archive));
    rig.ok(&["import", file.to_str().unwrap(), "--name", "mine:2"]);
    let listed = rig.listed();
    assert_eq!(listed.len(), 1, "the same image: {listed:?}");
    assert_eq!(listed[0]["id"], made.id());
    assert_eq!(listed[0]["config"]["Cmd"], json!(["x"]));
    let names = ["docker.io/library/app:v1", "docker.io/library/mine:2", "reg.example:5000/team/app:v1"];
    assert_eq!(listed[0]["names"], json!(names));
    let table = rig.ok(&["ls"]);
    assert!(table.starts_with("IMAGE") && names.iter().all(|name| table.contains(name)), "{table}");

    rig.ok(&["rm", "app:v1", "mine:2"]);
    assert_eq!(rig.listed()[0]["names"], json!([names[2]]));
    rig.ok(&["rm", &made.id()[7..19]]);
    assert!(rig.listed().is_empty());
    let layers = rig.scratch.path().join("data/node/images/layers");
    assert_eq!(fs::read_dir(layers).unwrap().count(), 0);
    assert!(rig.fails(&["rm", "app:v1"]).contains("no image \"app:v1\""));
}

#[test]
fn layouts_are_imported_as_folders_and_as_archives() {
    if !need::all("layouts_are_imported_as_folders_and_as_archives", &[Need::Root]) {
        return;
    }
    let (rig, made) = (Rig::new(), image());
    let folder = rig.scratch.path().join("layout");
    layout(&made, "reg.example/app:v1", &folder);
    assert_eq!(rig.ok(&["import", folder.to_str().unwrap()]), "reg.example/app:v1\n");
    let digest = format!("reg.example/app@{}", made.digest());
    assert_eq!(rig.listed()[0]["digests"], json!([digest]));

    let mut archive = Builder::new(Vec::new());
    archive.append_dir_all(".", &folder).unwrap();
    let file = rig.write("layout.tar", &archive.into_inner().unwrap());
    rig.ok(&["import", file.to_str().unwrap(), "--name", "again:1"]);
    assert_eq!(rig.listed().len(), 1);
}

#[test]
fn files_that_lie_or_lack_something_are_refused_and_leave_nothing() {
    if !need::all("files_that_lie_or_lack_something_are_refused_and_leave_nothing", &[Need::Root]) {
        return;
    }
    let (rig, made) = (Rig::new(), image());
    let folder = rig.scratch.path().join("layout");
    layout(&made, "app:v1", &folder);
    let blob = |digest: &str| folder.join("blobs/sha256").join(&digest[7..]);
    let import = || rig.fails(&["import", folder.to_str().unwrap()]);
    let layer = &made.layers[1];
    let whole = fs::read(blob(layer)).unwrap();

    fs::write(blob(layer), gzip(&Layer::new().file("b", b"c").done())).unwrap();
    assert!(import().contains(&format!("should be {layer}")));
    fs::write(blob(layer), &whole[..whole.len() / 2]).unwrap();
    assert!(import().contains(&format!("should be {layer}")));
    fs::remove_file(blob(layer)).unwrap();
    assert!(import().contains("No such file"));
    // A link out of the folder, to a file that only root may read.
    std::os::unix::fs::symlink("/etc/shadow", blob(layer)).unwrap();
    let error = import();
    assert!(error.contains("opening blobs/sha256"), "{error}");
    fs::remove_file(blob(layer)).unwrap();
    fs::write(blob(layer), &whole).unwrap();
    fs::write(blob(&made.id()), b"{}").unwrap();
    assert!(import().contains("is in truth"));
    let nothing = rig.write("nothing.tar", &Layer::new().file("x", b"x").done());
    assert!(rig.fails(&["import", nothing.to_str().unwrap()]).contains("neither"));
    let text = rig.write("text", b"hello, this is no archive");
    assert!(!rig.fails(&["import", text.to_str().unwrap()]).is_empty());

    assert!(rig.listed().is_empty());
    for kind in ["ingest", "trash", "locks", "pins"] {
        let left = fs::read_dir(rig.scratch.path().join("data/node/images").join(kind)).unwrap().count();
        assert_eq!(left, 0, "{kind}");
    }
}

#[test]
fn a_pull_by_hand_says_what_is_wrong_and_what_to_do() {
    if !need::all("a_pull_by_hand_says_what_is_wrong_and_what_to_do", &[Need::Root]) {
        return;
    }
    let (rig, made) = (Rig::new(), image());
    let registry = super::registry::Registry::with(made.clone(), |_| None);
    let error = rig.fails(&["pull", &registry.name()]);
    assert!(error.contains(&registry.host), "{error}");
    let insecure = format!("--insecure-registry={}", registry.host);
    let pulled = rig.ok(&["pull", &insecure, &registry.name()]);
    assert_eq!(pulled, format!("{}/app@{}\n", registry.host, made.digest()));
    let missing = rig.fails(&["pull", &insecure, &format!("{}/app:v2", registry.host)]);
    assert!(missing.contains("404"), "{missing}");
    assert!(rig.fails(&["pull", "UPPER"]).contains("couldn't parse image name"));
}
