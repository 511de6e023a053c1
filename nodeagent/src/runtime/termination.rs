//! The termination message: what a container leaves in a file for people to read in its status.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::Container;

use super::{ExitRecord, spec::Bind};
use crate::{Error, shim::files};

const FILE: &str = "termination-log";

/// Exists where the log may take the message's place.
const FALLBACK: &str = "fallback-to-logs";

/// Bytes of a message, as in the API.
const MESSAGE_BYTES_MAX: u64 = 4096;

/// Of a log that takes the message's place: bytes and lines, as in the API.
const LOG_BYTES_MAX: usize = 2048;
const LOG_LINES_MAX: usize = 80;

fn file(bundle: &Path) -> PathBuf {
    bundle.join(FILE)
}

/// Makes the file that [`bind`] shows, and remembers the policy: the exit is read back without the pod.
pub(super) fn create(bundle: &Path, container: &Container) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = file(bundle);
    fs::write(&path, "").map_err(Error::io("creating", &path))?;
    // Whoever the container runs as may write it.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))
        .map_err(Error::io("setting the mode of", &path))?;
    if container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError") {
        let path = bundle.join(FALLBACK);
        fs::write(&path, "").map_err(Error::io("creating", &path))?;
    }
    Ok(())
}

/// Shows the file to the container, at its `terminationMessagePath`.
pub(super) fn bind(bundle: &Path, container: &Container) -> Bind {
    let path = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
    Bind {
        source: file(bundle),
        target: path.unwrap_or("/dev/termination-log").to_owned(),
        read_only: false,
        propagation: "rprivate",
    }
}

/// The exit with the message the container left, if the exit itself says nothing.
pub(super) fn with_message(bundle: &Path, mut exit: ExitRecord) -> ExitRecord {
    if exit.message.is_empty() {
        let mut message = Vec::new();
        if let Ok(file) = fs::File::open(file(bundle)) {
            let _ = file.take(MESSAGE_BYTES_MAX).read_to_end(&mut message);
        }
        exit.message = String::from_utf8_lossy(&message).into_owned();
        if exit.message.is_empty() && exit.code != 0 && bundle.join(FALLBACK).exists() {
            exit.message = end_of_log(bundle);
        }
    }
    exit
}

fn end_of_log(bundle: &Path) -> String {
    let text = fs::read(bundle.join(files::LOG)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let mut kept = lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n");
    let surplus = kept.len().saturating_sub(LOG_BYTES_MAX);
    kept.drain(..kept.ceil_char_boundary(surplus));
    if !kept.is_empty() {
        kept.push('\n');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> ExitRecord {
        ExitRecord {
            code,
            message: String::new(),
            ..ExitRecord::lost(jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::UNIX_EPOCH)
        }
    }

    #[test]
    fn the_message_is_what_the_container_wrote() {
        let bundle = tempfile::tempdir().unwrap();
        create(bundle.path(), &Container::default()).unwrap();
        fs::write(file(bundle.path()), "out of luck").unwrap();
        assert_eq!(with_message(bundle.path(), exit(1)).message, "out of luck");
    }

    #[test]
    fn of_a_long_log_the_end_is_kept() {
        let bundle = tempfile::tempdir().unwrap();
        let line = format!("T stdout F {}€\n", "x".repeat(16_000));
        fs::write(bundle.path().join(files::LOG), line.repeat(LOG_LINES_MAX + 1)).unwrap();
        let kept = end_of_log(bundle.path());
        assert!((LOG_BYTES_MAX - 3..=LOG_BYTES_MAX + 1).contains(&kept.len()), "{}", kept.len());
        assert!(kept.ends_with("x€\n"));
    }

    #[test]
    fn the_log_takes_its_place_only_on_error_and_if_asked() {
        let bundle = tempfile::tempdir().unwrap();
        fs::write(bundle.path().join(files::LOG), "T stdout F one\nT stderr F two words\n").unwrap();
        assert_eq!(with_message(bundle.path(), exit(1)).message, "");
        let container: Container = serde_json::from_value(serde_json::json!(
            {"name": "c", "terminationMessagePolicy": "FallbackToLogsOnError"}
        ))
        .unwrap();
        create(bundle.path(), &container).unwrap();
        assert_eq!(with_message(bundle.path(), exit(1)).message, "one\ntwo words\n");
        assert_eq!(with_message(bundle.path(), exit(0)).message, "");
    }
}
