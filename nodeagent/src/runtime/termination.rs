//! The termination message: what a container leaves in a file for people to read in its status.

use std::{
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use claw_graph::order::Report;
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

/// Of a file of the log, what is read: more than the longest line of it, and than as many lines as are wanted.
const END_BYTES: u64 = 64 << 10;

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

/// What a worker of the image of kernels says that it does. `None` if it says nothing, or no container writes there any more.
pub(super) fn progress(bundle: &Path) -> Option<String> {
    if bundle.join(files::EXIT).exists() {
        return None;
    }
    let mut text = Vec::new();
    fs::File::open(file(bundle)).ok()?.take(MESSAGE_BYTES_MAX).read_to_end(&mut text).ok()?;
    // Before its first word the file is empty. Whoever replaced the worker's program may write what they like.
    let report = serde_json::from_slice::<Report>(&text).unwrap_or_default();
    Some(report.doing)
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
    // Right after a rotation the present file holds next to nothing.
    let mut text = end_of_file(&bundle.join(files::LOG_ROTATED));
    text.extend(end_of_file(&bundle.join(files::LOG)));
    let lines = lines(&String::from_utf8_lossy(&text));
    let mut kept = lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n");
    let surplus = kept.len().saturating_sub(LOG_BYTES_MAX);
    kept.drain(..kept.ceil_char_boundary(surplus));
    if !kept.is_empty() {
        kept.push('\n');
    }
    kept
}

/// What a container wrote: parts of a line are put together again.
fn lines(log: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in log.lines() {
        let mut parts = line.splitn(4, ' ').skip(2);
        let (Some(tag), Some(text)) = (parts.next(), parts.next()) else { continue };
        match lines.last_mut() {
            Some(last) if goes_on => last.push_str(text),
            _ => lines.push(text.to_owned()),
        }
        goes_on = tag == "P";
    }
    lines
}

/// The last lines of a file that are whole.
fn end_of_file(path: &Path) -> Vec<u8> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let left_out = file.metadata()?.len().saturating_sub(END_BYTES);
        file.seek(SeekFrom::Start(left_out))?;
        let mut text = Vec::new();
        // A container that still writes has no end that could be read.
        file.take(END_BYTES).read_to_end(&mut text)?;
        if left_out > 0 {
            let cut = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| at + 1);
            text.drain(..cut);
        }
        Ok(text)
    };
    read().unwrap_or_default()
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
    fn a_worker_tells_what_it_does_until_its_container_is_over() {
        let bundle = tempfile::tempdir().unwrap();
        let told = || progress(bundle.path());
        assert_eq!(told(), None, "there is no container yet");
        create(bundle.path(), &Container::default()).unwrap();
        assert_eq!(told().as_deref(), Some(""));
        for (text, doing) in
            [("no report", ""), (r#"{"state":"Running","doing":"run 1 of 2","runs":0}   "#, "run 1 of 2")]
        {
            fs::write(file(bundle.path()), text).unwrap();
            assert_eq!(told().as_deref(), Some(doing));
        }
        fs::write(bundle.path().join(files::EXIT), "").unwrap();
        assert_eq!(told(), None);
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
    fn what_was_written_before_a_rotation_counts_and_a_long_line_is_one() {
        let bundle = tempfile::tempdir().unwrap();
        let before = format!("{}T stderr F why\nT stderr P it ends, ", "T stdout F old\n".repeat(20_000));
        fs::write(bundle.path().join(files::LOG_ROTATED), before + "\n").unwrap();
        assert!(end_of_log(bundle.path()).ends_with("old\nwhy\nit ends, \n"), "with nothing after it");
        fs::write(bundle.path().join(files::LOG), "T stderr F and where\n").unwrap();
        let kept = end_of_log(bundle.path());
        assert!(kept.ends_with("old\nwhy\nit ends, and where\n"), "{kept}");
        assert_eq!(kept.lines().count(), LOG_LINES_MAX);
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
