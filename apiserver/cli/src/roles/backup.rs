//! `clawbernetes server backup` and `restore`: what a server holds, in a file.
//!
//! A file gets its name only when all of it is on the disk and was read back. Must never know: what is in it.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufReader, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use claw_apiserver::backup::{self, Summary};
use claw_client::{ByteStream, HttpTransport};
use futures::TryStreamExt as _;

use crate::verbs::Global;

#[derive(Debug, clap::Args)]
pub struct Backup {
    /// File to write; it holds Secrets, so only its owner may read it
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct Restore {
    /// File that `server backup` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder for the new server's state; must be empty or not there yet
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

/// Saves what the server of the kubeconfig holds.
pub async fn save(options: Backup, global: Global) -> anyhow::Result<()> {
    let file = &options.file;
    ensure!(!file.exists(), "{} is there already; choose another name", file.display());
    let selected = global.select()?;
    let transport = HttpTransport::new(&selected.endpoint)?;
    let pieces = transport.stream_raw(backup::PATH).await.context("the server gives no backup")?;
    let mut partial = file.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let saved = write_checked(&partial, pieces).await;
    if saved.is_err() {
        // What is left of it is good for nothing; the error says more than a failure to remove it would.
        let _ = fs::remove_file(&partial);
    }
    let Summary { revision, objects } = saved?;
    fs::rename(&partial, file).with_context(|| format!("naming {}", file.display()))?;
    sync_folder_of(file)?;
    eprintln!(
        "saved {objects} objects at revision {revision} to {} and read them back.\n\
         Certificates and keys are not in it: keep a copy of the server's pki folder and admin.token too.",
        file.display()
    );
    Ok(())
}

/// Writes a file and reads it back.
async fn write_checked(path: &Path, mut pieces: ByteStream) -> anyhow::Result<Summary> {
    let writing = || format!("writing {}", path.display());
    // What an earlier one left may be open to others, and the mode counts only for a file that is made.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(writing),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(writing)?;
    while let Some(piece) = pieces.try_next().await.context("the backup broke off")? {
        file.write_all(&piece).with_context(writing)?;
    }
    file.sync_all().with_context(writing)?;
    Ok(backup::read(BufReader::new(File::open(path)?), drop)?)
}

/// Makes a file's name durable.
fn sync_folder_of(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("syncing {}", folder.display()))
}

/// Makes a data folder.
pub fn restore(options: &Restore) -> anyhow::Result<()> {
    let (file, folder) = (options.file.display(), options.data_dir.display());
    let restored =
        backup::restore(&options.file, &options.data_dir).with_context(|| format!("restoring {file}"))?;
    eprintln!(
        "restored {} objects at revision {} from {file} into {folder}; the server goes on at revision {}, so that \
         clients notice and list again.\n\
         Certificates and keys are not in a backup: copy the old server's pki folder and admin.token into {folder} \
         before the first start. Without them there will be a new authority, and nodes must join again.",
        restored.backup.objects, restored.backup.revision, restored.revision
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use futures::{StreamExt as _, stream};

    use super::*;

    #[tokio::test]
    async fn a_backup_is_its_owners_alone_even_where_another_left_its_half() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup.partial");
        fs::write(&path, "half").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let pieces = backup::Pieces::new(7, Vec::new()).map(Ok);
        let saved = write_checked(&path, stream::iter(pieces).boxed()).await.unwrap();
        assert_eq!((saved.revision, saved.objects), (7, 0));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
