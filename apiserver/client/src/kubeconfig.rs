//! Kubeconfig files: which servers there are, who we are to them, which one is meant.
//!
//! Reads what kubectl reads and writes what kubectl reads. The environment is not looked at: callers
//! pass `$KUBECONFIG` and the home folder in.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

use crate::{
    endpoint::{CertificateFiles, ClientCertificate, Endpoint, Token, Trust},
    error::ConfigError,
    in_cluster,
};

/// One file, or several merged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Kubeconfig {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    #[serde(deserialize_with = "null_as_default")]
    clusters: Vec<Named<Cluster>>,
    #[serde(deserialize_with = "null_as_default")]
    users: Vec<Named<User>>,
    #[serde(deserialize_with = "null_as_default")]
    contexts: Vec<Named<Context>>,
    #[serde(deserialize_with = "null_as_default")]
    current_context: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "user", alias = "context")]
    value: T,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    #[serde(skip_serializing_if = "String::is_empty")]
    server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority_data: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    insecure_skip_tls_verify: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_server_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_url: Option<String>,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(rename = "tokenFile", skip_serializing_if = "Option::is_none")]
    token_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// Somebody else to act as. Not to notice it would be to act with rights that were given up.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    impersonate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exec: Option<serde_yaml::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_provider: Option<serde_yaml::Value>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("User(…)")
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Context {
    cluster: String,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
}

/// A server, and the namespace that its context names.
#[derive(Clone, Debug)]
pub struct Selected {
    /// How to reach it.
    pub endpoint: Endpoint,
    /// Name of the context.
    pub context: String,
    /// Namespace of the context, if it names one.
    pub namespace: Option<String>,
}

impl Selected {
    /// The server that a program is to use when nobody says more: that of the kubeconfig's current context, or, where there is
    /// no kubeconfig, of the cluster around this container ([`in_cluster`]). `variable` looks into the environment.
    ///
    /// # Errors
    /// There is neither, or what is there cannot be used.
    pub fn find(
        variable: impl Fn(&str) -> Option<OsString>,
        home: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let files = Kubeconfig::search_paths(variable("KUBECONFIG").as_deref(), home);
        match Kubeconfig::load(&files) {
            Err(none @ ConfigError::NoKubeconfig { .. }) => in_cluster::select(variable)?.ok_or(none),
            config => config?.select(None),
        }
    }
}

/// A cluster and an administrator of it, for a file with exactly one context.
#[derive(Clone, Debug)]
pub struct Single<'a> {
    /// Name of the context and the cluster.
    pub name: &'a str,
    /// `https://HOST:PORT`
    pub server: &'a str,
    /// Authorities that the server's certificate comes from.
    pub ca_pem: &'a str,
    /// Name of the user entry.
    pub user: &'a str,
    /// The user's certificate.
    pub certificate: &'a ClientCertificate,
}

impl Kubeconfig {
    /// Where kubectl looks: the list in `$KUBECONFIG`, or else `~/.kube/config`.
    pub fn search_paths(kubeconfig: Option<&OsStr>, home: Option<&Path>) -> Vec<PathBuf> {
        match kubeconfig.filter(|list| !list.is_empty()) {
            Some(list) => std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect(),
            None => home.map(|home| home.join(".kube/config")).into_iter().collect(),
        }
    }

    /// Reads one file, which must exist.
    ///
    /// # Errors
    /// Names the file and the line that does not parse.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            what: "the kubeconfig",
            path: path.to_owned(),
            source,
        })?;
        let not_one = |why: String| ConfigError::NotAKubeconfig { path: path.to_owned(), why };
        let mut config: Self = serde_yaml::from_str(&text).map_err(|error| not_one(error.to_string()))?;
        if !matches!(config.kind.as_str(), "" | "Config") {
            return Err(not_one(format!("its kind is \"{}\", expected \"Config\"", config.kind)));
        }
        config.resolve_paths(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// Reads and merges files; the first to say something wins, files that do not exist are skipped.
    ///
    /// # Errors
    /// None of them exists, or one does not parse.
    pub fn load(paths: &[PathBuf]) -> Result<Self, ConfigError> {
        let mut merged: Option<Self> = None;
        for path in paths.iter().filter(|path| path.exists()) {
            let config = Self::read(path)?;
            match &mut merged {
                Some(merged) => merged.merge(config),
                None => merged = Some(config),
            }
        }
        merged.ok_or_else(|| {
            let looked: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            let looked =
                if looked.is_empty() { "no place: HOME is not set".to_owned() } else { looked.join(", ") };
            ConfigError::NoKubeconfig { looked }
        })
    }

    /// A file with one context, its keys embedded.
    pub fn single(single: &Single<'_>) -> Self {
        let cluster = Cluster {
            server: single.server.to_owned(),
            certificate_authority_data: Some(BASE64.encode(single.ca_pem)),
            ..Cluster::default()
        };
        let user = User {
            client_certificate_data: Some(BASE64.encode(&single.certificate.chain_pem)),
            client_key_data: Some(BASE64.encode(&single.certificate.key_pem)),
            ..User::default()
        };
        let context =
            Context { cluster: single.name.to_owned(), user: single.user.to_owned(), ..Context::default() };
        Self {
            api_version: "v1".to_owned(),
            kind: "Config".to_owned(),
            clusters: vec![Named { name: single.name.to_owned(), value: cluster }],
            users: vec![Named { name: single.user.to_owned(), value: user }],
            contexts: vec![Named { name: single.name.to_owned(), value: context }],
            current_context: single.name.to_owned(),
        }
    }

    /// The text of a kubeconfig file.
    pub fn to_yaml(&self) -> String {
        let mut value = serde_yaml::to_value(self).expect("a kubeconfig holds only strings and flags");
        for (list, entry) in [("clusters", "cluster"), ("users", "user"), ("contexts", "context")] {
            for item in value[list].as_sequence_mut().into_iter().flatten() {
                if let Some(map) = item.as_mapping_mut()
                    && let Some(inner) = map.remove("value")
                {
                    map.insert(entry.into(), inner);
                }
            }
        }
        serde_yaml::to_string(&value).expect("a YAML value prints")
    }

    /// The names of the contexts, in order.
    pub fn contexts(&self) -> impl Iterator<Item = &str> {
        self.contexts.iter().map(|context| context.name.as_str())
    }

    /// The server, credentials and namespace of a context, by default the current one.
    ///
    /// # Errors
    /// Names the context, cluster, user or field that is missing or wrong.
    pub fn select(&self, context: Option<&str>) -> Result<Selected, ConfigError> {
        let name = match context {
            Some(name) => name,
            None if !self.current_context.is_empty() => &self.current_context,
            None => match self.contexts.as_slice() {
                [only] => &only.name,
                _ => {
                    let known = names(&self.contexts);
                    return Err(ConfigError::field(
                        "current-context",
                        format!("is not set; pass --context, one of: {known}"),
                    ));
                }
            },
        };
        let context = find("context", &self.contexts, name)?;
        let cluster = find("cluster", &self.clusters, &context.cluster)?;
        let none = User::default();
        let user = match context.user.as_str() {
            "" => &none,
            user => find("user", &self.users, user)?,
        };
        let mut endpoint = cluster.endpoint(&context.cluster)?;
        user.authenticate(&context.user, &mut endpoint)?;
        let namespace = context.namespace.clone().filter(|namespace| !namespace.is_empty());
        Ok(Selected { endpoint, context: name.to_owned(), namespace })
    }

    fn merge(&mut self, later: Self) {
        fn add<T>(into: &mut Vec<Named<T>>, from: Vec<Named<T>>) {
            for entry in from {
                if into.iter().all(|known| known.name != entry.name) {
                    into.push(entry);
                }
            }
        }
        add(&mut self.clusters, later.clusters);
        add(&mut self.users, later.users);
        add(&mut self.contexts, later.contexts);
        if self.current_context.is_empty() {
            self.current_context = later.current_context;
        }
    }

    /// Relative paths in a file are relative to the file.
    fn resolve_paths(&mut self, folder: &Path) {
        let resolve = |path: &mut Option<PathBuf>| {
            // An empty string means "not set", as in kubectl.
            *path = path.take().filter(|p| !p.as_os_str().is_empty()).map(|p| folder.join(p));
        };
        for cluster in &mut self.clusters {
            resolve(&mut cluster.value.certificate_authority);
        }
        for user in &mut self.users {
            resolve(&mut user.value.client_certificate);
            resolve(&mut user.value.client_key);
            resolve(&mut user.value.token_file);
        }
    }
}

impl Cluster {
    fn endpoint(&self, name: &str) -> Result<Endpoint, ConfigError> {
        let field = |field: &str| format!("clusters[{name}].{field}");
        if self.server.is_empty() {
            return Err(ConfigError::field(field("server"), "is not set; write it as https://HOST:PORT"));
        }
        if self.proxy_url.as_deref().is_some_and(|url| !url.is_empty()) {
            return Err(ConfigError::field(
                field("proxy-url"),
                "is not supported; use a server reached directly",
            ));
        }
        let authority = pem(
            field("certificate-authority"),
            "the certificate authority",
            self.certificate_authority_data.as_deref(),
            self.certificate_authority.as_deref(),
        )?;
        let mut endpoint = Endpoint::new(&self.server);
        endpoint.trust = match authority {
            Some(_) if self.insecure_skip_tls_verify => {
                return Err(ConfigError::field(
                    field("insecure-skip-tls-verify"),
                    "contradicts certificate-authority; remove one of them",
                ));
            }
            Some(pem) => Trust::Roots(pem),
            None if self.insecure_skip_tls_verify => Trust::Anything,
            None => Trust::System,
        };
        endpoint.server_name = self.tls_server_name.clone().filter(|name| !name.is_empty());
        Ok(endpoint)
    }
}

impl User {
    fn authenticate(&self, name: &str, endpoint: &mut Endpoint) -> Result<(), ConfigError> {
        let field = |field: &str| format!("users[{name}].{field}");
        for (set, unsupported) in [
            (self.exec.is_some(), "exec"),
            (self.auth_provider.is_some(), "auth-provider"),
            (self.username.is_some(), "username"),
            (self.impersonate.is_some(), "as"),
        ] {
            if set {
                return Err(ConfigError::field(
                    field(unsupported),
                    "is not supported; use a client certificate, token or tokenFile",
                ));
            }
        }
        let certificate = pem(
            field("client-certificate"),
            "the client certificate",
            self.client_certificate_data.as_deref(),
            self.client_certificate.as_deref(),
        )?;
        let key = pem(
            field("client-key"),
            "the client key",
            self.client_key_data.as_deref(),
            self.client_key.as_deref(),
        )?;
        endpoint.certificate = match (certificate, key) {
            (Some(chain_pem), Some(key_pem)) => Some(ClientCertificate { chain_pem, key_pem }),
            (None, None) => None,
            (Some(_), None) => {
                return Err(ConfigError::field(field("client-key"), "is not set, but client-certificate is"));
            }
            (None, Some(_)) => {
                return Err(ConfigError::field(field("client-certificate"), "is not set, but client-key is"));
            }
        };
        endpoint.certificate_files = self.certificate_files();
        // As in kubectl: a token file wins over a token.
        endpoint.token = match (&self.token_file, &self.token) {
            (Some(path), _) => Some(Token::File(path.clone())),
            (None, Some(text)) if !text.is_empty() => Some(Token::Text(text.clone())),
            (None, _) => None,
        };
        Ok(())
    }

    /// Where the certificate and its key are, unless one of them is embedded.
    fn certificate_files(&self) -> Option<CertificateFiles> {
        let embedded = |data: &Option<String>| data.as_ref().is_some_and(|data| !data.is_empty());
        if embedded(&self.client_certificate_data) || embedded(&self.client_key_data) {
            return None;
        }
        Some(CertificateFiles { chain: self.client_certificate.clone()?, key: self.client_key.clone()? })
    }
}

/// Embedded data wins over a file, as in kubectl.
fn pem(
    field: String,
    what: &'static str,
    data: Option<&str>,
    file: Option<&Path>,
) -> Result<Option<Vec<u8>>, ConfigError> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let data: String = data.split_ascii_whitespace().collect();
        return BASE64
            .decode(data)
            .map(Some)
            .map_err(|error| ConfigError::field(format!("{field}-data"), format!("is not base64: {error}")));
    }
    match file {
        Some(path) => std::fs::read(path).map(Some).map_err(|source| ConfigError::Read {
            what,
            path: path.to_owned(),
            source,
        }),
        None => Ok(None),
    }
}

fn find<'a, T>(what: &'static str, list: &'a [Named<T>], name: &str) -> Result<&'a T, ConfigError> {
    list.iter()
        .find(|entry| entry.name == name)
        .map(|entry| &entry.value)
        .ok_or_else(|| ConfigError::NoSuch { what, name: name.to_owned(), known: names(list) })
}

fn names<T>(list: &[Named<T>]) -> String {
    match list {
        [] => "none".to_owned(),
        list => list.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

/// `clusters: null` is what kubectl writes into an empty file.
fn null_as_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests;
