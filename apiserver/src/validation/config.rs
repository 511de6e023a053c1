//! ConfigMaps and Secrets.

use serde_json::Value;

use super::{
    faults::{Faults, Path},
    names, text,
};

/// All values of one object together.
pub(super) const DATA_BYTES_MAX: usize = 1024 * 1024;

pub(super) fn config_map(old: Option<&Value>, object: &Value, faults: &mut Faults) {
    let mut bytes = 0;
    for field in ["data", "binaryData"] {
        let path = &Path::Root.field(field);
        for (key, value) in object[field].as_object().into_iter().flatten() {
            key_of(key, path, faults);
            bytes += if field == "data" { text(value).len() } else { decoded_bytes(value) };
            if field == "data" && object["binaryData"].get(key).is_some() {
                faults.invalid_text(&path.key(key), key, "duplicate of key present in binaryData");
            }
        }
    }
    if bytes > DATA_BYTES_MAX {
        faults.too_long(&Path::Root, DATA_BYTES_MAX);
    }
    if let Some(old) = old {
        immutable(old, object, &["data", "binaryData"], faults);
    }
}

pub(super) fn secret(old: Option<&Value>, object: &Value, faults: &mut Faults) {
    let path = &Path::Root.field("data");
    let mut bytes = 0;
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        key_of(key, path, faults);
        bytes += decoded_bytes(value);
    }
    if bytes > DATA_BYTES_MAX {
        faults.too_long(path, DATA_BYTES_MAX);
    }
    let has = |key: &str| object["data"].get(key).is_some();
    let demanded: &[&str] = match text(&object["type"]) {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => &["username", "password"],
        _ => &[],
    };
    for key in demanded.iter().filter(|key| !has(key)) {
        faults.required(&path.key(key), "");
    }
    if let Some(old) = old {
        super::immutable(old, object, "type", &Path::Root, faults);
        immutable(old, object, &["data"], faults);
    }
}

/// Once `immutable` is set, it stays set and the data stay.
fn immutable(old: &Value, new: &Value, fields: &[&str], faults: &mut Faults) {
    if old["immutable"] != true {
        return;
    }
    let why = "field is immutable when `immutable` is set";
    if new["immutable"] != true {
        faults.forbidden(&Path::Root.field("immutable"), why);
    }
    for field in fields.iter().filter(|field| old[**field] != new[**field]) {
        faults.forbidden(&Path::Root.field(field), why);
    }
}

fn key_of(key: &str, path: &Path<'_>, faults: &mut Faults) {
    if let Err(why) = names::config_key(key) {
        faults.invalid_text(&path.key(key), key, why);
    }
}

/// How many bytes a base64 text stands for.
fn decoded_bytes(value: &Value) -> usize {
    let text = text(value);
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}
