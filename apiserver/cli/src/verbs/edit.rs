//! `edit`: change objects in an editor.

use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use claw_client::request::PatchKind;
use claw_schemas::yaml;

use super::{
    context::Context,
    output::{print, without_managed_fields},
    session::{Session, Write, short_name, text},
    targets::{Target, Targets},
    three_way,
};

/// What to edit with, where nothing else is said.
const EDITOR: &str = "vi";

const HINT: &str = "# Edit the object below. Lines that begin with '#' are left out; saved as it is, or empty, nothing is done.\n#\n";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    targets: Targets,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let session = context.discovered().await?;
    for target in args.targets.each(&session, false, "edit").await? {
        edit(&session, &target).await?;
    }
    Ok(())
}

async fn edit(session: &Session, target: &Target) -> anyhow::Result<()> {
    let before = without_managed_fields(session.get(&target.resource).await?);
    let shown = yaml::to_string(&before);
    let written = in_editor(&format!("{HINT}{shown}"))?;
    let written: String =
        written.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    if written.trim().is_empty() || written == shown {
        eprintln!("Edit cancelled, no changes made.");
        return Ok(());
    }
    let after = yaml::from_str(&written).context("what was saved does not parse")?;
    for field in ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"] {
        ensure!(text(&after, field) == text(&before, field), "{} cannot be changed", &field[1..]);
    }
    let schema = target.kind.builtin.then(|| target.kind.compiled().root());
    let kind = if schema.is_some() { PatchKind::Strategic } else { PatchKind::Merge };
    let patch = three_way::patch(&before, &after, &before, schema);
    if patch.as_object().is_none_or(serde_json::Map::is_empty) {
        eprintln!("Edit cancelled, no changes made.");
        return Ok(());
    }
    session.patch(target.resource.clone(), kind, &patch, &Write::default().by("clawbernetes-edit")).await?;
    Ok(print(&format!("{} edited\n", short_name(&target.kind, text(&after, "/metadata/name"))))?)
}

/// What somebody makes of a text.
fn in_editor(text: &str) -> anyhow::Result<String> {
    let folder = env::temp_dir().join(format!("clawbernetes-edit-{}", std::process::id()));
    let file = Draft::create(&folder, text)?;
    let editor = ["KUBE_EDITOR", "EDITOR"].into_iter().find_map(env::var_os).unwrap_or_else(|| EDITOR.into());
    // An editor may come with arguments.
    let status = Command::new("sh").arg("-c").arg("$0 \"$1\"").arg(&editor).arg(file.path()).status();
    let status = status.with_context(|| format!("starting {}", editor.display()))?;
    if !status.success() {
        bail!("{} failed; nothing is changed", editor.display());
    }
    fs::read_to_string(file.path()).context("reading what was saved")
}

/// A file that nobody else may read, in a folder of its own, until this is dropped.
struct Draft<'f>(&'f Path);

impl<'f> Draft<'f> {
    fn create(folder: &'f Path, text: &str) -> anyhow::Result<Self> {
        let made = fs::DirBuilder::new().mode(0o700).create(folder);
        made.with_context(|| format!("making {}", folder.display()))?;
        let draft = Self(folder);
        fs::File::create_new(draft.path())?.write_all(text.as_bytes())?;
        Ok(draft)
    }

    /// The ending tells editors what it is.
    fn path(&self) -> PathBuf {
        self.0.join("object.yaml")
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0);
    }
}
