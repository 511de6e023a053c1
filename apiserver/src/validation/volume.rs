//! Volumes of a pod: one source each, named once.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    container, each, env,
    faults::{Faults, Path},
    is_empty, names, text,
};

/// Names of the volumes that a container may mount.
pub(super) type Volumes<'v> = HashSet<&'v str>;

/// Shortest and longest life of a token in a volume.
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// Permission bits of a file.
const MODE_MAX: i64 = 0o777;

pub(super) fn all<'v>(volumes: &'v Value, path: &Path<'_>, faults: &mut Faults) -> Volumes<'v> {
    let mut seen = Volumes::new();
    each(volumes, path, |volume, path| {
        let name = &volume["name"];
        let name_path = &path.field("name");
        if is_empty(name) {
            faults.required(name_path, "");
        } else if let Err(why) = names::dns_label(text(name)) {
            faults.invalid(name_path, name, why);
        } else if !seen.insert(text(name)) {
            faults.duplicate(name_path, name);
        }
        source(volume, path, faults);
    });
    seen
}

fn source(volume: &Value, path: &Path<'_>, faults: &mut Faults) {
    let mut sources = volume
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, source)| *name != "name" && !source.is_null());
    let Some((kind, source)) = sources.next() else {
        faults.required(path, "must specify a volume type");
        return;
    };
    for (more, _) in sources {
        faults.forbidden(&path.field(more), "may not specify more than 1 volume type");
    }
    let path = &path.field(kind);
    match kind.as_str() {
        "hostPath" => {
            if is_empty(&source["path"]) {
                faults.required(&path.field("path"), "");
            } else if text(&source["path"]).split('/').any(|part| part == "..") {
                faults.invalid(&path.field("path"), &source["path"], "must not contain '..'");
            }
        }
        "configMap" => files(source, "name", path, faults),
        "secret" => files(source, "secretName", path, faults),
        "downwardAPI" => downward(source, path, faults),
        "projected" => projected(source, path, faults),
        "emptyDir" => empty_dir(source, path, faults),
        "persistentVolumeClaim" if is_empty(&source["claimName"]) => {
            faults.required(&path.field("claimName"), "");
        }
        _ => {}
    }
}

fn empty_dir(source: &Value, path: &Path<'_>, faults: &mut Faults) {
    let size =
        source["sizeLimit"].as_str().and_then(|size| size.parse::<claw_schemas::quantity::Quantity>().ok());
    if size.is_some_and(|size| size.milli() < 0) {
        let why = "SizeLimit field must be a valid resource quantity";
        faults.invalid(&path.field("sizeLimit"), &source["sizeLimit"], why);
    }
}

/// Keys of a ConfigMap or a Secret as files.
fn files(source: &Value, name: &str, path: &Path<'_>, faults: &mut Faults) {
    if is_empty(&source[name]) {
        faults.required(&path.field(name), "");
    }
    mode(&source["defaultMode"], &path.field("defaultMode"), faults);
    each(&source["items"], &path.field("items"), |item, path| {
        if is_empty(&item["key"]) {
            faults.required(&path.field("key"), "");
        }
        file(item, path, faults);
    });
}

fn downward(source: &Value, path: &Path<'_>, faults: &mut Faults) {
    mode(&source["defaultMode"], &path.field("defaultMode"), faults);
    each(&source["items"], &path.field("items"), |item, path| {
        file(item, path, faults);
        if item["fieldRef"].is_object() {
            let field = text(&item["fieldRef"]["fieldPath"]);
            // A volume shows all labels or all annotations, which a variable cannot.
            if !matches!(field, "metadata.labels" | "metadata.annotations") {
                env::field_reference(&item["fieldRef"], &path.field("fieldRef"), faults);
            }
        } else if !item["resourceFieldRef"].is_object() {
            faults.required(path, "one of fieldRef and resourceFieldRef is required");
        }
    });
}

fn projected(source: &Value, path: &Path<'_>, faults: &mut Faults) {
    mode(&source["defaultMode"], &path.field("defaultMode"), faults);
    each(&source["sources"], &path.field("sources"), |source, path| {
        for (kind, source) in source.as_object().into_iter().flatten() {
            let path = &path.field(kind);
            match kind.as_str() {
                "configMap" | "secret" => files(source, "name", path, faults),
                "downwardAPI" => downward(source, path, faults),
                "serviceAccountToken" => token(source, path, faults),
                _ => {}
            }
        }
    });
}

fn token(source: &Value, path: &Path<'_>, faults: &mut Faults) {
    let seconds = &source["expirationSeconds"];
    let why = match seconds.as_i64() {
        Some(few) if few < TOKEN_SECONDS_MIN => "may not specify a duration less than 10 minutes",
        Some(many) if many > TOKEN_SECONDS_MAX => "may not specify a duration larger than 2^32 seconds",
        _ => "",
    };
    if !why.is_empty() {
        faults.invalid(&path.field("expirationSeconds"), seconds, why);
    }
    if is_empty(&source["path"]) {
        faults.required(&path.field("path"), "");
    } else {
        container::relative(&source["path"], &path.field("path"), faults);
    }
}

/// Where one item goes, inside of the volume.
fn file(item: &Value, path: &Path<'_>, faults: &mut Faults) {
    mode(&item["mode"], &path.field("mode"), faults);
    if is_empty(&item["path"]) {
        faults.required(&path.field("path"), "");
    } else {
        container::relative(&item["path"], &path.field("path"), faults);
    }
}

fn mode(mode: &Value, path: &Path<'_>, faults: &mut Faults) {
    if mode.as_i64().is_some_and(|mode| !(0..=MODE_MAX).contains(&mode)) {
        faults.invalid(path, mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}
