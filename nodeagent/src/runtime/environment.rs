//! A container's environment and command line: values, references, and `$(NAME)`.

use std::collections::{BTreeMap, BTreeSet};

use claw_schemas::quantity::Quantity;
use k8s_openapi::{
    api::core::v1::{Container, EnvVar, EnvVarSource, Pod, ResourceFieldSelector},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    Host, Sandbox, Sources, StartFailure,
    machine::{Machine, limit, request},
};

/// What field references may name.
pub(super) struct Fields<'a> {
    pub pod: &'a Pod,
    pub host: &'a Host,
    /// `None` while there is no sandbox: volumes are made before it.
    pub sandbox: Option<&'a Sandbox>,
    pub machine: &'a Machine,
}

/// Variables in order; a later one of the same name replaces an earlier one in place.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    variables: Vec<(String, String)>,
}

impl Environment {
    pub(super) fn set(&mut self, name: &str, value: String) {
        match self.variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// Replaces `$(NAME)` where NAME is known; `$$` is a plain dollar; anything else stays.
    pub(super) fn expand(&self, text: &str) -> String {
        Self::expand_with(text, |name| self.get(name).map_or_else(|| format!("$({name})"), str::to_owned))
    }

    /// The same where all names must have a value. The error is the kubelet's.
    pub(super) fn expand_all(&self, text: &str) -> Result<String, String> {
        let mut missing = BTreeSet::new();
        let expanded = Self::expand_with(text, |name| {
            let value = self.get(name).unwrap_or_default();
            if value.is_empty() {
                missing.insert(name.to_owned());
            }
            value.to_owned()
        });
        if missing.is_empty() {
            return Ok(expanded);
        }
        Err(format!("missing value for {}", missing.into_iter().collect::<Vec<_>>().join(", ")))
    }

    fn expand_with(text: &str, mut value_of: impl FnMut(&str) -> String) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
                continue;
            }
            match rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
                Some((name, after)) => {
                    out.push_str(&value_of(name));
                    rest = after;
                }
                None => out.push('$'),
            }
        }
        out.push_str(rest);
        out
    }
}

fn config_error(message: impl Into<String>) -> StartFailure {
    StartFailure::new("CreateContainerConfigError", message)
}

/// The environment of a container: the image's, then where services are, then `envFrom`, then `env`.
pub(super) async fn resolve(
    container: &Container,
    image: &[(String, String)],
    services: &[(String, String)],
    fields: &Fields<'_>,
    sources: &Sources,
) -> Result<Environment, StartFailure> {
    let mut environment = Environment::default();
    environment.set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    environment.set("HOSTNAME", hostname(fields.pod));
    for (name, value) in image.iter().chain(services) {
        environment.set(name, value.clone());
    }
    add_env_from(&mut environment, container, fields.pod, sources).await?;
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(variable, &environment, container, fields, sources).await? {
            environment.set(&variable.name, value);
        }
    }
    Ok(environment)
}

/// `spec.hostname`, else the pod's name cut to what a hostname may be.
pub(super) fn hostname(pod: &Pod) -> String {
    let given = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).filter(|name| !name.is_empty());
    let mut name = given.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

async fn add_env_from(
    environment: &mut Environment,
    container: &Container,
    pod: &Pod,
    sources: &Sources,
) -> Result<(), StartFailure> {
    let namespace = namespace(pod);
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or("");
        if let Some(reference) = &from.config_map_ref {
            let found = sources.config_map(namespace, &reference.name).await.map_err(unreadable)?;
            if found.is_none() && !reference.optional.unwrap_or(false) {
                return Err(config_error(format!("configmap \"{}\" not found", reference.name)));
            }
            for (key, value) in found.iter().flat_map(|found| found.data.iter().flatten()) {
                environment.set(&format!("{prefix}{key}"), value.clone());
            }
        }
        if let Some(reference) = &from.secret_ref {
            let found = sources.secret(namespace, &reference.name).await.map_err(unreadable)?;
            if found.is_none() && !reference.optional.unwrap_or(false) {
                return Err(config_error(format!("secret \"{}\" not found", reference.name)));
            }
            for (key, value) in found.iter().flat_map(|found| found.data.iter().flatten()) {
                environment.set(&format!("{prefix}{key}"), text(&value.0));
            }
        }
    }
    Ok(())
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
fn unreadable(error: claw_schemas::ApiError) -> StartFailure {
    config_error(error.message.clone())
}

/// `None` leaves the variable out: an optional reference to nothing.
async fn value_of(
    variable: &EnvVar,
    environment: &Environment,
    container: &Container,
    fields: &Fields<'_>,
    sources: &Sources,
) -> Result<Option<String>, StartFailure> {
    let Some(source) = &variable.value_from else {
        return Ok(Some(environment.expand(variable.value.as_deref().unwrap_or(""))));
    };
    if let Some(reference) = &source.field_ref {
        return fields.field(&reference.field_path).map(Some).ok_or_else(|| {
            config_error(format!("env {}: unsupported fieldPath: {}", variable.name, reference.field_path))
        });
    }
    if let Some(reference) = &source.resource_field_ref {
        return fields
            .resource(reference, container)
            .map(Some)
            .map_err(|why| config_error(format!("env {}: {why}", variable.name)));
    }
    keyed(source, fields.pod, sources)
        .await?
        .ok_or_else(|| config_error(format!("env {}: valueFrom names no supported source", variable.name)))
}

/// The value behind a config map or secret key. Outer `None`: neither is named.
async fn keyed(
    source: &EnvVarSource,
    pod: &Pod,
    sources: &Sources,
) -> Result<Option<Option<String>>, StartFailure> {
    let namespace = namespace(pod);
    if let Some(reference) = &source.config_map_key_ref {
        let found = sources.config_map(namespace, &reference.name).await.map_err(unreadable)?;
        let value = found.as_ref().and_then(|map| map.data.as_ref()?.get(&reference.key).cloned());
        return choose(value, reference.optional, || match found {
            None => format!("configmap \"{}\" not found", reference.name),
            Some(_) => {
                format!("couldn't find key {} in ConfigMap {namespace}/{}", reference.key, reference.name)
            }
        });
    }
    if let Some(reference) = &source.secret_key_ref {
        let found = sources.secret(namespace, &reference.name).await.map_err(unreadable)?;
        let value = found
            .as_ref()
            .and_then(|secret| secret.data.as_ref()?.get(&reference.key).map(|value| text(&value.0)));
        return choose(value, reference.optional, || match found {
            None => format!("secret \"{}\" not found", reference.name),
            Some(_) => {
                format!("couldn't find key {} in Secret {namespace}/{}", reference.key, reference.name)
            }
        });
    }
    Ok(None)
}

fn choose(
    value: Option<String>,
    optional: Option<bool>,
    complaint: impl FnOnce() -> String,
) -> Result<Option<Option<String>>, StartFailure> {
    if value.is_none() && !optional.unwrap_or(false) {
        return Err(config_error(complaint()));
    }
    Ok(Some(value))
}

impl Fields<'_> {
    /// A field of the pod by its path; `None` if there is no such field to ask for.
    pub(super) fn field(&self, path: &str) -> Option<String> {
        let metadata = &self.pod.metadata;
        if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
            return Some(entry(metadata, map)?.get(key).cloned().unwrap_or_default());
        }
        let spec = self.pod.spec.as_ref();
        let text = match path {
            "metadata.name" => metadata.name.clone(),
            "metadata.namespace" => metadata.namespace.clone(),
            "metadata.uid" => metadata.uid.clone(),
            "metadata.labels" | "metadata.annotations" => Some(listing(entry(metadata, path)?)),
            "spec.nodeName" => Some(self.host.node_name.clone()),
            "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
            "status.hostIP" | "status.hostIPs" => Some(self.host.ip.to_string()),
            "status.podIP" | "status.podIPs" => {
                Some(self.sandbox?.ip.map(|ip| ip.to_string()).unwrap_or_default())
            }
            _ => return None,
        };
        Some(text.unwrap_or_default())
    }

    /// A request or limit of a container, in units of the divisor; without a limit, what the node has.
    pub(super) fn resource(
        &self,
        reference: &ResourceFieldSelector,
        default: &Container,
    ) -> Result<String, String> {
        let spec = self.pod.spec.as_ref();
        let container = match reference.container_name.as_deref().filter(|name| !name.is_empty()) {
            None => default,
            Some(name) => spec
                .and_then(|spec| {
                    spec.containers
                        .iter()
                        .chain(spec.init_containers.iter().flatten())
                        .find(|c| c.name == name)
                })
                .ok_or_else(|| format!("there is no container \"{name}\""))?,
        };
        let (kind, resource) = reference
            .resource
            .split_once('.')
            .ok_or_else(|| format!("unsupported resource: {}", reference.resource))?;
        let resources = container.resources.as_ref();
        let amount = match kind {
            "limits" => {
                limit(resources, resource).or_else(|| self.machine.allocatable.get(resource).copied())
            }
            "requests" => request(resources, resource),
            _ => return Err(format!("unsupported resource: {}", reference.resource)),
        };
        let divisor = match &reference.divisor {
            Some(divisor) => divisor.0.parse::<Quantity>().map_err(|error| error.to_string())?,
            None => Quantity::from_units(1),
        };
        Ok(divided(amount.unwrap_or_default(), divisor))
    }
}

/// Rounded up, as Kubernetes does; a divisor of zero means one.
fn divided(amount: Quantity, divisor: Quantity) -> String {
    let divisor = if divisor.milli() == 0 { 1000 } else { divisor.milli() };
    (amount.milli().saturating_add(divisor - 1) / divisor).to_string()
}

fn entry<'a>(metadata: &'a ObjectMeta, path: &str) -> Option<&'a BTreeMap<String, String>> {
    static EMPTY: BTreeMap<String, String> = BTreeMap::new();
    match path {
        "metadata.labels" => Some(metadata.labels.as_ref().unwrap_or(&EMPTY)),
        "metadata.annotations" => Some(metadata.annotations.as_ref().unwrap_or(&EMPTY)),
        _ => None,
    }
}

/// `key="value"` lines, as the downward API writes maps.
fn listing(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        let mut environment = Environment::default();
        for (name, value) in pairs {
            environment.set(name, (*value).to_owned());
        }
        environment
    }

    #[test]
    fn references_are_expanded_and_dollars_escaped() {
        let environment = environment(&[("A", "1"), ("B", "two")]);
        for (text, expected) in [
            ("$(A)-$(B)", "1-two"),
            ("$(MISSING)", "$(MISSING)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("cost $5", "cost $5"),
            ("$(A", "$(A"),
            ("end$", "end$"),
        ] {
            assert_eq!(environment.expand(text), expected, "{text}");
        }
    }

    #[test]
    fn a_path_in_a_volume_needs_all_its_names() {
        let environment = environment(&[("A", "1"), ("EMPTY", "")]);
        assert_eq!(environment.expand_all("$(A)/$$(B)"), Ok("1/$(B)".to_owned()));
        let missing = environment.expand_all("$(NOPE)/$(A)/$(EMPTY)/$(NOPE)");
        assert_eq!(missing, Err("missing value for EMPTY, NOPE".to_owned()));
    }

    #[test]
    fn a_later_variable_replaces_an_earlier_one_in_place() {
        let mut environment = environment(&[("A", "1"), ("B", "2")]);
        environment.set("A", "3".to_owned());
        assert_eq!(environment.lines(), ["A=3", "B=2"]);
    }

    #[test]
    fn a_resource_is_rounded_up_to_its_divisor() {
        assert_eq!(divided("250m".parse().unwrap(), Quantity::from_units(1)), "1");
        assert_eq!(divided("250m".parse().unwrap(), "1m".parse().unwrap()), "250");
        assert_eq!(divided("64Mi".parse().unwrap(), "1Mi".parse().unwrap()), "64");
    }

    #[test]
    fn fields_of_the_pod_are_found_by_path() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "web"}, "annotations": {"a": "x\"y"}}
        }))
        .unwrap();
        let host = Host { node_name: "node-1".to_owned(), ip: [10, 0, 0, 1].into() };
        let sandbox = Sandbox { ip: Some([10, 88, 0, 2].into()), created_at: jiff::Timestamp::UNIX_EPOCH };
        let machine = Machine::pretend(1, 1);
        let fields = Fields { pod: &pod, host: &host, sandbox: Some(&sandbox), machine: &machine };
        for (path, expected) in [
            ("metadata.name", Some("p")),
            ("metadata.labels['app']", Some("web")),
            ("metadata.labels['none']", Some("")),
            ("metadata.annotations", Some("a=\"x\\\"y\"")),
            ("spec.nodeName", Some("node-1")),
            ("status.podIP", Some("10.88.0.2")),
            ("status.hostIP", Some("10.0.0.1")),
            ("spec.containers", None),
        ] {
            assert_eq!(fields.field(path).as_deref(), expected, "{path}");
        }
    }
}
