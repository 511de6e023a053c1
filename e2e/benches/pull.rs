//! How long an image of 1 GiB in ten layers takes from a registry on the loopback address to folders that containers can be
//! started from, beside `skopeo copy` and `umoci unpack`. Needs root, docker-registry, skopeo and umoci.
//!
//! The layers are files of this machine's `/usr`, in the order of their paths. Rounds alternate, and each begins with nothing.
//! Ours ends when all of it is on the disk; the others leave that to the kernel.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use claw_e2e::{binary, docker_registry::DockerRegistry};
use claw_nodeagent::image::Digest;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

const LAYERS: usize = 10;
const LAYER_BYTES: u64 = (1 << 30) / LAYERS as u64;
const ROUNDS: usize = 5;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn main() -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let registry = DockerRegistry::open(&scratch.path().join("registry"));
    let name = push(&registry)?;
    let work = scratch.path().join("work");
    let (mut ours, mut copies, mut unpacks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        fresh(&work)?;
        let layout = format!("oci:{}:big", work.join("layout").display());
        let source = format!("docker://{name}");
        copies.push(run("skopeo", &["copy", "--quiet", "--src-tls-verify=false", &source, &layout])?);
        let (image, bundle) = (text(&work.join("layout:big")), text(&work.join("bundle")));
        unpacks.push(run("umoci", &["unpack", "--image", &image, &bundle])?);
        fresh(&work)?;
        let (binary, data) = (text(binary::clawbernetes()), text(&work));
        let insecure = format!("--insecure-registry={}", registry.host);
        ours.push(run(&binary, &["image", "pull", "--data-dir", &data, &insecure, &name])?);
    }
    let theirs: Vec<_> = copies.iter().zip(&unpacks).map(|(copy, unpack)| *copy + *unpack).collect();
    println!("| medians of {ROUNDS} | s | least | most |\n|---|---|---|---|");
    row("`clawbernetes image pull`", ours.clone());
    row("`skopeo copy` and `umoci unpack`", theirs.clone());
    row("of these, `umoci unpack`", unpacks);
    println!("\n{:.1} times as fast", median(theirs).as_secs_f64() / median(ours).as_secs_f64());
    Ok(())
}

/// Makes the image and puts it into the registry.
fn push(registry: &DockerRegistry) -> anyhow::Result<String> {
    let mut files = Vec::new();
    walk(Path::new("/usr"), &mut files)?;
    let mut files = files.into_iter();
    let (mut blobs, mut layers, mut diff_ids) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..LAYERS {
        let archive = archive(&mut files)?;
        diff_ids.push(Digest::of(&archive).to_string());
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&archive)?;
        let blob = encoder.finish()?;
        layers.push(described("layer.v1.tar+gzip", &blob));
        blobs.push(blob);
    }
    let compressed: usize = blobs.iter().map(Vec::len).sum();
    println!(
        "{LAYERS} layers, {} MiB compressed, {:?}\n",
        compressed >> 20,
        std::thread::available_parallelism()?
    );
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({"architecture": architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = config.to_string().into_bytes();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
        "config": described("config.v1+json", &config)});
    blobs.push(config);
    let manifest = manifest.to_string();
    let blobs = blobs.iter().map(Vec::as_slice);
    Ok(registry.push("bench/big:1", (MANIFEST, manifest.as_bytes()), blobs))
}

fn described(kind: &str, blob: &[u8]) -> Value {
    json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": Digest::of(blob).to_string(),
        "size": blob.len()})
}

/// Takes files until they fill a layer.
fn archive(files: &mut impl Iterator<Item = (PathBuf, u64)>) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut left = LAYER_BYTES;
    while left > 0 {
        let (path, length) = files.next().context("there is less than 1 GiB in /usr")?;
        let inside = path.strip_prefix("/")?;
        archive.append_file(inside, &mut File::open(&path)?)?;
        left = left.saturating_sub(length);
    }
    Ok(archive.into_inner()?)
}

/// Files and their lengths, by their paths; without those that would fill a good part of a layer alone.
fn walk(folder: &Path, files: &mut Vec<(PathBuf, u64)>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let meta = entry.metadata()?;
        if meta.is_dir() {
            walk(&entry.path(), files)?;
        } else if meta.is_file() && meta.len() < LAYER_BYTES / 3 {
            files.push((entry.path(), meta.len()));
        }
    }
    Ok(())
}

/// An empty folder, and a disk that has nothing left to do.
fn fresh(folder: &Path) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir(folder)?;
    nix::unistd::sync();
    Ok(())
}

fn run(program: &str, args: &[&str]) -> anyhow::Result<Duration> {
    let since = Instant::now();
    let mut command = Command::new(program);
    let done = command
        .args(args)
        .stdout(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}: is it installed?"))?;
    let took = since.elapsed();
    ensure!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(took)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn row(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (least, most) = (times[0].as_secs_f64(), times[times.len() - 1].as_secs_f64());
    println!("| {what} | {:.1} | {least:.1} | {most:.1} |", median(times).as_secs_f64());
}
