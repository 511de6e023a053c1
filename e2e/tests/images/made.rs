//! Images that are made here, byte by byte: the built-in toolbox as a program, in layers that cover and hide each other.

use std::{collections::BTreeMap, io::Write as _, sync::LazyLock};

use claw_e2e::docker_registry::DockerRegistry;
use claw_nodeagent::image::Digest;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// What manifests and what they name are called.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The program of the toolbox: it is inside the binary that is tested.
pub static TOOLBOX: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let image = std::thread::scope(|scope| {
        let work = async {
            let images = claw_nodeagent::image::Images::open(folder.path(), Default::default()).unwrap();
            let name = claw_nodeagent::image::Name::parse("clawbernetes.io/toolbox").unwrap();
            images.present(&name).await.unwrap().unwrap()
        };
        // Whoever asks first may be in a runtime of its own.
        scope.spawn(|| runtime.block_on(work)).join().unwrap()
    });
    std::fs::read(image.layers[0].join("toolbox")).unwrap()
});

/// A layer under construction.
pub struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn add(mut self, kind: EntryType, path: &str, link: &str, owner: u64, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_path(path).unwrap();
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.add(EntryType::Regular, path, "", 0, 0o644, content)
    }

    pub fn program(self, path: &str, content: &[u8]) -> Self {
        self.add(EntryType::Regular, path, "", 0, 0o755, content)
    }

    pub fn folder(self, path: &str, owner: u64) -> Self {
        self.add(EntryType::Directory, path, "", owner, 0o755, b"")
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, path, target, 0, 0o777, b"")
    }

    pub fn device(self, path: &str) -> Self {
        self.add(EntryType::Char, path, "", 0, 0o666, b"")
    }

    pub fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// An image, as a registry has it.
#[derive(Clone)]
pub struct Made {
    pub manifest: Vec<u8>,
    pub media_type: &'static str,
    /// By digest: configuration and layers.
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub config: Vec<u8>,
    /// Without compression, bottom first.
    pub archives: Vec<Vec<u8>>,
    /// Digests of what comes over the wire.
    pub layers: Vec<String>,
}

impl Made {
    /// Of archives; `config` is what belongs under `config`.
    pub fn new(config: Value, archives: Vec<Vec<u8>>) -> Self {
        Self::with(config, archives, MANIFEST)
    }

    /// The same in docker's words.
    pub fn of_docker(config: Value, archives: Vec<Vec<u8>>) -> Self {
        Self::with(config, archives, DOCKER_MANIFEST)
    }

    fn with(config: Value, archives: Vec<Vec<u8>>, media_type: &'static str) -> Self {
        let diff_ids: Vec<_> = archives.iter().map(|archive| digest(archive)).collect();
        let config = json!({"architecture": architecture(), "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = config.to_string().into_bytes();
        let compressed: Vec<_> = archives.iter().map(|archive| gzip(archive)).collect();
        let described = |kind: &str, bytes: &Vec<u8>| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(bytes), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": described("config.v1+json", &config),
            "layers": compressed.iter().map(|bytes| described("layer.v1.tar+gzip", bytes)).collect::<Vec<_>>(),
        });
        let layers = compressed.iter().map(|bytes| digest(bytes)).collect();
        let blobs =
            compressed.into_iter().chain([config.clone()]).map(|bytes| (digest(&bytes), bytes)).collect();
        Self { manifest: manifest.to_string().into_bytes(), media_type, blobs, config, archives, layers }
    }

    /// Puts it into a registry under `REPOSITORY:TAG`, and gives its whole name.
    pub fn push(&self, registry: &DockerRegistry, name: &str) -> String {
        let blobs = self.blobs.values().map(Vec::as_slice);
        registry.push(name, (self.media_type, &self.manifest), blobs)
    }

    /// Of its manifest.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// Its id.
    pub fn id(&self) -> String {
        digest(&self.config)
    }
}

/// An index of images, each for a platform.
pub fn index(images: &[(&Made, &str, &str)]) -> Vec<u8> {
    let manifests: Vec<_> = images
        .iter()
        .map(|(image, os, architecture)| {
            json!({"mediaType": image.media_type, "digest": image.digest(), "size": image.manifest.len(),
                "platform": {"os": os, "architecture": architecture}})
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string().into_bytes()
}

pub fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Of this machine, as images call it.
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// Bytes that do not compress.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// What the stories run: a program, users, and layers that hide and cover each other.
pub fn app(tag: &str) -> Made {
    let base = Layer::new()
        .program("toolbox", &TOOLBOX)
        .file("etc/passwd", b"root:x:0:0:root:/root:/toolbox\napp:x:1000:1001::/home/app:/toolbox\n")
        .file("etc/group", b"root:x:0:\nvideo:x:44:app\n")
        .file("data/hidden", b"nobody may see this\n")
        .file("data/covered", b"bottom\n")
        .file("opt/old", b"old\n")
        .folder("home/app", 1000)
        .done();
    let middle = Layer::new()
        .file("data/.wh.hidden", b"")
        .file("data/covered", b"top\n")
        .file("opt/.wh..wh..opq", b"")
        .file("opt/new", b"new\n")
        .folder("bin", 0)
        .link("bin/toolbox", "../toolbox")
        .done();
    let top = Layer::new().file("etc/tag", format!("{tag}\n").as_bytes()).done();
    let config = json!({
        "User": "app",
        "Env": ["GREETING=hello", format!("TAG={tag}")],
        "Entrypoint": ["/bin/toolbox"],
        "Cmd": ["cat", "tag"],
        "WorkingDir": "/etc",
        "StopSignal": "SIGKILL",
    });
    Made::new(config, vec![base, middle, top])
}
