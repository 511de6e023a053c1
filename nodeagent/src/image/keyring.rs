//! Credentials for registries, as docker's configuration and pull secrets hold them, and which of them to try where.
//!
//! Source of the rules for matching: kubelet's `credentialprovider`.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

use super::{Name, manifest::parse};
use crate::Error;

/// Who we are to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// What the registry's authority changes into tokens.
    IdentityToken(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// Credentials by where they are good.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// A host, perhaps with a port and a path, and what to say there.
    entries: Vec<(String, Credential)>,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Keyring {
    /// Adds what a docker configuration (`config.json`) holds.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn add_docker_config(&mut self, text: &[u8]) -> Result<(), Error> {
        let config: DockerConfig = parse("docker configuration", text)?;
        self.add(config.auths)
    }

    /// Adds what a pull secret holds.
    ///
    /// # Errors
    /// When it is of another type, or does not parse.
    pub fn add_secret(&mut self, secret: &Secret) -> Result<(), Error> {
        let held = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| &value.0[..]);
        if let Some(text) = held(".dockerconfigjson") {
            return self.add_docker_config(text);
        }
        // The older form has no `auths` around.
        let missing = || {
            Error::Image(
                "it holds neither .dockerconfigjson nor .dockercfg, so it is no pull secret".to_owned(),
            )
        };
        let text = held(".dockercfg").ok_or_else(missing)?;
        self.add(parse("docker configuration", text)?)
    }

    fn add(&mut self, auths: BTreeMap<String, Auth>) -> Result<(), Error> {
        for (place, auth) in auths {
            if let Some(credential) = credential(&place, auth)? {
                self.entries.push((bare(&place), credential));
            }
        }
        Ok(())
    }

    /// Adds what another holds, to be tried after what is equally special here.
    pub fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// What to try for an image, the most special first.
    pub fn matching(&self, name: &Name) -> Vec<Credential> {
        let target = format!("{}/{}", name.registry(), name.repository());
        let mut found: Vec<_> =
            self.entries.iter().filter(|(place, _)| is_good_for(place, &target)).collect();
        found.sort_by_key(|(place, _)| std::cmp::Reverse(place.len()));
        let mut credentials: Vec<Credential> = Vec::new();
        for (_, credential) in found {
            if !credentials.contains(credential) {
                credentials.push(credential.clone());
            }
        }
        credentials
    }
}

fn credential(place: &str, auth: Auth) -> Result<Option<Credential>, Error> {
    if let Some(token) = auth.identitytoken.filter(|token| !token.is_empty()) {
        return Ok(Some(Credential::IdentityToken(token)));
    }
    if let Some(encoded) = auth.auth.filter(|encoded| !encoded.is_empty()) {
        let wrong = || Error::Image(format!("its auth for \"{place}\" is not base64 of user:password"));
        let text = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(wrong)?;
        let (user, password) = text.split_once(':').ok_or_else(wrong)?;
        let password = password.trim_end_matches('\0').to_owned();
        return Ok(Some(Credential::Password { user: user.to_owned(), password }));
    }
    Ok(match (auth.username, auth.password) {
        (Some(user), Some(password)) if !user.is_empty() => Some(Credential::Password { user, password }),
        _ => None,
    })
}

/// Without what people write around it: `https://index.docker.io/v1/` is docker.io.
fn bare(place: &str) -> String {
    let place = place.split_once("://").map_or(place, |(_, place)| place);
    let place = place.trim_end_matches('/');
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let path = match path.split_once('/').unwrap_or((path, "")) {
        ("v1" | "v2", rest) => rest,
        _ => path,
    };
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") }
}

/// Whether the entry's host is the target's, where `*` stands for one label or a part of one, and its path the beginning
/// of the target's.
fn is_good_for(place: &str, target: &str) -> bool {
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let (target_host, target_path) = target.split_once('/').unwrap_or((target, ""));
    let (labels, target_labels): (Vec<_>, Vec<_>) =
        (host.split('.').collect(), target_host.split('.').collect());
    labels.len() == target_labels.len()
        && labels.iter().zip(target_labels).all(|(pattern, label)| matches_label(pattern, label))
        && (path.is_empty()
            || target_path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

fn matches_label(pattern: &str, label: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == label,
        Some((before, after)) => label.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches_label(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;

    fn user(name: &str) -> Credential {
        Credential::Password { user: name.to_owned(), password: format!("{name}'s: word") }
    }

    fn auth(name: &str) -> serde_json::Value {
        json!({"auth": STANDARD.encode(format!("{name}:{name}'s: word"))})
    }

    fn matching(keyring: &Keyring, name: &str) -> Vec<Credential> {
        keyring.matching(&Name::parse(name).unwrap())
    }

    #[test]
    fn only_a_version_of_the_protocol_is_taken_from_a_place() {
        for (place, expected) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("https://reg.example/v2/", "reg.example"),
            ("reg.example/v2/team", "reg.example/team"),
            ("reg.example/v2ray/app", "reg.example/v2ray/app"),
        ] {
            assert_eq!(bare(place), expected);
        }
    }

    #[test]
    fn credentials_are_found_by_host_and_path_the_most_special_first() {
        let mut keyring = Keyring::default();
        let config = json!({"auths": {
            "https://index.docker.io/v1/": auth("docker"),
            "reg.example.com": auth("whole"),
            "reg.example.com/team": auth("team"),
            "*.corp.example": {"username": "glob", "password": "glob's: word"},
            "reg.example.com:5000": {"identitytoken": "t"},
            "elsewhere.example": {},
        }});
        keyring.add_docker_config(config.to_string().as_bytes()).unwrap();
        assert_eq!(matching(&keyring, "busybox"), [user("docker")]);
        assert_eq!(matching(&keyring, "reg.example.com/team/app"), [user("team"), user("whole")]);
        assert_eq!(matching(&keyring, "reg.example.com/teammates/app"), [user("whole")]);
        assert_eq!(matching(&keyring, "a.corp.example/app"), [user("glob")]);
        assert!(matching(&keyring, "a.b.corp.example/app").is_empty());
        let token = Credential::IdentityToken("t".to_owned());
        assert_eq!(matching(&keyring, "reg.example.com:5000/app"), [token]);
        assert!(matching(&keyring, "elsewhere.example/app").is_empty());
    }

    #[test]
    fn both_types_of_pull_secrets_are_read_and_others_refused() {
        let secret = |key: &str, value: serde_json::Value| Secret {
            data: Some([(key.to_owned(), ByteString(value.to_string().into_bytes()))].into()),
            ..Secret::default()
        };
        let mut keyring = Keyring::default();
        let new = json!({"auths": {"a.example": auth("new")}});
        keyring.add_secret(&secret(".dockerconfigjson", new)).unwrap();
        keyring.add_secret(&secret(".dockercfg", json!({"b.example": auth("old")}))).unwrap();
        assert_eq!(matching(&keyring, "a.example/app"), [user("new")]);
        assert_eq!(matching(&keyring, "b.example/app"), [user("old")]);
        let error = keyring.add_secret(&secret("password", json!("x"))).unwrap_err().to_string();
        assert!(error.contains("no pull secret"), "{error}");
        let bad = json!({"auths": {"a.example": {"auth": "%"}}});
        let error = keyring.add_secret(&secret(".dockerconfigjson", bad)).unwrap_err().to_string();
        assert!(error.contains("a.example") && !error.contains('%'), "{error}");
    }

    #[test]
    fn secrets_do_not_reach_logs() {
        assert!(!format!("{:?}", user("someone")).contains("someone"));
    }
}
