//! A webhook: who it is, what it is asked (`AdmissionReview` over HTTPS), and what its answer means.
//!
//! Source: "Webhook request and response" in the Kubernetes documentation "Dynamic Admission Control"; the words of
//! refusals are those of kube-apiserver, since people and programs look for them.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use claw_schemas::{ApiError, status::Cause};
use serde_json::{Value, json};

use super::{Conditions, Matching};
use crate::{custom::cel::Names, https::Endpoint};

/// Largest answer: as large as the body of any request, which a patch that replaces a whole object fits into.
const ANSWER_BYTES_MAX: usize = 3 * 1024 * 1024;

/// The versions of `AdmissionReview` that are spoken.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// One webhook of a configuration.
pub(crate) struct Webhook {
    pub name: String,
    /// What is to be asked about.
    pub matching: Matching,
    pub conditions: Conditions,
    /// Whether it counts as a yes when it does not answer.
    pub ignores_failures: bool,
    /// Whether it is asked again about what others change after it.
    pub is_reinvoked: bool,
    /// Whether a dry run leaves nothing behind with it.
    pub bears_dry_run: bool,
    timeout: Duration,
    version: &'static str,
    /// What makes it unusable, in words, where something does.
    endpoint: Result<Endpoint, String>,
}

/// What it says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// Why not, if not.
    pub denial: Option<ApiError>,
    /// JSON patch.
    pub patch: Option<Vec<u8>>,
    pub warnings: Vec<String>,
    /// For the log.
    pub annotations: Value,
}

/// Why there is no answer, in words.
#[derive(Debug, PartialEq)]
pub(crate) struct Trouble(pub String);

/// The webhooks of a configuration.
pub(super) fn all(configuration: &Value) -> Vec<Arc<Webhook>> {
    let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
    webhooks.map(|declared| Arc::new(Webhook::new(declared))).collect()
}

impl Webhook {
    pub fn new(declared: &Value) -> Self {
        let seconds = declared["timeoutSeconds"].as_u64().unwrap_or(10);
        let mut accepted = declared["admissionReviewVersions"].as_array().into_iter().flatten();
        let version = accepted.find_map(|one| REVIEW_VERSIONS.into_iter().find(|own| one == own));
        Self {
            name: declared["name"].as_str().unwrap_or_default().to_owned(),
            matching: Matching::of_webhook(declared),
            conditions: Conditions::of(&declared["matchConditions"], &Names::of_webhooks()),
            ignores_failures: declared["failurePolicy"] == "Ignore",
            is_reinvoked: declared["reinvocationPolicy"] == "IfNeeded",
            bears_dry_run: matches!(declared["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            timeout: Duration::from_secs(seconds),
            version: version.unwrap_or(REVIEW_VERSIONS[0]),
            endpoint: Endpoint::new(&declared["clientConfig"], ANSWER_BYTES_MAX),
        }
    }

    /// Asks about a request, which names the objects, too. `mutates` says whether it may change the object.
    pub async fn ask(&self, mut request: Value, mutates: bool) -> Result<Answer, Trouble> {
        let failed = |why: String| Trouble(format!("failed calling webhook \"{}\": {why}", self.name));
        let endpoint =
            self.endpoint.as_ref().map_err(|why| failed(format!("failed to call webhook: {why}")))?;
        let uid = uuid::Uuid::new_v4().to_string();
        request["uid"] = uid.as_str().into();
        let review = json!({"kind": "AdmissionReview", "apiVersion": self.api_version(), "request": request});
        let query = format!("timeout={}s", self.timeout.as_secs());
        let answer = match tokio::time::timeout(self.timeout, endpoint.post(&query, &review)).await {
            Ok(answer) => answer.map_err(|why| failed(format!("failed to call webhook: {why}")))?,
            Err(_) => {
                let address = endpoint.address(&query);
                let why = format!("failed to call webhook: Post \"{address}\": context deadline exceeded");
                return Err(failed(why));
            }
        };
        self.read(answer, &uid, mutates)
            .map_err(|why| failed(format!("received invalid webhook response: {why}")))
    }

    fn api_version(&self) -> String {
        format!("admission.k8s.io/{}", self.version)
    }

    fn read(&self, mut answer: Value, uid: &str, mutates: bool) -> Result<Answer, String> {
        let mut response = answer["response"].take();
        if !response.is_object() {
            return Err("webhook response was absent".to_owned());
        }
        if self.version == REVIEW_VERSIONS[0] {
            check(&answer, &response, &self.api_version(), uid)?;
        }
        let patch = patch(&response, mutates, self.version == REVIEW_VERSIONS[0])?;
        let warnings = response["warnings"].as_array().into_iter().flatten();
        Ok(Answer {
            denial: (response["allowed"] != true).then(|| self.denial(&response["status"])),
            patch,
            warnings: warnings.filter_map(Value::as_str).map(str::to_owned).collect(),
            annotations: response["auditAnnotations"].take(),
        })
    }

    /// The refusal, with the code and the reason that the webhook gives.
    fn denial(&self, status: &Value) -> ApiError {
        let denied = format!("admission webhook \"{}\" denied the request", self.name);
        let text = |field: &str| status[field].as_str().filter(|text| !text.is_empty());
        let message = match text("message").or_else(|| text("reason")) {
            Some(why) => format!("{denied}: {why}"),
            None => format!("{denied} without explanation"),
        };
        let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        let code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
        let mut error = ApiError::of_code(code, message);
        if let Ok(reason) = serde_json::from_value(status["reason"].clone()) {
            error.reason = reason;
        }
        if let Ok(details) = serde_json::from_value(status["details"].clone()) {
            error.details = Box::new(details);
        }
        error
    }

    /// That it has side effects, which a dry run must not.
    pub fn refuses_dry_run(&self) -> ApiError {
        ApiError::bad_request(format!("admission webhook \"{}\" does not support dry run", self.name))
    }

    /// That it wants to change what is not there to be changed.
    pub fn cannot_modify(&self) -> ApiError {
        internal(format!(
            "admission webhook \"{}\" attempted to modify the object, which is not supported for this operation",
            self.name
        ))
    }
}

/// 500 in upstream's words.
pub(crate) fn internal(why: String) -> ApiError {
    let mut error = ApiError::internal(format!("Internal error occurred: {why}"));
    error.details.causes.push(Cause { message: why, ..Cause::default() });
    error
}

/// The answer must be to the question.
fn check(answer: &Value, response: &Value, api_version: &str, uid: &str) -> Result<(), String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (found, kind) = (text(&answer["apiVersion"]), text(&answer["kind"]));
    if found != api_version || kind != "AdmissionReview" {
        return Err(format!(
            "expected webhook response of {api_version}, Kind=AdmissionReview, got {found}, Kind={kind}"
        ));
    }
    let found = text(&response["uid"]);
    if found != uid {
        return Err(format!("expected response.uid=\"{uid}\", got \"{found}\""));
    }
    Ok(())
}

fn patch(response: &Value, mutates: bool, is_strict: bool) -> Result<Option<Vec<u8>>, String> {
    let text = |field: &str| response[field].as_str().filter(|text| !text.is_empty());
    let (patch, kind) = (text("patch"), text("patchType"));
    if !mutates {
        return match (patch, kind) {
            (Some(_), _) if is_strict => Err("validating webhook may not return response.patch".to_owned()),
            (_, Some(_)) if is_strict => {
                Err("validating webhook may not return response.patchType".to_owned())
            }
            _ => Ok(None),
        };
    }
    match (patch, kind) {
        (None, None) => Ok(None),
        (None, Some(_)) if is_strict => {
            Err("webhook returned response.patchType but not response.patch".to_owned())
        }
        (None, Some(_)) => Ok(None),
        (Some(_), None) if is_strict => {
            Err("webhook returned response.patch but not response.patchType".to_owned())
        }
        (Some(patch), None | Some("JSONPatch")) => {
            let decoded = STANDARD.decode(patch);
            decoded.map(Some).map_err(|error| format!("response.patch is no base64: {error}"))
        }
        (Some(_), Some(kind)) => Err(format!("invalid response.patchType of \"{kind}\"")),
    }
}

#[cfg(test)]
mod tests {
    use claw_schemas::status::Reason;

    use super::*;

    fn webhook() -> Webhook {
        Webhook::new(
            &json!({"name": "a.b.c", "admissionReviewVersions": ["v2", "v1"], "sideEffects": "Some"}),
        )
    }

    fn answered(response: &Value, mutates: bool) -> Result<Answer, String> {
        let answer =
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        webhook().read(answer, "u", mutates)
    }

    #[test]
    fn an_answer_must_be_to_the_question() {
        for (response, why) in [
            (json!({"uid": "other", "allowed": true}), "expected response.uid=\"u\", got \"other\""),
            (Value::Null, "webhook response was absent"),
            (json!({"uid": "u", "allowed": true, "patch": "W10="}), "but not response.patchType"),
            (json!({"uid": "u", "allowed": true, "patchType": "JSONPatch"}), "but not response.patch"),
            (json!({"uid": "u", "patch": "W10=", "patchType": "Merge"}), "invalid response.patchType"),
            (json!({"uid": "u", "patch": "?", "patchType": "JSONPatch"}), "is no base64"),
        ] {
            let said = answered(&response, true).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
        let patched = json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"});
        assert_eq!(answered(&patched, true).unwrap().patch.unwrap(), b"[]");
        assert!(answered(&patched, false).unwrap_err().contains("validating webhook may not"));
        let foreign = json!({"apiVersion": "v1", "kind": "Status", "response": {"uid": "u"}});
        assert!(webhook().read(foreign, "u", true).unwrap_err().contains("expected webhook response of"));
    }

    #[test]
    fn a_denial_has_the_code_and_the_words_of_the_webhook() {
        let denied = |status: Value| {
            answered(&json!({"uid": "u", "allowed": false, "status": status}), false).unwrap().denial.unwrap()
        };
        let plain = denied(Value::Null);
        assert_eq!((plain.code, plain.reason), (400, Reason::BadRequest));
        assert_eq!(plain.message, "admission webhook \"a.b.c\" denied the request without explanation");
        let said = denied(json!({"code": 403, "message": "no", "reason": "Forbidden"}));
        assert_eq!((said.code, said.reason), (403, Reason::Forbidden));
        assert_eq!(said.message, "admission webhook \"a.b.c\" denied the request: no");
        assert_eq!(denied(json!({"code": 200})).code, 400, "a denial is never a success");
        assert_eq!(
            denied(json!({"reason": "Why"})).message,
            "admission webhook \"a.b.c\" denied the request: Why"
        );
    }

    #[test]
    fn side_effects_do_not_go_with_a_dry_run() {
        assert!(!webhook().bears_dry_run);
        assert_eq!(
            webhook().refuses_dry_run().message,
            "admission webhook \"a.b.c\" does not support dry run"
        );
    }
}
