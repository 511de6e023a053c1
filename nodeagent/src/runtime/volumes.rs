//! Volumes of a pod: folders on the host that containers see by bind mounts.
//!
//! What comes from the API (config maps, secrets, the pod's own fields) is written the way kubelet
//! does: into a new folder, then one rename of the link `..data` switches all files at once.
//! Secrets and `medium: Memory` live on a tmpfs. Mounts are undone by the pod's release.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use claw_schemas::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath, Pod,
    Secret, Volume, VolumeProjection,
};
use nix::mount::{MsFlags, mount};
use tokio_util::sync::CancellationToken;

use super::{
    Sources, StartFailure,
    environment::{Environment, Fields},
    sources::Reader,
    spec::Bind,
    sub_path,
};
use crate::Error;

/// A secret is at most 1 MiB, a projected volume holds a few, and an update keeps both versions for a moment.
const SECRET_TMPFS_BYTES: u64 = 16 << 20;

/// Mode of files from the API when nobody says otherwise.
const DEFAULT_MODE: u32 = 0o644;

const DATA_LINK: &str = "..data";

/// Path within a volume → content and mode.
type Files = BTreeMap<String, (Vec<u8>, u32)>;

/// What a volume is made from, gathered before anything is written.
enum Content {
    Files { files: Files, tmpfs: bool },
    EmptyDir(EmptyDirVolumeSource),
    HostPath(HostPathVolumeSource),
}

/// Makes or refreshes all volumes of a pod under `folder`.
pub(super) async fn prepare(
    folder: &Path,
    fields: &Fields<'_>,
    sources: &Sources,
) -> Result<(), StartFailure> {
    for volume in volumes(fields.pod) {
        let content = gather(volume, fields, sources.fresh()).await.map_err(|why| failed(volume, &why))?;
        let path = folder.join(&volume.name);
        let group = fs_group(fields.pod);
        let made = tokio::task::spawn_blocking(move || make(&path, &content, group)).await;
        made.map_err(|error| failed(volume, &error.to_string()))?
            .map_err(|error| failed(volume, &error.full()))?;
    }
    Ok(())
}

/// Brings changes into volumes that come from the API; the others stay as they are. Begins nothing any more once it is given up.
pub(super) async fn refresh(
    folder: &Path,
    fields: &Fields<'_>,
    sources: &Sources,
    given_up: &CancellationToken,
) -> Result<(), Error> {
    for volume in volumes(fields.pod) {
        let gathered = given_up.run_until_cancelled(gather(volume, fields, sources.level())).await;
        let Some(gathered) = gathered.filter(|_| !given_up.is_cancelled()) else { return Ok(()) };
        // Something that is missing for the moment keeps its last content, as with kubelet.
        let Ok(Content::Files { files, tmpfs }) = gathered else { continue };
        let path = folder.join(&volume.name);
        let group = fs_group(fields.pod);
        tokio::task::spawn_blocking(move || rewrite_files(&path, &files, tmpfs, group))
            .await
            .map_err(|error| Error::Unsupported(error.to_string()))??;
    }
    Ok(())
}

/// Whether a pod has volumes that can change while it runs.
pub(super) fn can_change(pod: &Pod) -> bool {
    volumes(pod).any(|volume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some()
    })
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

fn failed(volume: &Volume, why: &str) -> StartFailure {
    StartFailure::new(
        "FailedMount",
        format!("MountVolume.SetUp failed for volume \"{}\" : {why}", volume.name),
    )
}

fn fs_group(pod: &Pod) -> Option<u32> {
    u32::try_from(pod.spec.as_ref()?.security_context.as_ref()?.fs_group?).ok()
}

async fn gather(volume: &Volume, fields: &Fields<'_>, sources: Reader<'_>) -> Result<Content, String> {
    if let Some(source) = &volume.empty_dir {
        return Ok(Content::EmptyDir(source.clone()));
    }
    if let Some(source) = &volume.host_path {
        return Ok(Content::HostPath(source.clone()));
    }
    let mut files = Files::new();
    let mut tmpfs = false;
    if let Some(source) = &volume.config_map {
        let wanted = Wanted::new(&source.name, source.items.as_deref(), source.optional, source.default_mode);
        add_config_map(&mut files, &wanted, fields, sources).await?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or("");
        let wanted = Wanted::new(name, source.items.as_deref(), source.optional, source.default_mode);
        add_secret(&mut files, &wanted, fields, sources).await?;
        tmpfs = true;
    } else if let Some(source) = &volume.downward_api {
        add_fields(&mut files, source.items.as_deref(), source.default_mode, fields)?;
    } else if let Some(source) = &volume.projected {
        for projection in source.sources.iter().flatten() {
            add_projection(&mut files, projection, source.default_mode, fields, sources).await?;
            tmpfs |= projection.secret.is_some() || projection.service_account_token.is_some();
        }
    } else {
        return Err(
            "this kind of volume is not supported on this node: use emptyDir, configMap, secret, downwardAPI, projected or hostPath"
                .to_owned(),
        );
    }
    match files.keys().find(|path| !is_inside(path)) {
        Some(path) => Err(format!("path \"{path}\" must be relative and must not contain \"..\"")),
        None => Ok(Content::Files { files, tmpfs }),
    }
}

/// Only plain names on the way: no root, no `..`.
fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

async fn add_projection(
    files: &mut Files,
    projection: &VolumeProjection,
    default_mode: Option<i32>,
    fields: &Fields<'_>,
    sources: Reader<'_>,
) -> Result<(), String> {
    if let Some(source) = &projection.config_map {
        let wanted = Wanted::new(&source.name, source.items.as_deref(), source.optional, default_mode);
        return add_config_map(files, &wanted, fields, sources).await;
    }
    if let Some(source) = &projection.secret {
        let wanted = Wanted::new(&source.name, source.items.as_deref(), source.optional, default_mode);
        return add_secret(files, &wanted, fields, sources).await;
    }
    if let Some(source) = &projection.downward_api {
        return add_fields(files, source.items.as_deref(), default_mode, fields);
    }
    if let Some(source) = &projection.service_account_token {
        let token = sources.token(fields.pod, source).await;
        let token = token.map_err(|error| format!("failed to fetch token: {}", error.message))?;
        let mode = mode_or(default_mode, DEFAULT_MODE);
        files.insert(source.path.clone(), (token.as_bytes().to_vec(), mode));
        return Ok(());
    }
    Err("this kind of projection is not supported on this node: use configMap, secret, serviceAccountToken or downwardAPI"
        .to_owned())
}

/// Which keys of an object, to which paths.
struct Wanted<'a> {
    name: &'a str,
    items: Option<&'a [KeyToPath]>,
    optional: bool,
    mode: u32,
}

impl<'a> Wanted<'a> {
    fn new(name: &'a str, items: Option<&'a [KeyToPath]>, optional: Option<bool>, mode: Option<i32>) -> Self {
        Self { name, items, optional: optional.unwrap_or(false), mode: mode_or(mode, DEFAULT_MODE) }
    }

    fn select(&self, files: &mut Files, data: &BTreeMap<String, Vec<u8>>) -> Result<(), String> {
        match self.items.filter(|items| !items.is_empty()) {
            None => {
                files.extend(data.iter().map(|(key, value)| (key.clone(), (value.clone(), self.mode))));
            }
            Some(items) => {
                for item in items {
                    match data.get(&item.key) {
                        Some(value) => {
                            files.insert(item.path.clone(), (value.clone(), mode_or(item.mode, self.mode)));
                        }
                        None if self.optional => {}
                        None => return Err(format!("references non-existent key: {}", item.key)),
                    }
                }
            }
        }
        Ok(())
    }
}

fn mode_or(mode: Option<i32>, default: u32) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(default)
}

fn namespace<'a>(fields: &Fields<'a>) -> &'a str {
    fields.pod.metadata.namespace.as_deref().unwrap_or("default")
}

async fn add_config_map(
    files: &mut Files,
    wanted: &Wanted<'_>,
    fields: &Fields<'_>,
    sources: Reader<'_>,
) -> Result<(), String> {
    let found = sources.config_map(namespace(fields), wanted.name).await.map_err(|error| error.message)?;
    match found {
        None if wanted.optional => Ok(()),
        None => Err(format!("configmap \"{}\" not found", wanted.name)),
        Some(map) => wanted.select(files, &config_map_data(&map)),
    }
}

fn config_map_data(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    text.chain(binary).collect()
}

async fn add_secret(
    files: &mut Files,
    wanted: &Wanted<'_>,
    fields: &Fields<'_>,
    sources: Reader<'_>,
) -> Result<(), String> {
    let found = sources.secret(namespace(fields), wanted.name).await.map_err(|error| error.message)?;
    match found {
        None if wanted.optional => Ok(()),
        None => Err(format!("secret \"{}\" not found", wanted.name)),
        Some(secret) => wanted.select(files, &secret_data(&secret)),
    }
}

fn secret_data(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

fn add_fields(
    files: &mut Files,
    items: Option<&[DownwardAPIVolumeFile]>,
    default_mode: Option<i32>,
    fields: &Fields<'_>,
) -> Result<(), String> {
    for item in items.into_iter().flatten() {
        let text = if let Some(reference) = &item.field_ref {
            let path = &reference.field_path;
            fields.field(path).ok_or_else(|| format!("unsupported fieldPath: {path}"))?
        } else if let Some(reference) = &item.resource_field_ref {
            fields.resource(reference, &Container::default())?
        } else {
            return Err(format!("downward API file \"{}\" names no field", item.path));
        };
        files.insert(
            item.path.clone(),
            (text.into_bytes(), mode_or(item.mode, mode_or(default_mode, DEFAULT_MODE))),
        );
    }
    Ok(())
}

fn make(path: &Path, content: &Content, group: Option<u32>) -> Result<(), Error> {
    match content {
        Content::HostPath(source) => return check_host_path(source),
        Content::EmptyDir(source) => {
            make_folder(path)?;
            if source.medium.as_deref() == Some("Memory") {
                let limit = source.size_limit.as_ref().and_then(|limit| limit.0.parse::<Quantity>().ok());
                mount_tmpfs(path, limit.map(Quantity::units))?;
            }
            set_mode(path, 0o777)?;
        }
        Content::Files { files, tmpfs } => {
            make_folder(path)?;
            if *tmpfs {
                mount_tmpfs(path, Some(i128::from(SECRET_TMPFS_BYTES)))?;
            }
            set_mode(path, 0o755)?;
            write_files(path, files, group)?;
        }
    }
    if let Some(group) = group {
        std::os::unix::fs::chown(path, None, Some(group))
            .map_err(Error::io("changing the group of", path))?;
        let mode = fs::metadata(path).map_err(Error::io("reading", path))?.permissions().mode();
        set_mode(path, mode | 0o2070)?;
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(Error::io("creating", path))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))
        .map_err(Error::io("setting the mode of", path))
}

fn mount_tmpfs(path: &Path, bytes: Option<i128>) -> Result<(), Error> {
    if is_mount_point(path) {
        return Ok(());
    }
    let options = bytes.map_or_else(|| "mode=0777".to_owned(), |bytes| format!("mode=0777,size={bytes}"));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|errno| Error::io("mounting a tmpfs on", path)(errno.into()))
}

/// Whether something is mounted on the folder itself.
pub(super) fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    path.parent().is_some_and(|parent| device(path) != device(parent))
}

fn check_host_path(source: &HostPathVolumeSource) -> Result<(), Error> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or("");
    match kind {
        // Whatever it is; where there is nothing, runtimes have always made a folder.
        "" if path.exists() => return Ok(()),
        "" | "DirectoryOrCreate" => return make_folder(path),
        "FileOrCreate" if !path.exists() => return fs::write(path, "").map_err(Error::io("creating", path)),
        _ => {}
    }
    let right = match kind {
        "Directory" => path.is_dir(),
        "File" | "FileOrCreate" => path.is_file(),
        _ => return Err(Error::Unsupported(format!("hostPath type {kind} is not supported on this node"))),
    };
    if right {
        Ok(())
    } else {
        Err(Error::NotFound(format!("hostPath type check failed: {} is not a {kind}", source.path)))
    }
}

/// The same for a volume that was made before. What is for memory alone never goes to a disk that came into its place.
fn rewrite_files(path: &Path, files: &Files, tmpfs: bool, group: Option<u32>) -> Result<(), Error> {
    if !path.is_dir() || (tmpfs && !is_mount_point(path)) {
        return Err(Error::NotFound(format!("volume {} is not there any more", path.display())));
    }
    write_files(path, files, group)
}

/// Switches the volume to these files, if they differ from what it has.
fn write_files(path: &Path, files: &Files, group: Option<u32>) -> Result<(), Error> {
    let link = path.join(DATA_LINK);
    let present = fs::read_link(&link).ok().and_then(|present| present.into_os_string().into_string().ok());
    // First, so that there is room.
    remove_versions(path, present.as_deref())?;
    if present.is_some() && read_files(&link, files) {
        return Ok(());
    }
    let number = present.as_deref().and_then(|present| present.strip_prefix("..")?.parse::<u128>().ok());
    let version = format!("..{}", number.unwrap_or(0).saturating_add(1));
    let folder = path.join(&version);
    make_folder(&folder)?;
    for (name, (content, mode)) in files {
        let file = folder.join(name);
        make_folder(file.parent().unwrap_or(&folder))?;
        fs::write(&file, content).map_err(Error::io("writing", &file))?;
        let mut mode = *mode;
        if let Some(group) = group {
            std::os::unix::fs::chown(&file, None, Some(group))
                .map_err(Error::io("changing the group of", &file))?;
            mode |= 0o440;
        }
        set_mode(&file, mode)?;
    }
    let beside = path.join("..data_tmp");
    replace_link(&version, &beside)?;
    fs::rename(&beside, &link).map_err(Error::io("switching", &link))?;
    link_names(path, files)?;
    remove_versions(path, Some(&version))
}

/// Removes all versions but one, those that nobody finished included.
fn remove_versions(path: &Path, but: Option<&str>) -> Result<(), Error> {
    for entry in fs::read_dir(path).map_err(Error::io("reading", path))?.flatten() {
        let name = entry.file_name();
        let is_version =
            name.to_string_lossy().starts_with("..") && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_version && but.is_none_or(|but| name != but) {
            fs::remove_dir_all(entry.path()).map_err(Error::io("removing", &entry.path()))?;
        }
    }
    Ok(())
}

/// Whether the present version holds exactly these files.
fn read_files(link: &Path, files: &Files) -> bool {
    let mut found = 0;
    let mut folders = vec![link.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { return false };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => found += 1,
            }
        }
    }
    found == files.len()
        && files
            .iter()
            .all(|(name, (content, _))| fs::read(link.join(name)).is_ok_and(|have| have == *content))
}

/// A link for each top-level name, through `..data`; links to names that are gone go too.
fn link_names(path: &Path, files: &Files) -> Result<(), Error> {
    let top = |name: &str| name.split('/').next().unwrap_or(name).to_owned();
    let names: std::collections::BTreeSet<String> = files.keys().map(|name| top(name)).collect();
    for name in &names {
        if fs::symlink_metadata(path.join(name)).is_err() {
            replace_link(&format!("{DATA_LINK}/{name}"), &path.join(name))?;
        }
    }
    for entry in fs::read_dir(path).map_err(Error::io("reading", path))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !names.contains(&name) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn replace_link(target: &str, link: &Path) -> Result<(), Error> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("removing", link)(error));
        }
        _ => {}
    }
    std::os::unix::fs::symlink(target, link).map_err(Error::io("linking", link))
}

/// The bind mounts of a container's `volumeMounts`, in the folder of its pod.
pub(super) fn binds(
    pod_folder: &Path,
    pod: &Pod,
    container: &Container,
    environment: &Environment,
) -> Result<Vec<Bind>, StartFailure> {
    let mut all = Vec::new();
    let folder = pod_folder.join("volumes");
    let parts = pod_folder.join(sub_path::FOLDER).join(&container.name);
    for (number, wanted) in container.volume_mounts.iter().flatten().enumerate() {
        let config_error = |why: String| StartFailure::new("CreateContainerConfigError", why);
        let volume = volumes(pod)
            .find(|volume| volume.name == wanted.name)
            .ok_or_else(|| config_error(format!("volume \"{}\" is not defined in the pod", wanted.name)))?;
        let base = match &volume.host_path {
            Some(host_path) => PathBuf::from(&host_path.path),
            None => folder.join(&volume.name),
        };
        let part = match (&wanted.sub_path, &wanted.sub_path_expr) {
            (Some(plain), _) if !plain.is_empty() => plain.clone(),
            (_, Some(template)) if !template.is_empty() => {
                environment.expand_all(template).map_err(config_error)?
            }
            _ => String::new(),
        };
        let source = if part.is_empty() {
            base
        } else {
            let writable = volume.empty_dir.is_some() || volume.host_path.is_some();
            let target = parts.join(number.to_string());
            let opened = sub_path::open(&base, &part, writable);
            let mounted = opened.and_then(|part| part.mount_at(&target).map_err(|error| error.full()));
            mounted.map_err(|why| {
                config_error(format!("failed to prepare subPath for volumeMount \"{}\": {why}", wanted.name))
            })?;
            target
        };
        let from_api = volume.host_path.is_none() && volume.empty_dir.is_none();
        let propagation = match wanted.mount_propagation.as_deref() {
            None | Some("None") => "rprivate",
            Some("HostToContainer") => "rslave",
            Some(other) => {
                return Err(config_error(format!("mountPropagation {other} is not supported on this node")));
            }
        };
        all.push(Bind {
            source,
            target: wanted.mount_path.clone(),
            // What comes from the API is read-only for containers, whatever they ask.
            read_only: wanted.read_only.unwrap_or(false) || from_api,
            propagation,
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> Files {
        pairs
            .iter()
            .map(|(name, content)| ((*name).to_owned(), (content.as_bytes().to_vec(), DEFAULT_MODE)))
            .collect()
    }

    fn content(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn an_update_switches_all_files_at_once_and_removes_what_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        write_files(path, &files(&[("a", "1"), ("b", "1"), ("deep/c", "1")]), None).unwrap();
        assert_eq!(content(&path.join("deep/c")), "1");
        let first = fs::read_link(path.join(DATA_LINK)).unwrap();
        write_files(path, &files(&[("a", "2"), ("deep/c", "2")]), None).unwrap();
        let second = fs::read_link(path.join(DATA_LINK)).unwrap();
        assert_ne!(first, second);
        assert_eq!(
            (content(&path.join("a")), content(&path.join("deep/c"))),
            ("2".to_owned(), "2".to_owned())
        );
        assert!(!path.join("b").exists() && !path.join(first).exists());
    }

    #[test]
    fn versions_that_nobody_finished_or_removed_go_with_the_next_look() {
        let folder = tempfile::tempdir().unwrap();
        let versions = || {
            let all = fs::read_dir(folder.path()).unwrap().flatten();
            all.filter(|entry| entry.file_type().unwrap().is_dir())
                .map(|entry| entry.file_name())
                .collect::<Vec<_>>()
        };
        let left = || fs::create_dir_all(folder.path().join("..1700000000000000000/deep")).unwrap();
        left();
        write_files(folder.path(), &files(&[("a", "1")]), None).unwrap();
        assert_eq!(versions(), ["..1"]);
        left();
        write_files(folder.path(), &files(&[("a", "1")]), None).unwrap();
        assert_eq!(versions(), ["..1"], "nothing changed, and what was left is gone");
        left();
        write_files(folder.path(), &files(&[("a", "2")]), None).unwrap();
        assert_eq!(versions(), ["..2"]);
        assert_eq!(content(&folder.path().join("a")), "2");
    }

    #[test]
    fn what_is_for_memory_never_goes_to_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let secret = files(&[("password", "hunter2")]);
        let gone = folder.path().join("gone");
        for tmpfs in [true, false] {
            assert!(rewrite_files(&gone, &secret, tmpfs, None).is_err(), "it is not made anew");
            assert!(!gone.exists());
        }
        assert!(rewrite_files(folder.path(), &secret, true, None).is_err(), "nothing is mounted here");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        rewrite_files(folder.path(), &secret, false, None).unwrap();
    }

    #[test]
    fn files_that_did_not_change_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        write_files(folder.path(), &files(&[("a", "1")]), None).unwrap();
        let first = fs::read_link(folder.path().join(DATA_LINK)).unwrap();
        write_files(folder.path(), &files(&[("a", "1")]), None).unwrap();
        assert_eq!(first, fs::read_link(folder.path().join(DATA_LINK)).unwrap());
    }

    #[test]
    fn items_choose_keys_paths_and_modes() {
        let data = BTreeMap::from([("k".to_owned(), b"v".to_vec()), ("other".to_owned(), b"o".to_vec())]);
        let items = [KeyToPath { key: "k".to_owned(), path: "sub/file".to_owned(), mode: Some(0o400) }];
        let mut chosen = Files::new();
        Wanted::new("m", Some(&items), None, None).select(&mut chosen, &data).unwrap();
        assert_eq!(chosen, Files::from([("sub/file".to_owned(), (b"v".to_vec(), 0o400))]));
        let missing = [KeyToPath { key: "none".to_owned(), path: "x".to_owned(), mode: None }];
        let error = Wanted::new("m", Some(&missing), None, None).select(&mut chosen, &data).unwrap_err();
        assert!(error.contains("none"), "{error}");
        Wanted::new("m", Some(&missing), Some(true), None).select(&mut chosen, &data).unwrap();
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        assert!(is_inside("a/b"));
        for path in ["", "/etc", "..", "a/../../b"] {
            assert!(!is_inside(path), "{path}");
        }
    }
}
