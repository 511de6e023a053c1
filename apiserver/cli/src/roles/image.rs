//! `clawbernetes image`: the images of this machine, whether its agent runs or not. The store minds who else is at it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use claw_nodeagent::{
    ImagesConfig,
    image::{Images, Limits, Listed, Name, Progress, Thresholds},
    runtime::containers::images_in_use,
};
use serde_json::json;

use super::data_dir::{self, Stay};
use crate::verbs::print;

/// Digits of an id that are shown, as docker's.
const ID_DIGITS: usize = 12;

/// People watch; events of pods are told more seldom.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the images of this machine
    Ls(Ls),
    /// Bring an image from its registry
    Pull(Pull),
    /// Bring the images of a file: what `docker save` writes, or an OCI layout, as an archive or a folder
    Import(Import),
    /// Remove images that no container was made of
    Rm(Rm),
}

/// Which machine's, of several on this host.
#[derive(Debug, clap::Args)]
struct Place {
    /// Folder with the node's state (default: /var/lib/clawbernetes as root, else ~/.local/share/clawbernetes)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct Ls {
    #[command(flatten)]
    place: Place,
    /// `json` for everything that is known of them
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json"])]
    output: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct Pull {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    options: Options,
    /// As a pod would name it
    image: String,
}

#[derive(Debug, clap::Args)]
pub struct Import {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    options: Options,
    /// Archive or folder; /dev/stdin for what comes through a pipe
    file: PathBuf,
    /// What to call the image instead of what the file calls it
    #[arg(long, value_name = "IMAGE")]
    name: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct Rm {
    #[command(flatten)]
    place: Place,
    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    images: Vec<String>,
}

/// Where images come from and how many of them there are; the same for agents and for `image`.
#[derive(Debug, clap::Args)]
#[group(id = "images")]
pub struct Options {
    /// Ask URL before a registry: docker.io=https://mirror.example:5000; may be given several times
    #[arg(long = "registry-mirror", value_name = "REGISTRY=URL")]
    registry_mirrors: Vec<String>,
    /// Speak plain HTTP to a registry, HOST or HOST:PORT; hosts of this machine are no exception; may be given several times
    #[arg(long = "insecure-registry", value_name = "HOST")]
    insecure_registries: Vec<String>,
    /// File with authorities to trust about registries, beside the system's
    #[arg(long, value_name = "FILE")]
    registry_ca: Option<PathBuf>,
    /// Docker's configuration (config.json) with this machine's own credentials for registries
    #[arg(long, value_name = "FILE")]
    docker_config: Option<PathBuf>,
    /// Give up a registry that sends nothing for so long, after some tries
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    image_pull_patience: u64,
    /// How many times its compressed size a layer may become
    #[arg(long, value_name = "N", default_value_t = Limits::default().ratio_max)]
    image_ratio_max: u64,
    /// How many bytes an image may become
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().image_bytes_max)]
    image_bytes_max: u64,
    /// Remove images that nobody uses when more than so much of the disk is used
    #[arg(long, value_name = "PERCENT", default_value_t = 85)]
    image_gc_high: u64,
    /// Until so much is left in use
    #[arg(long, value_name = "PERCENT", default_value_t = 80)]
    image_gc_low: u64,
    /// Keep images that were used in the last so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    image_gc_min_age: u64,
}

impl Options {
    /// What they say.
    pub fn config(&self) -> anyhow::Result<ImagesConfig> {
        let mut mirrors: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut insecure: BTreeSet<String> = self.insecure_registries.iter().cloned().collect();
        for mirror in &self.registry_mirrors {
            let (registry, url) = mirror
                .split_once('=')
                .with_context(|| format!("--registry-mirror {mirror}: a mirror is REGISTRY=URL"))?;
            // Who writes http:// has named it.
            let host = url.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or(rest));
            insecure.extend(host.map(str::to_owned));
            ensure!(
                host.is_some() || url.starts_with("https://"),
                "--registry-mirror {mirror}: its URL starts with https:// (or http://, which anybody can read)"
            );
            mirrors.entry(registry.to_owned()).or_default().push(url.to_owned());
        }
        let (high, low) = (self.image_gc_high, self.image_gc_low);
        ensure!(
            low <= high && high <= 100,
            "--image-gc-low is at most --image-gc-high, and that at most 100"
        );
        let ca_pem = match &self.registry_ca {
            Some(file) => fs::read(file).with_context(|| format!("--registry-ca {}", file.display()))?,
            None => Vec::new(),
        };
        Ok(ImagesConfig {
            mirrors,
            insecure,
            ca_pem,
            docker_config: self.docker_config.clone(),
            limits: Limits {
                image_bytes_max: self.image_bytes_max,
                ratio_max: self.image_ratio_max,
                ..Limits::default()
            },
            silence_max: Duration::from_secs(self.image_pull_patience),
            thresholds: Thresholds {
                high_percent: high,
                low_percent: low,
                age_min: Duration::from_secs(self.image_gc_min_age),
            },
            ..ImagesConfig::default()
        })
    }
}

impl Place {
    /// The folder of the node's state.
    fn node(&self) -> anyhow::Result<PathBuf> {
        Ok(data_dir::or_default(self.data_dir.clone())?.join("node"))
    }

    fn images(&self, config: ImagesConfig) -> anyhow::Result<Arc<Images>> {
        let folder = self.node()?;
        // Images are for root alone, whoever comes first.
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&folder, mode).with_context(|| format!("closing {}", folder.display()))?;
        Images::open(&folder.join("images"), config).context("the images of this machine cannot be read")
    }
}

impl Command {
    /// Goes to where the owners of an image's files are, as an agent does.
    pub fn become_root(&mut self) -> anyhow::Result<()> {
        let place = match self {
            Self::Ls(ls) => &mut ls.place,
            Self::Pull(pull) => &mut pull.place,
            Self::Import(import) => &mut import.place,
            Self::Rm(rm) => &mut rm.place,
        };
        data_dir::become_root(&mut place.data_dir, Stay::Alone)
    }
}

/// Runs one of them.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Ls(ls) => list(&ls),
        Command::Pull(options) => pull(options).await,
        Command::Import(options) => import(options).await,
        Command::Rm(options) => remove(options).await,
    }
}

fn list(ls: &Ls) -> anyhow::Result<()> {
    let listed = ls.place.images(ImagesConfig::default())?.store().list()?;
    Ok(print(&match ls.output {
        Some(_) => format!("{}\n", serde_json::to_string_pretty(&described(&listed))?),
        None => table(&listed),
    })?)
}

async fn pull(Pull { place, options, image }: Pull) -> anyhow::Result<()> {
    let name = Name::parse(&image)?;
    let config = ImagesConfig { progress_every: PROGRESS_EVERY, ..options.config()? };
    let images = place.images(config)?;
    let keyring = images.own_keyring()?;
    let is_watched = std::io::stderr().is_terminal();
    let tell = |progress: Progress| {
        let (start, end) = if is_watched { ("\r", "   ") } else { ("", "\n") };
        let _ = write!(std::io::stderr(), "{start}{image}: {progress}{end}");
    };
    let pulled = images.pull(&name, &keyring, &tell).await;
    if is_watched {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    Ok(print(&format!("{}\n", pulled?.id))?)
}

async fn import(Import { place, options, file, name }: Import) -> anyhow::Result<()> {
    let name = name.as_deref().map(Name::parse).transpose()?;
    let images = place.images(options.config()?)?;
    let imported = images.import(&file, name).await;
    for (record, names) in imported.with_context(|| file.display().to_string())? {
        let tag = names.first().map_or_else(|| record.id.to_string(), ToString::to_string);
        print(&format!("{tag}\n"))?;
        if names.is_empty() {
            eprintln!("it has no name; import it with --name to use it in a pod");
        }
    }
    Ok(())
}

async fn remove(Rm { place, images }: Rm) -> anyhow::Result<()> {
    let node = place.node()?;
    let store = place.images(ImagesConfig::default())?.store().clone();
    for image in images {
        store.remove(&image, || images_in_use(&node))?;
        print(&format!("{image}\n"))?;
    }
    Ok(())
}

fn described(listed: &[Listed]) -> serde_json::Value {
    let images = listed.iter().map(|one| {
        json!({
            "id": one.record.id,
            "names": one.names,
            "digests": one.record.digests,
            "layers": one.record.layers,
            "config": one.record.settings,
            "sizeBytes": one.record.bytes,
            "createdAt": one.record.created_at,
        })
    });
    images.collect()
}

fn table(listed: &[Listed]) -> String {
    let mut rows = vec![["IMAGE", "ID", "LAYERS", "SIZE"].map(str::to_owned)];
    for one in listed {
        let mut tags: Vec<&str> =
            one.names.iter().map(String::as_str).filter(|name| !name.contains('@')).collect();
        if tags.is_empty() {
            tags.push(one.names.first().map_or("<none>", String::as_str));
        }
        for tag in tags {
            rows.push([
                tag.to_owned(),
                one.record.id.hex()[..ID_DIGITS].to_owned(),
                one.record.layers.len().to_string(),
                format!("{:.1}MiB", one.record.bytes as f64 / f64::from(1 << 20)),
            ]);
        }
    }
    let widths: Vec<usize> =
        (0..4).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn config(args: &[&str]) -> anyhow::Result<ImagesConfig> {
        let line = Line::parse_from(std::iter::once("x").chain(args.iter().copied()));
        line.options.config()
    }

    #[test]
    fn a_mirror_that_is_written_with_http_is_named_for_it() {
        let args = ["--registry-mirror", "docker.io=http://m.example:5000/hub", "--insecure-registry", "a:1"];
        let read = config(&args).unwrap();
        assert_eq!(read.insecure, ["a:1".to_owned(), "m.example:5000".to_owned()].into());
        assert_eq!(read.mirrors["docker.io"], ["http://m.example:5000/hub"]);
        assert!(config(&[]).unwrap().insecure.is_empty());
    }

    #[test]
    fn options_that_make_no_sense_are_refused_by_name() {
        for (args, complaint) in [
            (["--registry-mirror", "docker.io"], "REGISTRY=URL"),
            (["--registry-mirror", "docker.io=mirror"], "https://"),
            (["--image-gc-low", "90"], "--image-gc-low"),
            (["--registry-ca", "/nowhere/ca.pem"], "/nowhere/ca.pem"),
        ] {
            let error = format!("{:#}", config(&args).unwrap_err());
            assert!(error.contains(complaint), "{error}");
        }
    }
}
