//! From a container of the API to the configuration that libcontainer runs.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, Pod};
use oci_spec::{
    OciSpecError,
    runtime::{
        Capability, LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxNamespace,
        LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, PosixRlimitBuilder, PosixRlimitType,
        ProcessBuilder, RootBuilder, Spec, SpecBuilder, User, UserBuilder, get_default_maskedpaths,
        get_default_mounts, get_default_readonly_paths,
    },
};

use super::{
    StartFailure,
    cgroups::{self, Version},
    devices,
    environment::Environment,
    resources,
};
use crate::{
    image::{Image, user::User as Account},
    rootless::{self, Ids},
    shim,
};

/// Open files, as container runtimes give by default; never above what this process may grant.
const OPEN_FILES_MAX: u64 = 1_048_576;

/// Whose terminals are, by a convention as old as `/dev/pts`.
const TERMINAL_GROUP: u32 = 5;

/// Everything that decides how a container runs.
pub(super) struct Plan<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub image: &'a Image,
    pub environment: &'a Environment,
    pub cgroup: &'a str,
    /// Bind mounts from volumes and the pod's own files.
    pub mounts: Vec<Bind>,
    /// Namespaces of the pod to join, by path.
    pub namespaces: Vec<(LinuxNamespaceType, PathBuf)>,
    pub processes: Processes,
    pub memory_bytes: i128,
}

/// Which processes a container sees, and has its own among.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Processes {
    /// Its own.
    Own,
    /// Those of a namespace, by path.
    Of(PathBuf),
    /// All of the machine.
    Machine,
}

/// A path of the host inside the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bind {
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
    /// `rslave` and so on.
    pub propagation: &'static str,
}

/// The OCI configuration.
pub(super) fn build(plan: &Plan<'_>) -> Result<Spec, StartFailure> {
    let identity = Identity::of(plan.pod, plan.container, plan.image)?;
    if command_line(plan).is_empty() {
        return Err(StartFailure::new(
            "CreateContainerError",
            "no command specified: neither the container nor its image names one",
        ));
    }
    assemble(plan, &identity).map_err(|error| StartFailure::new("CreateContainerError", error.to_string()))
}

/// Who the container runs as, and what it may do.
struct Identity {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    privileged: bool,
    no_new_privileges: bool,
    read_only_root: bool,
    capabilities: HashSet<Capability>,
}

fn config_error(message: impl Into<String>) -> StartFailure {
    StartFailure::new("CreateContainerConfigError", message)
}

impl Identity {
    fn of(pod: &Pod, container: &Container, image: &Image) -> Result<Self, StartFailure> {
        let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let own = container.security_context.as_ref();
        let id = |field: &str, value: i64| {
            u32::try_from(value).map_err(|_| config_error(format!("{field}: out of range")))
        };
        let run_as = own.and_then(|c| c.run_as_user).or_else(|| of_pod.and_then(|c| c.run_as_user));
        let run_as = run_as.map(|uid| id("runAsUser", uid)).transpose()?;
        let run_as_group = own.and_then(|c| c.run_as_group).or_else(|| of_pod.and_then(|c| c.run_as_group));
        let account = account(run_as, image)?;
        let gid = run_as_group.map_or(Ok(account.gid), |gid| id("runAsGroup", gid))?;
        let non_root = own.and_then(|c| c.run_as_non_root).or_else(|| of_pod.and_then(|c| c.run_as_non_root));
        if non_root == Some(true) {
            check_non_root(run_as, account.uid, image)?;
        }
        // Those of the image count unless the pod wants its own alone.
        let is_strict = of_pod
            .and_then(|c| c.supplemental_groups_policy.as_deref())
            .is_some_and(|policy| policy == "Strict");
        let mut groups = if is_strict { Vec::new() } else { account.groups };
        for group in of_pod.iter().flat_map(|c| c.supplemental_groups.iter().flatten().chain(&c.fs_group)) {
            groups.push(id("supplementalGroups", *group)?);
        }
        let privileged = own.and_then(|c| c.privileged).unwrap_or(false);
        check_ids(account.uid, std::iter::once(gid).chain(groups.iter().copied()))?;
        Ok(Self {
            uid: account.uid,
            gid,
            groups,
            privileged,
            // What the API says: allowed unless forbidden.
            no_new_privileges: !own.and_then(|c| c.allow_privilege_escalation).unwrap_or(!image.is_confined),
            read_only_root: own.and_then(|c| c.read_only_root_filesystem).unwrap_or(image.is_confined),
            capabilities: capabilities(container, privileged, image.is_confined, devices::are_guarded())?,
        })
    }

    fn user(&self) -> Result<User, OciSpecError> {
        UserBuilder::default().uid(self.uid).gid(self.gid).additional_gids(self.groups.clone()).build()
    }

    /// Only root gets effective capabilities; others could gain them through set-user-id programs.
    fn linux_capabilities(&self) -> Result<LinuxCapabilities, OciSpecError> {
        let held = if self.uid == 0 { self.capabilities.clone() } else { HashSet::new() };
        LinuxCapabilitiesBuilder::default()
            .bounding(self.capabilities.clone())
            .effective(held.clone())
            .permitted(held)
            .inheritable(HashSet::new())
            .ambient(HashSet::new())
            .build()
    }
}

/// Who the container runs as: the pod's word, else the image's.
fn account(run_as: Option<u32>, image: &Image) -> Result<Account, StartFailure> {
    let failed = |error: crate::Error| StartFailure::new("CreateContainerError", error.full());
    let accounts = image.accounts().map_err(failed)?;
    match run_as {
        Some(uid) => Ok(accounts.numbered(uid)),
        None => accounts.user(image.settings.user.as_deref().unwrap_or("")).map_err(failed),
    }
}

/// Not everybody is there on a node of an ordinary user.
fn check_ids(uid: u32, groups: impl IntoIterator<Item = u32>) -> Result<(), StartFailure> {
    let why = "this node belongs to an ordinary user, and that id is not among the user's subordinate ones (/etc/subuid, \
               /etc/subgid)";
    if !Ids::of_users().has(uid) {
        return Err(config_error(format!("user {uid} is not there: {why}")));
    }
    let known = Ids::of_groups();
    match groups.into_iter().find(|group| !known.has(*group)) {
        Some(group) => Err(config_error(format!("group {group} is not there: {why}"))),
        None => Ok(()),
    }
}

/// A name proves nothing: the image could call root anything. So says the kubelet.
fn check_non_root(run_as: Option<u32>, uid: u32, image: &Image) -> Result<(), StartFailure> {
    let said = image.settings.user.as_deref().unwrap_or("");
    let user = said.split_once(':').map_or(said, |(user, _)| user);
    if run_as.is_none() && !user.is_empty() && user.parse::<u32>().is_err() {
        return Err(config_error(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"
        )));
    }
    match uid {
        0 => Err(config_error("container has runAsNonRoot and image will run as root")),
        _ => Ok(()),
    }
}

/// The set that container runtimes give by default.
const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Where nothing keeps a container from devices whose files it can make, it must not make any.
fn capabilities(
    container: &Container,
    privileged: bool,
    is_confined: bool,
    are_devices_guarded: bool,
) -> Result<HashSet<Capability>, StartFailure> {
    if privileged {
        return Ok(all_capabilities());
    }
    let asked = container.security_context.as_ref().and_then(|context| context.capabilities.as_ref());
    let (add, drop) = asked.map_or((None, None), |asked| (asked.add.as_ref(), asked.drop.as_ref()));
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let mut set: HashSet<Capability> = if is_confined || drop.into_iter().flatten().any(is_all) {
        HashSet::new()
    } else {
        DEFAULT_CAPABILITIES.into()
    };
    for name in drop.into_iter().flatten().filter(|name| !is_all(name)) {
        set.remove(&capability(name)?);
    }
    for name in add.into_iter().flatten() {
        if is_all(name) {
            set.extend(all_capabilities());
        } else {
            set.insert(capability(name)?);
        }
    }
    if !are_devices_guarded {
        set.remove(&Capability::Mknod);
    }
    Ok(set)
}

fn capability(name: &str) -> Result<Capability, StartFailure> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    serde_json::from_value(serde_json::Value::String(full))
        .map_err(|_| config_error(format!("unknown capability \"{name}\"")))
}

/// Those this process holds: nobody can give what they lack.
fn all_capabilities() -> HashSet<Capability> {
    const NAMES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
        NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE \
        SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE \
        AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF \
        CHECKPOINT_RESTORE";
    let held = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0);
    NAMES
        .split_whitespace()
        .enumerate()
        .filter(|(bit, _)| held & (1 << bit) != 0)
        .filter_map(|(_, name)| capability(name).ok())
        .collect()
}

fn assemble(plan: &Plan<'_>, identity: &Identity) -> Result<Spec, OciSpecError> {
    let open_files = open_files_limit();
    let mut process = ProcessBuilder::default()
        .terminal(plan.container.tty == Some(true))
        .args(command_line(plan))
        .env(plan.environment.lines())
        .cwd(working_dir(plan))
        .user(identity.user()?)
        .capabilities(identity.linux_capabilities()?)
        .no_new_privileges(identity.no_new_privileges)
        .oom_score_adj(resources::oom_score(plan.pod, plan.container, plan.memory_bytes));
    process = process.rlimits(vec![
        PosixRlimitBuilder::default()
            .typ(PosixRlimitType::RlimitNofile)
            .hard(open_files)
            .soft(open_files)
            .build()?,
    ]);

    let version = cgroups::version();
    let mut linux = LinuxBuilder::default().namespaces(namespaces(plan, version)?).cgroups_path(plan.cgroup);
    linux = if identity.privileged {
        linux.masked_paths(Vec::new()).readonly_paths(Vec::new())
    } else {
        linux.masked_paths(get_default_maskedpaths()).readonly_paths(read_only_paths(plan, version))
    };
    let mut linux = linux.build()?;
    linux.set_resources(resources::linux(plan.container, identity.privileged)?);
    let mut process = process.build()?;
    if process.terminal() == Some(true) {
        shim::add_term(&mut process);
    }
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(
            RootBuilder::default()
                .path(Path::new(crate::shim::files::ROOTFS))
                .readonly(identity.read_only_root)
                .build()?,
        )
        .process(process)
        .mounts(mounts(plan, identity.privileged, version)?)
        .linux(linux)
        .build()?;
    // The namespace has its name already, and a pod on the host's must not change it. The builder has a name of its own.
    spec.set_hostname(None);
    Ok(spec)
}

/// The container's word, else the image's.
fn working_dir<'a>(plan: &'a Plan<'_>) -> &'a str {
    let said = [plan.container.working_dir.as_deref(), plan.image.settings.working_dir.as_deref()];
    said.into_iter().flatten().find(|folder| !folder.is_empty()).unwrap_or("/")
}

/// `command` replaces all that the image says; `args` replace what it says after its entry point.
fn command_line(plan: &Plan<'_>) -> Vec<String> {
    let given = |list: &Option<Vec<String>>| {
        list.as_ref()
            .filter(|list| !list.is_empty())
            .map(|list| list.iter().map(|part| plan.environment.expand(part)).collect::<Vec<_>>())
    };
    let settings = &plan.image.settings;
    let of_image = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let args = given(&plan.container.args);
    let (mut line, args) = match given(&plan.container.command) {
        Some(command) => (command, args.unwrap_or_default()),
        None => (of_image(&settings.entrypoint), args.unwrap_or_else(|| of_image(&settings.cmd))),
    };
    line.extend(args);
    line
}

fn open_files_limit() -> u64 {
    nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .map_or(OPEN_FILES_MAX, |(_, hard)| hard.min(OPEN_FILES_MAX))
}

fn namespaces(plan: &Plan<'_>, version: Version) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let mut all = Vec::new();
    all.push(LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Mount).build()?);
    if version == Version::V2 {
        all.push(LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Cgroup).build()?);
    }
    let own = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Pid);
    match &plan.processes {
        Processes::Own => all.push(own.build()?),
        Processes::Of(path) => all.push(own.path(path).build()?),
        Processes::Machine => {}
    }
    for (kind, path) in &plan.namespaces {
        all.push(LinuxNamespaceBuilder::default().typ(*kind).path(path).build()?);
    }
    Ok(all)
}

fn mounts(plan: &Plan<'_>, privileged: bool, version: Version) -> Result<Vec<Mount>, OciSpecError> {
    let mut all = get_default_mounts();
    all.retain(|mount| mount.destination() != Path::new(cgroups::ROOT));
    if rootless::is_inside() {
        all = all
            .into_iter()
            .filter_map(|mount| possible(mount, plan).transpose())
            .collect::<Result<_, _>>()?;
    }
    if !brings_own_cgroups(plan) {
        all.extend(cgroup_mounts(plan.cgroup, privileged, version)?);
    }
    all.retain(|mount| !plan.mounts.iter().any(|bind| Path::new(&bind.target) == mount.destination()));
    for shown in &plan.image.shown {
        let options = ["rbind", "rprivate", "ro", "nosuid", "nodev"].map(str::to_owned).to_vec();
        let mount = MountBuilder::default().destination(&shown.target).source(&shown.source).typ("bind");
        all.push(mount.options(options).build()?);
    }
    for bind in &plan.mounts {
        let access = if bind.read_only { "ro" } else { "rw" };
        let options = ["rbind", bind.propagation, access].map(str::to_owned).to_vec();
        let mount = MountBuilder::default().destination(&bind.target).source(&bind.source).typ("bind");
        all.push(mount.options(options).build()?);
    }
    Ok(all)
}

/// A volume is where control groups would be.
fn brings_own_cgroups(plan: &Plan<'_>) -> bool {
    plan.mounts.iter().any(|bind| Path::new(&bind.target) == Path::new(cgroups::ROOT))
}

/// The container's own control group, by which programs find out what they may use. Only the privileged write there.
///
/// With version 1 each controller's folder is bound to where it is looked for: what libcontainer mounts by itself can be written to.
fn cgroup_mounts(cgroup: &str, privileged: bool, version: Version) -> Result<Vec<Mount>, OciSpecError> {
    let access = if privileged { "rw" } else { "ro" };
    let mount = |target: &Path, kind: &str, source: &Path, options: &[&str]| {
        let options = ["nosuid", "noexec", "nodev", "relatime"].iter().chain(options);
        let options = options.map(|&option| option.to_owned()).collect::<Vec<_>>();
        MountBuilder::default().destination(target).typ(kind).source(source).options(options).build()
    };
    let root = Path::new(cgroups::ROOT);
    if version == Version::V2 {
        return Ok(vec![mount(root, "cgroup", Path::new("cgroup"), &[access])?]);
    }
    let mut all = vec![mount(root, "tmpfs", Path::new("tmpfs"), &["mode=755", "size=64k"])?];
    for (folder, target) in cgroups::views(cgroup) {
        all.push(mount(&target, "bind", &folder, &["bind", "rprivate", access])?);
    }
    Ok(all)
}

/// What holds the views of version 1 is made read-only when they are in it.
fn read_only_paths(plan: &Plan<'_>, version: Version) -> Vec<String> {
    let mut all = get_default_readonly_paths();
    if version == Version::V1 && !brings_own_cgroups(plan) {
        all.push(cgroups::ROOT.to_owned());
    }
    all
}

/// Only who is root of what they show may mount these anew: of what belongs to the machine, an ordinary user shows what is there.
fn possible(mut mount: Mount, plan: &Plan<'_>) -> Result<Option<Mount>, OciSpecError> {
    let has = |kind| plan.namespaces.iter().any(|(own, _)| *own == kind);
    let belongs_to_the_machine = match mount.typ().as_deref() {
        Some("proc") => plan.processes == Processes::Machine,
        Some("sysfs") => !has(LinuxNamespaceType::Network),
        Some("mqueue") => !has(LinuxNamespaceType::Ipc),
        _ => false,
    };
    if belongs_to_the_machine {
        if !mount.destination().exists() {
            return Ok(None);
        }
        let shown =
            MountBuilder::default().destination(mount.destination()).source(mount.destination()).typ("bind");
        return shown.options(["rbind", "rslave"].map(str::to_owned).to_vec()).build().map(Some);
    }
    if mount.typ().as_deref() == Some("devpts") && !Ids::of_groups().has(TERMINAL_GROUP) {
        let options = mount.options().iter().flatten().filter(|option| !option.starts_with("gid="));
        mount.set_options(Some(options.cloned().collect()));
    }
    Ok(Some(mount))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::kernels::Shown;

    fn container(json: serde_json::Value) -> Container {
        serde_json::from_value(json).unwrap()
    }

    /// An image whose accounts are in a folder that is there for as long as the test.
    fn image(settings: serde_json::Value) -> Image {
        static ROOT: std::sync::LazyLock<tempfile::TempDir> = std::sync::LazyLock::new(|| {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir(root.path().join("etc")).unwrap();
            std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:\napp:x:1000:1001::/:\n").unwrap();
            std::fs::write(root.path().join("etc/group"), "video:x:44:app\n").unwrap();
            root
        });
        Image::built_in(String::new(), ROOT.path().to_owned(), serde_json::from_value(settings).unwrap(), 0)
    }

    fn identity(pod: &Pod, json: serde_json::Value, user: &str) -> Result<Identity, StartFailure> {
        Identity::of(pod, &container(json), &image(serde_json::json!({"User": user})))
    }

    fn spec_of(container: &Container) -> Spec {
        spec_on(container, &image(serde_json::json!({"Entrypoint": ["/toolbox"]})))
    }

    fn spec_on(container: &Container, image: &Image) -> Spec {
        let pod = Pod::default();
        let mut environment = Environment::default();
        environment.set("NAME", "world".to_owned());
        build(&Plan {
            pod: &pod,
            container,
            image,
            environment: &environment,
            cgroup: "/c",
            mounts: Vec::new(),
            namespaces: Vec::new(),
            processes: Processes::Own,
            memory_bytes: 1 << 30,
        })
        .unwrap()
    }

    #[test]
    fn arguments_follow_the_entry_point_and_a_command_replaces_it() {
        let args = |json| spec_of(&container(json)).process().as_ref().unwrap().args().clone().unwrap();
        assert_eq!(args(serde_json::json!({"name": "c"})), ["/toolbox"]);
        assert_eq!(
            args(serde_json::json!({"name": "c", "args": ["hi", "$(NAME)"]})),
            ["/toolbox", "hi", "world"]
        );
        assert_eq!(
            args(serde_json::json!({"name": "c", "command": ["/bin/x"], "args": ["y"]})),
            ["/bin/x", "y"]
        );
    }

    #[test]
    fn an_image_says_what_runs_and_where_unless_the_container_does() {
        let image =
            image(serde_json::json!({"Entrypoint": ["/entry"], "Cmd": ["a", "b"], "WorkingDir": "/work"}));
        for (json, args, folder) in [
            (serde_json::json!({"name": "c"}), &["/entry", "a", "b"][..], "/work"),
            (serde_json::json!({"name": "c", "args": ["x"], "workingDir": "/own"}), &["/entry", "x"], "/own"),
            (serde_json::json!({"name": "c", "command": ["/own"]}), &["/own"], "/work"),
        ] {
            let process = spec_on(&container(json), &image).process().clone().unwrap();
            assert_eq!(process.args().clone().unwrap(), args);
            assert_eq!(process.cwd().display().to_string(), folder);
        }
    }

    #[test]
    fn the_user_is_the_containers_the_pods_or_the_images() {
        let nobody = Pod::default();
        let pod: Pod =
            serde_json::from_value(serde_json::json!({"spec": {"containers": [], "securityContext":
            {"supplementalGroups": [7], "runAsGroup": 8}}}))
            .unwrap();
        let ids = |pod: &Pod, context: serde_json::Value, user: &str| {
            let context = serde_json::json!({"name": "c", "securityContext": context});
            let found = identity(pod, context, user).unwrap();
            (found.uid, found.gid, found.groups)
        };
        let nothing = serde_json::json!({});
        assert_eq!(ids(&nobody, nothing.clone(), "app"), (1000, 1001, vec![44]));
        assert_eq!(ids(&nobody, serde_json::json!({"runAsUser": 1000}), ""), (1000, 1001, vec![44]));
        assert_eq!(ids(&nobody, serde_json::json!({"runAsUser": 5}), "app"), (5, 0, vec![]));
        assert_eq!(ids(&pod, nothing, "app"), (1000, 8, vec![44, 7]));
        let missing = identity(&nobody, serde_json::json!({"name": "c"}), "nginx").err().unwrap();
        assert!(missing.message.contains("nginx"), "{missing:?}");
    }

    #[test]
    fn dropping_all_capabilities_leaves_those_that_are_added() {
        let container = container(serde_json::json!({"name": "c", "securityContext":
            {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}));
        let spec = spec_of(&container);
        let held = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        assert_eq!(held.bounding().clone().unwrap(), HashSet::from([Capability::NetBindService]));
    }

    #[test]
    fn a_user_other_than_root_holds_no_capabilities() {
        let spec =
            spec_of(&container(serde_json::json!({"name": "c", "securityContext": {"runAsUser": 1000}})));
        let process = spec.process().as_ref().unwrap().clone();
        assert_eq!(process.user().uid(), 1000);
        assert!(process.capabilities().clone().unwrap().effective().clone().unwrap().is_empty());
    }

    #[test]
    fn a_container_that_must_not_be_root_is_refused_when_it_would_be() {
        let must = serde_json::json!({"name": "c", "securityContext": {"runAsNonRoot": true}});
        for (user, complaint) in
            [("", "will run as root"), ("0:5", "will run as root"), ("app", "non-numeric user (app)")]
        {
            let failure = identity(&Pod::default(), must.clone(), user).err().unwrap();
            assert_eq!(failure.reason, "CreateContainerConfigError");
            assert!(failure.message.contains(complaint), "{}", failure.message);
        }
        assert_eq!(identity(&Pod::default(), must, "1000").unwrap().uid, 1000);
    }

    #[test]
    fn a_confined_image_has_nothing_that_its_pod_does_not_give_it() {
        let mut image = image(serde_json::json!({"Entrypoint": ["/x"]}));
        image.is_confined = true;
        let spec = |context: serde_json::Value| {
            spec_on(&container(serde_json::json!({"name": "c", "securityContext": context})), &image)
        };
        let facts = |spec: Spec| {
            let process = spec.process().clone().unwrap();
            let held = process.capabilities().clone().unwrap().bounding().clone().unwrap();
            (held, process.no_new_privileges(), spec.root().clone().unwrap().readonly())
        };
        assert_eq!(facts(spec(serde_json::json!({}))), (HashSet::new(), Some(true), Some(true)));
        let asked = serde_json::json!({"capabilities": {"add": ["SYS_NICE"]}, "readOnlyRootFilesystem": false,
            "allowPrivilegeEscalation": true});
        let given = HashSet::from([Capability::SysNice]);
        assert_eq!(facts(spec(asked)), (given, Some(false), Some(false)));
    }

    #[test]
    fn what_an_image_shows_of_the_machine_is_read_only_and_below_volumes() {
        let shown = Shown { source: "/usr/lib".into(), target: "/lib".into() };
        let mut image = image(serde_json::json!({"Entrypoint": ["/x"]}));
        image.shown = vec![shown];
        let mounts = spec_on(&container(serde_json::json!({"name": "c"})), &image).mounts().clone().unwrap();
        let mount = mounts.last().unwrap();
        assert_eq!(mount.destination(), Path::new("/lib"));
        assert_eq!(mount.source().as_deref(), Some(Path::new("/usr/lib")));
        let options = mount.options().clone().unwrap();
        for option in ["ro", "nosuid", "nodev"] {
            assert!(options.iter().any(|known| known == option), "{option}");
        }
    }

    #[test]
    fn an_unknown_capability_is_named() {
        let container = container(
            serde_json::json!({"name": "c", "securityContext": {"capabilities": {"add": ["FLY"]}}}),
        );
        let failure = capabilities(&container, false, false, true).unwrap_err();
        assert!(failure.message.contains("\"FLY\""), "{}", failure.message);
    }

    #[test]
    fn control_groups_are_read_only_but_for_the_privileged() {
        let options = |privileged, version| {
            let mounts = cgroup_mounts("/pods/one", privileged, version).unwrap();
            let last = mounts.last().unwrap();
            (last.typ().clone().unwrap(), last.options().clone().unwrap().last().cloned().unwrap())
        };
        let pair = |kind: &str, access: &str| (kind.to_owned(), access.to_owned());
        assert_eq!(options(false, Version::V2), pair("cgroup", "ro"));
        assert_eq!(options(true, Version::V2), pair("cgroup", "rw"));
        if cgroups::version() == Version::V1 {
            assert_eq!(options(false, Version::V1), pair("bind", "ro"));
            assert_eq!(options(true, Version::V1), pair("bind", "rw"));
        }
    }

    #[test]
    fn device_files_are_made_only_where_devices_are_filtered() {
        for add in ["SYS_TIME", "MKNOD", "ALL"] {
            let container = container(
                serde_json::json!({"name": "c", "securityContext": {"capabilities": {"add": [add]}}}),
            );
            let may = |privileged, are_guarded| {
                capabilities(&container, privileged, false, are_guarded).unwrap().contains(&Capability::Mknod)
            };
            assert!(may(false, true) && !may(false, false), "{add}");
            assert_eq!(may(true, false), all_capabilities().contains(&Capability::Mknod), "privileged");
        }
    }
}
