//! Asks the drivers of Vulkan what they know, in a process of its own: some crash who asks them, and some never answer.

use std::{ffi::OsString, process::Command, time::Duration};

use claw_graph::known::{Adapter, Known};

use crate::gpu::apart::{Apart, Failure};

/// The longest that drivers may take: others' GPUs are held up meanwhile, which have ten seconds for their first answer.
const LIMIT: Duration = Duration::from_secs(8);

/// How drivers of Vulkan are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskVulkan {
    /// A program that writes a list of [`Known`] to its standard output, and its arguments.
    pub command: Vec<OsString>,
    /// Whether software that calls itself a GPU counts as one.
    pub software: bool,
}

/// Everything that Vulkan knows.
///
/// # Errors
/// Why nothing was said, in words.
pub(super) fn ask(how: &AskVulkan, apart: &mut Apart) -> Result<Vec<Adapter>, String> {
    let (program, arguments) = how.command.split_first().ok_or("there is no program to ask with")?;
    let mut command = Command::new(program);
    command.args(arguments);
    let said = apart.ask(command, "", LIMIT).map_err(|failure| match failure {
        Failure::Ended(status, _) => format!("a driver took the process along that asked it ({status})"),
        other => other.to_string(),
    })?;
    let known: Vec<Known> = serde_json::from_str(&said)
        .map_err(|error| format!("what the process says is not understood: {error}"))?;
    Ok(known.into_iter().filter_map(|known| known.adapter).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(script: &str) -> Result<Vec<Adapter>, String> {
        let command = ["/bin/sh", "-c", script].map(OsString::from).to_vec();
        ask(&AskVulkan { command, software: true }, &mut Apart::default())
    }

    #[test]
    fn what_a_process_says_is_believed_only_if_it_ends_well() {
        let answer = r#"[{"name":"cuda:0","isCpu":false},{"name":"vulkan:0","isCpu":true,"adapter":{"uuid":"VK-1","kind":"cpu"}}]"#;
        let adapters = said(&format!("echo '{answer}'")).unwrap();
        assert_eq!(adapters.iter().map(|adapter| adapter.uuid.as_str()).collect::<Vec<_>>(), ["VK-1"]);
        let crashed = said(&format!("echo '{answer}'; kill -SEGV $$")).unwrap_err();
        assert!(crashed.contains("took the process along") && crashed.contains("SIGSEGV"), "{crashed}");
        assert!(said("echo nonsense").unwrap_err().contains("is not understood"));
    }
}
