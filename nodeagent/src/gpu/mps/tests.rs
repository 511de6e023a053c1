//! Against scripts that stand for NVIDIA's programs: a daemon is a file beside its pipe, and each call leaves a line behind.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::gpu::{Gpu, Sharing};

/// With `-d` a daemon begins, and says with what; else it answers a line while there is one.
const CONTROL_SCRIPT: &str = r#"#!/bin/sh
here=$(dirname "$0")
alive="$CUDA_MPS_PIPE_DIRECTORY/alive"
if [ "$1" = -d ]; then
    [ -e "$here/fails" ] && exit 1
    echo "start order=$CUDA_DEVICE_ORDER visible=$CUDA_VISIBLE_DEVICES log=$(basename "$CUDA_MPS_LOG_DIRECTORY")" >> "$here/calls"
    : > "$alive"
    exit 0
fi
read -r line
[ -e "$alive" ] || exit 1
echo "$line" >> "$here/calls"
case "$line" in quit*) rm "$alive" ;; get*) echo 25.0 ;; esac
"#;

const SMI_SCRIPT: &str = "#!/bin/sh\necho \"smi $*\" >> \"$(dirname \"$0\")/calls\"\n";

/// A machine with two GPUs, and NVIDIA's programs.
struct Machine {
    folder: tempfile::TempDir,
    sharing: Sharing,
}

impl Machine {
    fn new(policy: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("control", CONTROL_SCRIPT), ("smi", SMI_SCRIPT)] {
            // Written by another process: a file that is open here for writing, in a child of another test, too, cannot be run.
            let (text_path, path) = (folder.path().join("text"), folder.path().join(name));
            fs::write(&text_path, text).unwrap();
            let done =
                Command::new("install").args(["-m", "755"]).args([&text_path, &path]).status().unwrap();
            assert!(done.success());
        }
        Self { folder, sharing: Sharing::parse(policy).unwrap() }
    }

    fn daemons(&self) -> Daemons {
        let at = |name: &str| self.folder.path().join(name).into_os_string();
        Daemons {
            // Without a namespace of its own, which tests may not have.
            launcher: ["/bin/sh", "-c", "shift; exec \"$@\"", "launcher"].map(OsString::from).to_vec(),
            control: at("control"),
            smi: at("smi"),
            ..Daemons::new(self.place())
        }
    }

    fn place(&self) -> Place {
        Place { folder: self.folder.path().join("mps") }
    }

    fn inventory(&self) -> Inventory {
        let gpu = |index: u32| Gpu {
            index,
            uuid: format!("GPU-{index}"),
            memory_bytes: 81_559 << 20,
            compute_capability: Some("9.0".to_owned()),
            ..Gpu::default()
        };
        let mut inventory = Inventory { gpus: vec![gpu(0), gpu(1)], ..Inventory::default() };
        self.sharing.apply(&mut inventory);
        inventory
    }

    /// Why each GPU is withheld after a look.
    fn look(&self, daemons: &mut Daemons) -> Vec<Option<String>> {
        let mut inventory = self.inventory();
        daemons.keep(&mut inventory);
        inventory.gpus.into_iter().map(|gpu| gpu.withheld).collect()
    }

    /// What was called since the last time.
    fn calls(&self) -> Vec<String> {
        let path = self.folder.path().join("calls");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        text.lines().map(str::to_owned).collect()
    }

    fn alive(&self) -> PathBuf {
        self.place().pipe("nvidia.com_gpu-4").join("alive")
    }
}

const ALL: &str = "version: v1\nsharing: {mps: {resources: [{name: nvidia.com/gpu, replicas: 4}]}}\n";

#[test]
fn a_daemon_is_started_once_with_the_parts_of_its_clients_and_is_taken_over() {
    let machine = Machine::new(ALL);
    assert_eq!(machine.look(&mut machine.daemons()), [None, None]);
    let expected = [
        "smi -i GPU-0 -c EXCLUSIVE_PROCESS",
        "smi -i GPU-1 -c EXCLUSIVE_PROCESS",
        "start order=PCI_BUS_ID visible= log=log",
        "set_default_device_pinned_mem_limit 0 20389M",
        "set_default_device_pinned_mem_limit 1 20389M",
        "set_default_active_thread_percentage 25",
    ];
    assert_eq!(machine.calls(), expected);
    // Another agent, another day.
    let mut next = machine.daemons();
    for _ in 0..2 {
        assert_eq!(machine.look(&mut next), [None, None]);
    }
    assert_eq!(machine.calls(), [QUESTION, QUESTION], "it is asked, and no other is started");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(machine.place().folder), mode(machine.place().memory())), (0o700, 0o1777));
}

#[test]
fn gpus_whose_daemon_has_ended_are_withheld_for_a_look_and_those_that_get_none_for_longer() {
    let machine = Machine::new(ALL);
    let mut daemons = machine.daemons();
    assert_eq!(machine.look(&mut daemons), [None, None]);
    fs::remove_file(machine.alive()).unwrap();
    let withheld = machine.look(&mut daemons);
    let why = withheld[1].as_deref().unwrap();
    assert!(why.starts_with("its MPS daemon has ended") && withheld[0] == withheld[1], "{why}");
    assert_eq!(machine.look(&mut daemons), [None, None], "there is another");
    assert!(machine.calls().iter().filter(|call| call.starts_with("start")).count() == 2);

    fs::remove_file(machine.alive()).unwrap();
    fs::write(machine.folder.path().join("fails"), "").unwrap();
    machine.look(&mut daemons);
    for _ in 0..3 {
        let why = machine.look(&mut daemons).remove(0).unwrap();
        assert!(why.starts_with("its MPS daemon cannot be started: nvidia-cuda-mps-control: "), "{why}");
    }
    let modes = machine.calls().iter().filter(|call| call.starts_with("smi")).count();
    assert_eq!(modes, 2, "it was tried once, and is left alone for a while");
}

#[test]
fn what_is_not_shared_any_more_or_otherwise_has_no_daemon_of_before() {
    let machine = Machine::new(ALL);
    assert_eq!(machine.look(&mut machine.daemons()), [None, None]);
    machine.calls();
    let policy = "{name: nvidia.com/gpu, replicas: 2, devices: [1], rename: nvidia.com/gpu.part}";
    let sharing = Sharing::parse(&format!("version: v1\nsharing: {{mps: {{resources: [{policy}]}}}}\n"));
    let machine = Machine { sharing: sharing.unwrap(), ..machine };
    assert_eq!(machine.look(&mut machine.daemons()), [None, None]);
    let expected = [
        "quit",
        "smi -i GPU-0 -c DEFAULT",
        "smi -i GPU-1 -c DEFAULT",
        "smi -i GPU-1 -c EXCLUSIVE_PROCESS",
        "start order=PCI_BUS_ID visible=GPU-1 log=log",
        "set_default_device_pinned_mem_limit 0 40779M",
        "set_default_active_thread_percentage 50",
    ];
    assert_eq!(machine.calls(), expected);
    assert!(!machine.alive().exists());
    let machine = Machine { sharing: Sharing::default(), ..machine };
    assert_eq!(machine.look(&mut machine.daemons()), [None, None]);
    assert_eq!(machine.calls(), ["quit", "smi -i GPU-1 -c DEFAULT"]);
    assert!(recorded(&machine.place()).is_empty());
}

#[test]
fn a_container_is_shown_where_its_daemon_is_and_how_much_it_may_use() {
    let machine = Machine::new(ALL);
    let inventory = machine.inventory();
    let gpus: Vec<&Gpu> = inventory.gpus.iter().collect();
    let edits = sets::edits(&gpus, &machine.place()).unwrap();
    let expected =
        ["CUDA_MPS_PIPE_DIRECTORY=/mps/nvidia.com/gpu/pipe", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=25"];
    assert_eq!(edits.env, expected);
    let mounts: Vec<_> = edits.mounts.iter().map(|mount| (&mount.host_path, &mount.container_path)).collect();
    let (pipe, memory) = (machine.place().pipe("nvidia.com_gpu-4"), machine.place().memory());
    assert_eq!(mounts, [(&pipe, &PathBuf::from("/mps/nvidia.com/gpu/pipe")), (&memory, &"/dev/shm".into())]);
    let mut other = inventory.clone();
    other.gpus[1].shared.as_mut().unwrap().replicas = 2;
    let why = sets::edits(&other.gpus.iter().collect::<Vec<_>>(), &machine.place()).unwrap_err();
    assert!(why.contains("several MPS daemons"), "{why}");
    let plain = Gpu::default();
    assert_eq!(sets::edits(&[&plain], &machine.place()).unwrap(), Default::default());
}

#[test]
fn a_gpu_is_not_shared_by_more_than_it_serves() {
    let machine = Machine::new(&ALL.replace("replicas: 4", "replicas: 17"));
    let mut daemons = machine.daemons();
    assert_eq!(machine.look(&mut daemons), [None, None]);
    let mut old = machine.inventory();
    old.gpus[1].compute_capability = Some("7.0".to_owned());
    daemons.keep(&mut old);
    let why = old.gpus[1].withheld.as_deref().unwrap();
    assert_eq!(why, "MPS shares it among 16 at most, and replicas are 17");
    assert_eq!(old.gpus[0].withheld, None);
}

#[test]
fn addresses_of_daemons_are_short_however_long_the_folder_is() {
    let place = Place::of(Path::new(&format!("/{}", "long/".repeat(100))));
    let socket = place.pipe("nvidia.com_gpu.shared-48").join("control_privileged");
    assert!(socket.as_os_str().len() < 107, "{}", socket.display());
    assert_ne!(place, Place::of(Path::new("/other")));
}
