//! Puts what a container needs for its devices into its configuration. Pure: everything is resolved before.

use std::path::Path;

use oci_spec::{
    OciSpecError,
    runtime::{
        Hook as OciHook, HookBuilder, Hooks, Linux, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup,
        LinuxDeviceCgroupBuilder, LinuxDeviceType, Mount as OciMount, MountBuilder, Process, Spec,
    },
};

use super::cdi::{ContainerEdits, DeviceNode, Hook, Mount};

/// What a container may do to a device unless the vendor says otherwise.
const ACCESS: &str = "rwm";

/// Why edits cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// A kind of device that does not exist.
    #[error("\"{0}\" is no type of device")]
    DeviceType(String),
    /// A moment of a container's life that does not exist.
    #[error("\"{0}\" is no hook")]
    HookName(String),
    /// The configuration would be malformed.
    #[error(transparent)]
    Spec(#[from] OciSpecError),
}

/// Applies them all, or gives an error and a configuration that must not be used.
///
/// # Errors
/// When the edits ask for what no configuration can say.
pub fn apply(spec: &mut Spec, edits: &ContainerEdits) -> Result<(), EditError> {
    if let Some(process) = spec.process_mut() {
        set_env(process, edits);
        add_groups(process, &edits.additional_gids);
    }
    if let Some(linux) = spec.linux_mut() {
        add_devices(linux, &edits.device_nodes)?;
    }
    let mounts = edits.mounts.iter().map(mount).collect::<Result<Vec<_>, _>>()?;
    // A later mount covers an earlier one, so those of the device come last, and twice the same once.
    let mut all = spec.mounts().clone().unwrap_or_default();
    for mount in mounts {
        all.retain(|other| other.destination() != mount.destination());
        all.push(mount);
    }
    spec.set_mounts(Some(all));
    add_hooks(spec, &edits.hooks)
}

fn set_env(process: &mut Process, edits: &ContainerEdits) {
    let mut env = process.env().clone().unwrap_or_default();
    for line in &edits.env {
        let name = line.split_once('=').map_or(line.as_str(), |(name, _)| name);
        set(&mut env, name, line.clone());
    }
    for (name, folder) in &edits.search {
        let value = value_of(&env, name).filter(|value| !value.is_empty());
        let is_there = value.iter().any(|value| value.split(':').any(|one| one == folder));
        if !is_there {
            let line = match value {
                Some(value) => format!("{name}={folder}:{value}"),
                None => format!("{name}={folder}"),
            };
            set(&mut env, name, line);
        }
    }
    process.set_env(Some(env));
}

fn value_of(env: &[String], name: &str) -> Option<String> {
    let found = env.iter().rev().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found.map(str::to_owned)
}

/// In the place of an earlier value, else behind.
fn set(env: &mut Vec<String>, name: &str, line: String) {
    let is_it = |known: &String| known.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
    match env.iter().position(is_it) {
        Some(place) => env[place] = line,
        None => env.push(line),
    }
}

fn add_groups(process: &mut Process, gids: &[u32]) {
    if gids.is_empty() {
        return;
    }
    let mut user = process.user().clone();
    let mut groups = user.additional_gids().clone().unwrap_or_default();
    // Nobody is helped by root's group.
    groups.extend(gids.iter().filter(|gid| **gid != 0));
    groups.sort_unstable();
    groups.dedup();
    user.set_additional_gids(Some(groups));
    process.set_user(user);
}

/// The file and the right to use it: a file alone opens nothing.
fn add_devices(linux: &mut Linux, nodes: &[DeviceNode]) -> Result<(), EditError> {
    if nodes.is_empty() {
        return Ok(());
    }
    let mut devices = linux.devices().clone().unwrap_or_default();
    let mut resources = linux.resources().clone().unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    for node in nodes {
        let device = device(node)?;
        rules.push(rule(node, &device)?);
        devices.retain(|other| other.path() != device.path());
        devices.push(device);
    }
    resources.set_devices(Some(rules));
    linux.set_resources(Some(resources));
    linux.set_devices(Some(devices));
    Ok(())
}

fn device(node: &DeviceNode) -> Result<LinuxDevice, EditError> {
    let kind = match node.kind.as_deref() {
        Some("c" | "u") | None => LinuxDeviceType::C,
        Some("b") => LinuxDeviceType::B,
        Some("p") => LinuxDeviceType::P,
        Some(other) => return Err(EditError::DeviceType(other.to_owned())),
    };
    let mut device = LinuxDeviceBuilder::default()
        .path(&node.path)
        .typ(kind)
        .major(node.major.unwrap_or_default())
        .minor(node.minor.unwrap_or_default())
        .uid(node.uid.unwrap_or_default())
        .gid(node.gid.unwrap_or_default());
    if let Some(mode) = node.file_mode {
        device = device.file_mode(mode);
    }
    Ok(device.build()?)
}

fn rule(node: &DeviceNode, device: &LinuxDevice) -> Result<LinuxDeviceCgroup, OciSpecError> {
    LinuxDeviceCgroupBuilder::default()
        .allow(true)
        .typ(device.typ())
        .major(device.major())
        .minor(device.minor())
        .access(node.permissions.as_deref().unwrap_or(ACCESS))
        .build()
}

fn mount(mount: &Mount) -> Result<OciMount, OciSpecError> {
    MountBuilder::default()
        .destination(&mount.container_path)
        .source(&mount.host_path)
        .typ(mount.kind.as_deref().unwrap_or("bind"))
        .options(mount.options.clone())
        .build()
}

fn add_hooks(spec: &mut Spec, hooks: &[Hook]) -> Result<(), EditError> {
    if hooks.is_empty() {
        return Ok(());
    }
    let mut all = spec.hooks().clone().unwrap_or_default();
    for hook in hooks {
        add_hook(&mut all, hook)?;
    }
    spec.set_hooks(Some(all));
    Ok(())
}

fn add_hook(all: &mut Hooks, hook: &Hook) -> Result<(), EditError> {
    let list = match hook.hook_name.as_str() {
        "prestart" => all.prestart_mut(),
        "createRuntime" => all.create_runtime_mut(),
        "createContainer" => all.create_container_mut(),
        "startContainer" => all.start_container_mut(),
        "poststart" => all.poststart_mut(),
        "poststop" => all.poststop_mut(),
        other => return Err(EditError::HookName(other.to_owned())),
    };
    list.get_or_insert_default().push(oci_hook(hook)?);
    Ok(())
}

fn oci_hook(hook: &Hook) -> Result<OciHook, OciSpecError> {
    let mut built = HookBuilder::default().path(Path::new(&hook.path));
    if !hook.args.is_empty() {
        built = built.args(hook.args.clone());
    }
    if !hook.env.is_empty() {
        built = built.env(hook.env.clone());
    }
    if let Some(seconds) = hook.timeout {
        built = built.timeout(seconds);
    }
    built.build()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A container as the runtime makes it, as far as edits touch it.
    fn plain() -> Value {
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "cwd": "/", "user": {"uid": 1000, "gid": 0, "additionalGids": [7]},
                "env": ["PATH=/bin", "NVIDIA_VISIBLE_DEVICES=all"],
            },
            "mounts": [{"destination": "/data", "source": "/d", "type": "bind"}],
            "linux": {"resources": {"devices": [{"allow": false, "access": "rwm"}]}},
        })
    }

    fn edited(edits: &ContainerEdits) -> Result<Value, EditError> {
        let mut spec: Spec = serde_json::from_value(plain()).unwrap();
        apply(&mut spec, edits)?;
        Ok(serde_json::to_value(spec).unwrap())
    }

    #[test]
    fn no_edits_change_nothing() {
        let same: Spec = serde_json::from_value(plain()).unwrap();
        assert_eq!(edited(&ContainerEdits::default()).unwrap(), serde_json::to_value(same).unwrap());
    }

    #[test]
    fn a_container_gets_its_device_with_everything_that_belongs_to_it() {
        let edits = ContainerEdits {
            env: vec!["NVIDIA_VISIBLE_DEVICES=GPU-a".to_owned(), "NEW=1".to_owned()],
            device_nodes: vec![DeviceNode {
                path: "/dev/nvidia0".into(),
                kind: Some("c".to_owned()),
                major: Some(195),
                minor: Some(0),
                file_mode: Some(0o666),
                ..DeviceNode::default()
            }],
            mounts: vec![Mount {
                host_path: "/lib/libcuda.so.580".into(),
                container_path: "/usr/local/nvidia/lib64/libcuda.so.1".into(),
                options: vec!["ro".to_owned(), "rbind".to_owned()],
                kind: None,
            }],
            hooks: vec![Hook {
                hook_name: "createContainer".to_owned(),
                path: "/usr/bin/nvidia-ctk".into(),
                args: vec!["nvidia-ctk".to_owned(), "hook".to_owned()],
                ..Hook::default()
            }],
            additional_gids: vec![44, 0],
            search: vec![
                ("LD_LIBRARY_PATH".to_owned(), "/usr/local/nvidia/lib64".to_owned()),
                ("PATH".to_owned(), "/usr/local/nvidia/bin".to_owned()),
            ],
        };
        let spec = edited(&edits).unwrap();
        let process = &spec["process"];
        assert_eq!(
            process["env"],
            json!([
                "PATH=/usr/local/nvidia/bin:/bin",
                "NVIDIA_VISIBLE_DEVICES=GPU-a",
                "NEW=1",
                "LD_LIBRARY_PATH=/usr/local/nvidia/lib64",
            ])
        );
        assert_eq!(process["user"]["additionalGids"], json!([7, 44]));
        assert_eq!(
            spec["linux"]["devices"],
            json!([{
                "path": "/dev/nvidia0", "type": "c", "major": 195, "minor": 0, "fileMode": 0o666, "uid": 0, "gid": 0,
            }])
        );
        assert_eq!(
            spec["linux"]["resources"]["devices"],
            json!([
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 195, "minor": 0, "access": "rwm"},
            ]),
            "what is not given stays forbidden"
        );
        assert_eq!(
            spec["mounts"],
            json!([
                {"destination": "/data", "source": "/d", "type": "bind"},
                {
                    "destination": "/usr/local/nvidia/lib64/libcuda.so.1", "source": "/lib/libcuda.so.580",
                    "type": "bind", "options": ["ro", "rbind"],
                },
            ])
        );
        assert_eq!(
            spec["hooks"],
            json!({"createContainer": [{"path": "/usr/bin/nvidia-ctk", "args": ["nvidia-ctk", "hook"]}]})
        );
    }

    #[test]
    fn applying_twice_gives_a_device_once() {
        let node =
            DeviceNode { path: "/dev/x".into(), major: Some(1), minor: Some(2), ..DeviceNode::default() };
        let search = vec![("PATH".to_owned(), "/bin".to_owned())];
        let edits =
            ContainerEdits { device_nodes: vec![node.clone(), node], search, ..ContainerEdits::default() };
        let spec = edited(&edits).unwrap();
        assert_eq!(spec["linux"]["devices"].as_array().unwrap().len(), 1);
        assert_eq!(spec["process"]["env"][0], "PATH=/bin", "what is searched already is not added");
    }

    #[test]
    fn what_no_container_can_have_is_named() {
        let hook = Hook { hook_name: "sometime".to_owned(), ..Hook::default() };
        let error = edited(&ContainerEdits { hooks: vec![hook], ..ContainerEdits::default() }).unwrap_err();
        assert_eq!(error.to_string(), "\"sometime\" is no hook");
        let node = DeviceNode { kind: Some("z".to_owned()), ..DeviceNode::default() };
        let error =
            edited(&ContainerEdits { device_nodes: vec![node], ..ContainerEdits::default() }).unwrap_err();
        assert_eq!(error.to_string(), "\"z\" is no type of device");
    }
}
