//! `clawbernetes gpu`: the GPUs of this machine, without any cluster.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use claw_nodeagent::gpu::{Gpu, Inventory, Recording, Source as _, machine, once};

use crate::verbs::print;

mod check;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the GPUs of this machine
    Ls(Ls),
    /// Print everything that the driver answers, in the form that `--gpu-replay` reads
    Record,
    /// Find out whether the GPUs of this machine calculate rightly and as quickly as they should
    Check(check::Options),
}

#[derive(Debug, clap::Args)]
pub struct Ls {
    /// `json` for everything that is known of them
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json"])]
    output: Option<String>,
    /// Those of a recording instead
    #[arg(long, value_name = "FILE")]
    gpu_replay: Option<PathBuf>,
}

const NONE: &str = "this machine has no GPUs that could be shown";

/// Asks the driver, or a recording, and prints.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    let text = match command {
        Command::Check(options) => return check::run(&options),
        Command::Record => json(&machine().ask().context(NONE)?)?,
        Command::Ls(Ls { output: Some(_), gpu_replay }) => json(&ask(gpu_replay)?)?,
        Command::Ls(Ls { output: None, gpu_replay }) => table(&ask(gpu_replay)?),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn ask(recording: Option<PathBuf>) -> anyhow::Result<Inventory> {
    match recording {
        Some(file) => Ok(once(&Recording(file))?),
        None => once(&machine()).context(NONE),
    }
}

fn json(inventory: &Inventory) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(inventory)?))
}

fn table(inventory: &Inventory) -> String {
    let mut text = drivers(inventory);
    if inventory.replayed {
        text.push_str(", replayed from a recording");
    }
    let header =
        ["INDEX", "MODEL", "MEMORY", "PCI", "NUMA", "TEMP", "POWER", "STATE", "UUID"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(header).chain(inventory.gpus.iter().map(row)).collect();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
            format!("{cell:width$}")
        });
        text.push('\n');
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
    }
    text.push('\n');
    text
}

/// Those that the GPUs need.
fn drivers(inventory: &Inventory) -> String {
    let said = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
    let mut drivers = Vec::new();
    if inventory.gpus.iter().any(|gpu| gpu.amd.is_none()) {
        drivers.push(format!("driver {}", said(&inventory.driver_version)));
        drivers.push(format!("CUDA {}", said(&inventory.cuda_version)));
    }
    if inventory.gpus.iter().any(|gpu| gpu.amd.is_some()) {
        let own = inventory.amdgpu_version.clone().unwrap_or_else(|| "of the kernel".to_owned());
        drivers.push(format!("amdgpu {own}"));
    }
    if drivers.is_empty() { "no GPUs".to_owned() } else { drivers.join(", ") }
}

fn row(gpu: &Gpu) -> [String; 9] {
    let shown = |value: Option<u32>, unit: &str| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value}{unit}"))
    };
    let used = gpu.memory_used_bytes.map_or_else(String::new, |used| format!("{}/", used >> 20));
    let watts = |milliwatts: Option<u32>| milliwatts.map(|milliwatts| milliwatts / 1000);
    [
        gpu.index.to_string(),
        gpu.model.clone(),
        format!("{used}{}Mi", gpu.memory_bytes >> 20),
        gpu.pci.bus_id.clone(),
        shown(gpu.numa_node, ""),
        shown(gpu.temperature_celsius, "C"),
        format!(
            "{}/{}",
            shown(watts(gpu.power.usage_milliwatts), ""),
            shown(watts(gpu.power.limit_milliwatts), "W")
        ),
        gpu.withheld.clone().unwrap_or_else(|| "ok".to_owned()),
        gpu.uuid.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_machine_is_listed_as_one() {
        let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nodeagent/tests/data/h100.json");
        let inventory = ask(Some(recording.into())).unwrap();
        assert_eq!(
            table(&inventory),
            "driver 580.159.04, CUDA 13.0, replayed from a recording\n\
             INDEX   MODEL                   MEMORY      PCI            NUMA   TEMP   POWER     STATE   UUID\n\
             0       NVIDIA H100 80GB HBM3   0/81559Mi   0000:01:00.0   -      38C    72/700W   ok      \
             GPU-00000000-0000-0000-0000-000000000001\n"
        );
        let amd = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nodeagent/tests/data/mi210");
        let text = table(&ask(Some(amd.into())).unwrap());
        assert!(text.starts_with("amdgpu 6.12.12, replayed from a recording\n"), "{text}");
        assert_eq!(text.matches("MI210 (MCM) OAM AC MBA   10/65520Mi   0000:").count(), 3, "{text}");
    }
}
