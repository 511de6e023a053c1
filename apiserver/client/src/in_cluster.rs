//! The cluster that a program runs in: what a container is told of it by variables and by the token mounted into it.
//!
//! The places are those of Kubernetes, so a container finds whichever cluster it is in. The environment is not looked at:
//! callers pass a look into it in.

use std::{ffi::OsString, fs, path::Path};

use crate::{
    endpoint::{Endpoint, Token, Trust},
    error::ConfigError,
    kubeconfig::Selected,
};

/// Where a container finds its token, the authority that the server's certificate comes from, and its namespace.
pub const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

const HOST: &str = "KUBERNETES_SERVICE_HOST";
const PORT: &str = "KUBERNETES_SERVICE_PORT";

/// What to call it where a context is named.
const NAME: &str = "in-cluster";

/// The server of the cluster around this container; `None` where there is none, or no token for us. The token is read
/// from its file again and again: the node replaces it long before it ends.
///
/// ```no_run
/// # fn f() -> Result<(), claw_client::ConfigError> {
/// use claw_client::{Client, in_cluster};
/// if let Some(selected) = in_cluster::select(|name| std::env::var_os(name))? {
///     let client = Client::connect(&selected.endpoint, "my-controller")?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// There is a cluster around us whose authority cannot be read.
pub fn select(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Selected>, ConfigError> {
    select_in(Path::new(FOLDER), variable)
}

fn select_in(
    folder: &Path,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<Selected>, ConfigError> {
    let variable =
        |name| variable(name).and_then(|value| value.into_string().ok()).filter(|text| !text.is_empty());
    let (Some(host), Some(port)) = (variable(HOST), variable(PORT)) else { return Ok(None) };
    let token = folder.join("token");
    if !token.exists() {
        return Ok(None);
    }
    let ca = folder.join("ca.crt");
    let read = |source| ConfigError::Read { what: "the authority of the cluster", path: ca.clone(), source };
    let roots = fs::read(&ca).map_err(read)?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let mut endpoint = Endpoint::new(format!("https://{host}:{port}")).trust(Trust::Roots(roots));
    endpoint.token = Some(Token::File(token));
    let namespace = fs::read_to_string(folder.join("namespace")).ok();
    let namespace = namespace.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    Ok(Some(Selected { endpoint, context: NAME.to_owned(), namespace }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(folder: &Path, variables: &[(&str, &str)]) -> Result<Option<Selected>, ConfigError> {
        select_in(folder, |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(*value))
        })
    }

    #[test]
    fn a_container_finds_its_cluster_by_variables_and_files() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("token", "t\n"), ("ca.crt", "pem"), ("namespace", "team\n")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let selected = found(folder.path(), &[(HOST, "10.0.0.1"), (PORT, "443")]).unwrap().unwrap();
        assert_eq!(selected.endpoint.server, "https://10.0.0.1:443");
        assert_eq!(selected.endpoint.trust, Trust::Roots(b"pem".to_vec()));
        assert!(
            selected.endpoint.token == Some(Token::File(folder.path().join("token"))),
            "read again as it changes"
        );
        assert_eq!(selected.namespace.as_deref(), Some("team"));
        let six = found(folder.path(), &[(HOST, "fd00::1"), (PORT, "6443")]).unwrap().unwrap();
        assert_eq!(six.endpoint.server, "https://[fd00::1]:6443");
    }

    #[test]
    fn without_an_address_or_a_token_there_is_no_cluster_and_without_its_authority_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let both = [(HOST, "10.0.0.1"), (PORT, "443")];
        assert!(found(folder.path(), &both).unwrap().is_none(), "no token");
        fs::write(folder.path().join("token"), "t").unwrap();
        let error = found(folder.path(), &both).unwrap_err().to_string();
        assert!(error.contains("ca.crt"), "{error}");
        assert!(found(folder.path(), &both[..1]).unwrap().is_none(), "no port");
        assert!(found(folder.path(), &[(HOST, ""), (PORT, "443")]).unwrap().is_none(), "no host");
    }
}
