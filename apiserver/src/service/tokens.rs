//! `serviceaccounts/token`: a token for an account, bound to a pod, a secret or a node if it says so.

use claw_client::{Response, request::WriteOptions};
use claw_schemas::{
    ApiError,
    schema::time_text,
    status::{Cause, Reason},
};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequestSpec};
use serde_json::{Value, json};

use super::{ObjectService, body, encode, kinds::Target, object::text};
use crate::{
    auth::service_accounts::{Bound, ISSUER, Incarnation},
    store::Key,
};

const API_VERSION: &str = "authentication.k8s.io/v1";
const KIND: &str = "TokenRequest";

/// Life of a token when nobody says: an hour. Kubernetes' figures, all three.
const SECONDS_DEFAULT: i64 = 3_600;
/// Shorter ones would be renewed all the time.
const SECONDS_MIN: i64 = 600;
/// 136 years.
const SECONDS_MAX: i64 = 1 << 32;

impl ObjectService {
    /// The keys by which others verify tokens.
    pub fn token_keys(&self) -> Option<Value> {
        self.service_accounts.get().map(|accounts| accounts.public_keys())
    }

    pub(super) async fn issue_token(
        &self,
        target: &Target,
        sent: &[u8],
        options: &WriteOptions,
    ) -> Result<Response, ApiError> {
        let accounts = self.service_accounts.get().ok_or_else(|| {
            ApiError::new(Reason::ServiceUnavailable, "this server has no key to sign tokens with")
        })?;
        let account = encode::value_of(&self.record(target).await?)?;
        let mut request = body::document(sent, API_VERSION, KIND)?;
        self.ask_about(target, &mut request, options).await?;
        let spec = checked(target, &request)?;
        let bound = self.bound(target, &account, spec.bound_object_ref.as_ref()).await?;
        let audiences =
            spec.audiences.filter(|all| !all.is_empty()).unwrap_or_else(|| vec![ISSUER.to_owned()]);
        let seconds = spec.expiration_seconds.unwrap_or(SECONDS_DEFAULT);
        request["metadata"] = json!({
            "name": target.name, "namespace": target.namespace, "creationTimestamp": account["metadata"]["creationTimestamp"],
        });
        request["spec"]["audiences"] = json!(audiences);
        request["spec"]["expirationSeconds"] = seconds.into();
        if !options.dry_run {
            let (token, end) = accounts.issue(bound, audiences, seconds, Timestamp::now())?;
            request["status"] = json!({"token": token, "expirationTimestamp": time_text(end)});
        }
        Ok(Response { code: 201, body: request.to_string().into(), warnings: Vec::new() })
    }

    /// What the token stands and falls with.
    async fn bound(
        &self,
        target: &Target,
        account: &Value,
        reference: Option<&BoundObjectReference>,
    ) -> Result<Bound, ApiError> {
        let mut bound =
            Bound { namespace: target.namespace.clone(), account: incarnation(account), ..Bound::default() };
        let by_node = target.by.as_ref().and_then(|who| who.node());
        let Some(reference) = reference else {
            return match by_node {
                Some(_) => {
                    Err(target.kind.forbidden(&target.name, "node requested token not bound to a pod"))
                }
                None => Ok(bound),
            };
        };
        let object = self.referenced(target, reference).await?;
        match reference.kind.as_deref().unwrap_or_default() {
            "Pod" => {
                check_pod(target, &object, by_node)?;
                let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
                bound.node = self.find_node(node).await?;
                bound.pod = Some(incarnation(&object));
            }
            _ if by_node.is_some() => {
                return Err(target.kind.forbidden(&target.name, "node requested token not bound to a pod"));
            }
            "Secret" => bound.secret = Some(incarnation(&object)),
            _ => bound.node = Some(incarnation(&object)),
        }
        Ok(bound)
    }

    async fn referenced(&self, target: &Target, reference: &BoundObjectReference) -> Result<Value, ApiError> {
        let (plural, namespace) = match reference.kind.as_deref() {
            Some("Pod") => ("pods", target.namespace.as_str()),
            Some("Secret") => ("secrets", target.namespace.as_str()),
            Some("Node") => ("nodes", ""),
            other => {
                return Err(ApiError::bad_request(format!(
                    "cannot bind a token to a {}: bind it to a Pod, a Secret or a Node",
                    other.unwrap_or("nameless kind")
                )));
            }
        };
        let name = reference.name.as_deref().unwrap_or_default();
        let record = self.find(&Key::object("", plural, namespace, name)).await?;
        let object = encode::value_of(&record.ok_or_else(|| ApiError::not_found("", plural, name))?)?;
        match reference.uid.as_deref().filter(|uid| !uid.is_empty()) {
            Some(uid) if uid != text(&object, "uid") => {
                let found = text(&object, "uid");
                let why = format!(
                    "the UID in the bound object reference ({uid}) does not match the UID in record ({found}). The object might have been deleted and then recreated"
                );
                Err(ApiError::conflict("", plural, name, &why))
            }
            _ => Ok(object),
        }
    }

    async fn find_node(&self, name: &str) -> Result<Option<Incarnation>, ApiError> {
        if name.is_empty() {
            return Ok(None);
        }
        let record = self.find(&Key::object("", "nodes", "", name)).await?;
        record.map(|record| encode::value_of(&record).map(|node| incarnation(&node))).transpose()
    }
}

fn incarnation(object: &Value) -> Incarnation {
    Incarnation { name: text(object, "name").to_owned(), uid: text(object, "uid").to_owned() }
}

fn checked(target: &Target, request: &Value) -> Result<TokenRequestSpec, ApiError> {
    let spec: TokenRequestSpec = match &request["spec"] {
        Value::Null => TokenRequestSpec::default(),
        spec => serde_json::from_value(spec.clone()).map_err(|error| {
            ApiError::bad_request(format!("{KIND} in version \"v1\" cannot be handled as a {KIND}: {error}"))
        })?,
    };
    let why = match spec.expiration_seconds {
        Some(seconds) if seconds < SECONDS_MIN => "may not specify a duration less than 10 minutes",
        Some(seconds) if seconds > SECONDS_MAX => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(spec),
    };
    let cause = Cause::invalid("spec.expirationSeconds", spec.expiration_seconds.unwrap_or_default(), why);
    Err(ApiError::invalid("authentication.k8s.io", KIND, &target.name, vec![cause]))
}

/// A pod's token is for the account that the pod runs as, and a node asks for those of its own pods.
fn check_pod(target: &Target, pod: &Value, by_node: Option<&str>) -> Result<(), ApiError> {
    if pod["spec"]["serviceAccountName"] != target.name.as_str() {
        return Err(ApiError::bad_request(format!(
            "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
            target.name
        )));
    }
    match by_node {
        Some(node) if pod["spec"]["nodeName"] != node => {
            let why =
                format!("node requested token bound to a pod scheduled on a different node than \"{node}\"");
            Err(target.kind.forbidden(&target.name, &why))
        }
        _ => Ok(()),
    }
}
