//! `clawbernetes gpu`: the GPUs of this machine, without any cluster.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use claw_graph::order::Backend;
use claw_nodeagent::gpu::{
    AskVulkan, Gpu, Inventory, Recording, Source as _, inventory::Teller, machine, once,
};

use crate::verbs::print;

pub mod check;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the GPUs of this machine
    Ls(Ls),
    /// Print everything that the drivers answer, in the form that `--gpu-replay` reads
    Record(Software),
    /// Find out whether the GPUs of this machine calculate rightly and as quickly as they should
    Check(check::Options),
    /// Print what drivers know, as JSON, for processes that must not crash with them
    #[command(hide = true)]
    Known {
        /// One way to devices alone: `cuda`, `vulkan`, `cpu`
        #[arg(long)]
        backend: Option<Backend>,
    },
}

// Whether software counts: no words for help, which would take the place of those of whatever has this.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Software {
    /// Software that calls itself a GPU of Vulkan (such as Mesa's llvmpipe) counts as one: the machine's processors do its work, more slowly
    /// than they could. To try what GPUs are needed for on a machine that has none
    #[arg(long)]
    pub software_gpus: bool,
}

impl Software {
    /// Drivers are asked by this very program, whatever became of its name: they may crash who asks them.
    pub fn ask(self) -> AskVulkan {
        let command = ["/proc/self/exe", "gpu", "known", "--backend", Backend::Vulkan.name()];
        AskVulkan { command: command.map(Into::into).to_vec(), software: self.software_gpus }
    }
}

#[derive(Debug, clap::Args)]
pub struct Ls {
    /// `json` for everything that is known of them
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json"])]
    output: Option<String>,
    /// Those of a recording instead
    #[arg(long, value_name = "FILE", conflicts_with = "software_gpus")]
    gpu_replay: Option<PathBuf>,
    #[command(flatten)]
    software: Software,
}

const NONE: &str = "this machine has no GPUs that could be shown";

/// Asks the driver, or a recording, and prints.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    let text = match command {
        Command::Check(options) => return check::run(&options),
        Command::Known { backend: Some(backend) } => serde_json::to_string(&claw_compute::known_of(backend))?,
        Command::Known { backend: None } => serde_json::to_string(&claw_compute::known())?,
        Command::Record(software) => json(&machine(Some(software.ask())).ask().context(NONE)?)?,
        Command::Ls(Ls { output, gpu_replay, software }) => {
            let inventory = ask(gpu_replay, software)?;
            if output.is_some() { json(&inventory)? } else { table(&inventory) }
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn ask(recording: Option<PathBuf>, software: Software) -> anyhow::Result<Inventory> {
    match recording {
        Some(file) => Ok(once(&Recording(file))?),
        None => once(&machine(Some(software.ask()))).context(NONE),
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
    let has = |teller: Teller| inventory.gpus.iter().any(|gpu| gpu.teller() == teller);
    let mut drivers = Vec::new();
    if has(Teller::Nvidia) {
        drivers.push(format!("driver {}", said(&inventory.driver_version)));
        drivers.push(format!("CUDA {}", said(&inventory.cuda_version)));
    }
    if has(Teller::Amd) {
        let own = inventory.amdgpu_version.clone().unwrap_or_else(|| "of the kernel".to_owned());
        drivers.push(format!("amdgpu {own}"));
    }
    let of_vulkan = inventory.gpus.iter().filter_map(|gpu| gpu.vulkan.as_ref()).map(|gpu| {
        let name = gpu.driver_name.as_deref().unwrap_or("unknown");
        format!("Vulkan {name} {}", gpu.driver_version.as_deref().unwrap_or_default()).trim_end().to_owned()
    });
    drivers.extend(of_vulkan.collect::<BTreeSet<_>>());
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
        let inventory = ask(Some(recording.into()), Software { software_gpus: false }).unwrap();
        assert_eq!(
            table(&inventory),
            "driver 580.159.04, CUDA 13.0, replayed from a recording\n\
             INDEX   MODEL                   MEMORY      PCI            NUMA   TEMP   POWER     STATE   UUID\n\
             0       NVIDIA H100 80GB HBM3   0/81559Mi   0000:01:00.0   -      38C    72/700W   ok      \
             GPU-00000000-0000-0000-0000-000000000001\n"
        );
        let amd = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nodeagent/tests/data/mi210");
        let text = table(&ask(Some(amd.into()), Software { software_gpus: false }).unwrap());
        assert!(text.starts_with("amdgpu 6.12.12, replayed from a recording\n"), "{text}");
        assert_eq!(text.matches("MI210 (MCM) OAM AC MBA   10/65520Mi   0000:").count(), 3, "{text}");
    }
}
