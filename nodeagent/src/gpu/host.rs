//! What a container needs to use a GPU, where no CDI file of the vendor says it: device files, and the driver's
//! libraries and tools, read-only.
//!
//! They appear under `/usr/local/nvidia`, which images made for GPUs have in their search paths; these paths are also
//! set, so that others find them. The libraries want the C library of the image, as any do.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    Gpu,
    cdi::{ContainerEdits, DeviceNode, Mount},
    inventory::Part,
};

/// Beside a GPU's own: control, memory management and its tools. Some machines have fewer of them.
const CONTROL: &str = "/dev/nvidiactl";
const SHARED_NODES: [&str; 2] = ["/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"];

/// Libraries that belong to the driver and not to the image, without version. Only the first two are always there.
const LIBRARIES: [&str; 8] = [
    "libcuda.so",
    "libnvidia-ml.so",
    "libnvidia-ptxjitcompiler.so",
    "libnvidia-nvvm.so",
    "libcudadebugger.so",
    "libnvidia-gpucomp.so",
    "libnvidia-opencl.so",
    "libnvidia-cfg.so",
];

/// How many of them nothing works without.
const LIBRARIES_NEEDED: usize = 2;

/// Which device file gives access to which instance, a line each: `gpu0/gi1/access 12`, `gpu0/gi1/ci0/access 13`.
const INSTANCE_MINORS: &str = "/proc/driver/nvidia-caps/mig-minors";

const TOOLS: [&str; 2] = ["nvidia-smi", "nvidia-debugdump"];

/// Where tools lie, beside the folder next to the libraries.
const TOOL_FOLDERS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/usr/local/nvidia/bin"];

/// Inside the container.
const INSIDE_LIBRARIES: &str = "/usr/local/nvidia/lib64";
const INSIDE_TOOLS: &str = "/usr/local/nvidia/bin";

/// What a program asks that wants to know its GPUs.
const VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";

/// For GPUs of a recording: their names, and nothing behind them.
pub(super) fn names_only(gpus: &[&Gpu]) -> ContainerEdits {
    let uuids: Vec<&str> = gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
    ContainerEdits { env: vec![format!("{VISIBLE}={}", uuids.join(","))], ..ContainerEdits::default() }
}

/// Everything for these GPUs. `library` is where the driver's management library was found.
pub(super) fn edits(gpus: &[&Gpu], library: Option<&Path>) -> Result<ContainerEdits, String> {
    let mut nodes = vec![PathBuf::from(CONTROL)];
    for gpu in gpus {
        let minor = gpu.minor.ok_or("the driver does not say which device file it has")?;
        nodes.push(format!("/dev/nvidia{minor}").into());
        if let Some(part) = &gpu.part {
            let minors = fs::read_to_string(INSTANCE_MINORS).unwrap_or_default();
            nodes.extend(instance_nodes(&minors, minor, part)?);
        }
    }
    nodes.sort();
    nodes.dedup();
    if let Some(missing) = nodes.iter().find(|node| !node.exists()) {
        return Err(format!("there is no {}", missing.display()));
    }
    nodes.extend(SHARED_NODES.into_iter().map(PathBuf::from).filter(|node| node.exists()));
    let folder = library.and_then(Path::parent).ok_or("the driver's libraries were not found")?;
    let mut mounts = libraries(folder)?;
    mounts.extend(tools(folder));
    Ok(ContainerEdits {
        device_nodes: nodes.into_iter().map(|path| DeviceNode { path, ..DeviceNode::default() }).collect(),
        mounts,
        search: vec![
            ("LD_LIBRARY_PATH".to_owned(), INSIDE_LIBRARIES.to_owned()),
            ("PATH".to_owned(), INSIDE_TOOLS.to_owned()),
        ],
        ..names_only(gpus)
    })
}

/// An instance takes the file of its GPU and two that open it: of the instance with the memory, and of the one in it with
/// the processors.
fn instance_nodes(minors: &str, gpu_minor: u32, part: &Part) -> Result<[PathBuf; 2], String> {
    let of_gpu_instance = format!("gpu{gpu_minor}/gi{}/access", part.gpu_instance);
    let of_compute_instance =
        format!("gpu{gpu_minor}/gi{}/ci{}/access", part.gpu_instance, part.compute_instance);
    let node = |name: &str| {
        let mut lines = minors.lines().filter_map(|line| line.split_once(' '));
        let minor = lines.find(|(known, _)| *known == name).map(|(_, minor)| minor.trim());
        let minor = minor.ok_or_else(|| format!("{INSTANCE_MINORS} does not say which file opens {name}"))?;
        Ok::<_, String>(PathBuf::from(format!("/dev/nvidia-caps/nvidia-cap{minor}")))
    };
    Ok([node(&of_gpu_instance)?, node(&of_compute_instance)?])
}

/// Each library under the names that programs load it by.
fn libraries(folder: &Path) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for (at, name) in LIBRARIES.iter().enumerate() {
        // `libnvidia-nvvm` counts on from 4, the others are at 1.
        let found = [1, 4].into_iter().find_map(|number| {
            let soname = format!("{name}.{number}");
            fs::canonicalize(folder.join(&soname)).ok().map(|file| (soname, file))
        });
        let Some((soname, file)) = found else {
            if at < LIBRARIES_NEEDED {
                return Err(format!("there is no {name}.1 in {}", folder.display()));
            }
            continue;
        };
        mounts.extend([(*name).to_owned(), soname].map(|inside| read_only(&file, INSIDE_LIBRARIES, &inside)));
    }
    Ok(mounts)
}

fn tools(libraries: &Path) -> Vec<Mount> {
    let beside = libraries.parent().map(|parent| parent.join("bin"));
    let folders = || beside.iter().cloned().chain(TOOL_FOLDERS.into_iter().map(PathBuf::from));
    let find = |name: &str| folders().find_map(|folder| fs::canonicalize(folder.join(name)).ok());
    TOOLS.into_iter().filter_map(|name| Some(read_only(&find(name)?, INSIDE_TOOLS, name))).collect()
}

fn read_only(file: &Path, folder: &str, name: &str) -> Mount {
    Mount {
        host_path: file.to_owned(),
        container_path: Path::new(folder).join(name),
        options: ["ro", "nosuid", "nodev", "rbind", "rprivate"].map(str::to_owned).to_vec(),
        kind: None,
    }
}

/// Fills in what the edits leave to the host's own device files.
pub(super) fn with_numbers(mut edits: ContainerEdits) -> Result<ContainerEdits, String> {
    for node in &mut edits.device_nodes {
        if node.major.is_some() && node.minor.is_some() && node.kind.is_some() {
            continue;
        }
        let path = node.host_path.as_ref().unwrap_or(&node.path);
        let found = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let kind = if found.file_type().is_block_device() { "b" } else { "c" };
        if kind == "c" && !found.file_type().is_char_device() {
            return Err(format!("{} is no device", path.display()));
        }
        let number = found.rdev();
        node.kind.get_or_insert_with(|| kind.to_owned());
        node.major.get_or_insert(i64::try_from(nix::sys::stat::major(number)).unwrap_or_default());
        node.minor.get_or_insert(i64::try_from(nix::sys::stat::minor(number)).unwrap_or_default());
        node.file_mode.get_or_insert(found.permissions().mode() & 0o777);
    }
    Ok(edits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_mounted_as_the_files_that_they_are_under_the_names_that_they_have() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let missing = libraries(folder.path()).unwrap_err();
        assert!(missing.contains("libcuda.so.1"), "{missing}");
        for name in ["libcuda.so", "libnvidia-ml.so"] {
            fs::write(at(&format!("{name}.580.1")), "").unwrap();
            std::os::unix::fs::symlink(format!("{name}.580.1"), at(&format!("{name}.1"))).unwrap();
        }
        fs::write(at("libnvidia-nvvm.so.4"), "").unwrap();
        let mounts = libraries(folder.path()).unwrap();
        let inside: Vec<_> = mounts.iter().map(|mount| mount.container_path.file_name().unwrap()).collect();
        let expected = ["libcuda.so", "libcuda.so.1", "libnvidia-ml.so", "libnvidia-ml.so.1"];
        assert_eq!(inside, [&expected[..], &["libnvidia-nvvm.so", "libnvidia-nvvm.so.4"]].concat());
        assert!(mounts[1].host_path.ends_with("libcuda.so.580.1"), "{mounts:?}");
        assert!(mounts.iter().all(|mount| mount.options.contains(&"ro".to_owned())));
    }

    #[test]
    fn numbers_come_from_the_host_unless_they_are_given() {
        let node = |path: &str, major| DeviceNode { path: path.into(), major, ..DeviceNode::default() };
        let edits = ContainerEdits {
            device_nodes: vec![node("/dev/null", None), node("/dev/null", Some(9))],
            ..ContainerEdits::default()
        };
        let nodes = with_numbers(edits).unwrap().device_nodes;
        assert_eq!((nodes[0].major, nodes[0].minor, nodes[0].kind.as_deref()), (Some(1), Some(3), Some("c")));
        assert_eq!(nodes[1].major, Some(9));
        let file =
            ContainerEdits { device_nodes: vec![node("/etc/passwd", None)], ..ContainerEdits::default() };
        assert!(with_numbers(file).unwrap_err().contains("is no device"));
    }

    #[test]
    fn an_instance_is_opened_by_two_files_of_its_own() {
        let minors = "config 1\nmonitor 2\ngpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\ngpu0/gi11/access 20\n";
        let part = Part { gpu_instance: 1, compute_instance: 0, ..Part::default() };
        let nodes = instance_nodes(minors, 0, &part).unwrap();
        assert_eq!(
            nodes,
            ["/dev/nvidia-caps/nvidia-cap12", "/dev/nvidia-caps/nvidia-cap13"].map(PathBuf::from)
        );
        let why = instance_nodes(minors, 1, &part).unwrap_err();
        assert!(why.contains("gpu1/gi1/access"), "{why}");
        assert!(
            instance_nodes(minors, 0, &Part { gpu_instance: 11, ..part }).unwrap_err().contains("gi11/ci0")
        );
    }

    #[test]
    fn a_gpu_without_its_device_file_cannot_be_given() {
        let gpu = Gpu { minor: Some(4_000), ..Gpu::default() };
        let why = edits(&[&gpu], Some(Path::new("/usr/lib/libnvidia-ml.so.1"))).unwrap_err();
        assert!(why.starts_with("there is no /dev/nvidia"), "{why}");
        assert!(edits(&[&Gpu::default()], None).is_err());
    }
}
