//! Questions that are asked by creating an object that is never stored: who am I, may I, may they, whose token is this.
//!
//! The kinds of `authentication.k8s.io` and `authorization.k8s.io`.

use claw_client::{ResourceRef, Response, Verb};
use claw_schemas::{ApiError, selector::FieldSelector, status::Cause};
use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{TokenReviewSpec, UserInfo},
    authorization::v1::{NonResourceAttributes, ResourceAttributes, SubjectAccessReviewSpec},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{ObjectService, body, kinds::method_not_allowed, object::text};
use crate::auth::{Action, Identity, What, service_accounts::ISSUER};

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Whether a request is one of these questions.
pub(super) fn is_review(resource: &ResourceRef) -> bool {
    matches!(resource.group.as_str(), AUTHENTICATION | AUTHORIZATION)
}

impl ObjectService {
    pub(super) async fn review(
        &self,
        who: &Identity,
        resource: &ResourceRef,
        verb: Verb,
    ) -> Result<Response, ApiError> {
        let kind = kind_of(resource).ok_or_else(super::kinds::no_such_path)?;
        let Verb::Create { body, .. } = verb else { return Err(method_not_allowed()) };
        if resource.name.is_some() || resource.subresource.is_some() {
            return Err(method_not_allowed());
        }
        let mut review = body::document(&body, &format!("{}/v1", resource.group), kind)?;
        let status = match kind {
            "SelfSubjectReview" => json!({"userInfo": user_info(who)}),
            "TokenReview" => self.review_token(spec(&review, kind)?).await?,
            "SelfSubjectAccessReview" => self.review_access(who, &review["spec"], kind)?,
            "SelfSubjectRulesReview" => self.review_rules(who, &review["spec"])?,
            "SubjectAccessReview" => self.review_access(&subject(&review)?, &review["spec"], kind)?,
            _ => {
                let namespace = resource.namespace.as_deref().unwrap_or_default();
                check_local(namespace, &review)?;
                self.review_access(&subject(&review)?, &review["spec"], kind)?
            }
        };
        if !review["metadata"].is_object() {
            review["metadata"] = json!({});
        }
        review["metadata"]["creationTimestamp"] = Value::Null;
        review["status"] = status;
        Ok(Response { code: 201, body: review.to_string().into(), warnings: Vec::new() })
    }

    async fn review_token(&self, spec: TokenReviewSpec) -> Result<Value, ApiError> {
        let token = spec.token;
        if token.is_empty() {
            let cause = Cause::required("spec.token", "name the token");
            return Err(ApiError::invalid(AUTHENTICATION, "TokenReview", "", vec![cause]));
        }
        let audiences =
            spec.audiences.filter(|all| !all.is_empty()).unwrap_or_else(|| vec![ISSUER.to_owned()]);
        let found = match self.service_accounts.get() {
            Some(accounts) => accounts.review(&token, &audiences, Timestamp::now()).await?,
            None => None,
        };
        Ok(match found {
            Some((who, audiences)) => {
                json!({"authenticated": true, "user": user_info(&who), "audiences": audiences})
            }
            None => json!({
                "error": "the token is of no service account here, or not for these audiences, or not good any more",
            }),
        })
    }

    fn review_access(&self, who: &Identity, spec: &Value, kind: &str) -> Result<Value, ApiError> {
        let part = |field: &str| Some(&spec[field]).filter(|part| !part.is_null());
        let answer = |action: &Action<'_>| {
            // Scripts compare kubectl's plain "no", to which it would add a reason.
            match self.authorizer.allows(who, action) {
                true => json!({"allowed": true, "reason": self.authorizer.explain(who, action)}),
                false => json!({"allowed": false}),
            }
        };
        match (part("resourceAttributes"), part("nonResourceAttributes")) {
            (Some(objects), None) => {
                let asked: ResourceAttributes = typed(objects, kind)?;
                let fields = selected_fields(&asked);
                Ok(answer(&action_on(&asked, &fields)))
            }
            (None, Some(path)) => {
                let asked: NonResourceAttributes = typed(path, kind)?;
                let (verb, path) = (asked.verb.unwrap_or_default(), asked.path.unwrap_or_default());
                Ok(answer(&Action::at(&verb, &path)))
            }
            _ => {
                let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
                let cause = Cause::invalid("spec.resourceAttributes", "null", why);
                Err(ApiError::invalid(AUTHORIZATION, kind, "", vec![cause]))
            }
        }
    }

    fn review_rules(&self, who: &Identity, spec: &Value) -> Result<Value, ApiError> {
        let namespace = spec["namespace"].as_str().unwrap_or_default();
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request: set spec.namespace"));
        }
        let (mut on_objects, mut on_paths) = (Vec::new(), Vec::new());
        for rule in self.authorizer.rules(who, namespace).iter().flat_map(|rules| rules.iter()) {
            let rule = json!(rule);
            let list = if rule["nonResourceURLs"].is_null() { &mut on_objects } else { &mut on_paths };
            if !list.contains(&rule) {
                list.push(rule);
            }
        }
        let mut status =
            json!({"resourceRules": on_objects, "nonResourceRules": on_paths, "incomplete": false});
        if who.node().is_some() {
            status["incomplete"] = true.into();
            status["evaluationError"] = "what a node may do depends on the pods that are bound to it".into();
        }
        Ok(status)
    }
}

fn kind_of(resource: &ResourceRef) -> Option<&'static str> {
    let found = claw_schemas::kinds::reviews().iter().find(|one| {
        one.group == resource.group
            && one.version == resource.version
            && one.plural == resource.plural
            && one.namespaced() == resource.namespace.is_some()
    });
    found.map(|one| &*one.kind)
}

fn typed<T: DeserializeOwned>(value: &Value, kind: &str) -> Result<T, ApiError> {
    serde_json::from_value(value.clone()).map_err(|error| {
        ApiError::bad_request(format!("{kind} in version \"v1\" cannot be handled as a {kind}: {error}"))
    })
}

fn spec<T: DeserializeOwned + Default>(review: &Value, kind: &str) -> Result<T, ApiError> {
    if review["spec"].is_null() { Ok(T::default()) } else { typed(&review["spec"], kind) }
}

/// The user that a review is about.
fn subject(review: &Value) -> Result<Identity, ApiError> {
    let kind = review["kind"].as_str().unwrap_or_default();
    let spec: SubjectAccessReviewSpec = spec(review, kind)?;
    let (user, groups) = (spec.user.unwrap_or_default(), spec.groups.unwrap_or_default());
    if user.is_empty() && groups.is_empty() {
        let why = "at least one of user or group must be specified";
        let cause = Cause::invalid("spec.user", "\"\"", why);
        return Err(ApiError::invalid(AUTHORIZATION, kind, "", vec![cause]));
    }
    Ok(Identity::new(user, groups).with(spec.uid.unwrap_or_default(), spec.extra.unwrap_or_default()))
}

/// A local review asks about the namespace that it is made in.
fn check_local(namespace: &str, review: &Value) -> Result<(), ApiError> {
    let attributes = &review["spec"]["resourceAttributes"];
    let asked = attributes["namespace"].as_str().unwrap_or_default();
    let placed = text(review, "namespace");
    if asked == namespace && (placed.is_empty() || placed == namespace) {
        return Ok(());
    }
    let why = format!("must match metadata.namespace and the path, which say \"{namespace}\"");
    let cause = Cause::invalid("spec.resourceAttributes.namespace", format!("\"{asked}\""), &why);
    Err(ApiError::invalid(AUTHORIZATION, "LocalSubjectAccessReview", "", vec![cause]))
}

fn action_on<'a>(asked: &'a ResourceAttributes, fields: &'a FieldSelector) -> Action<'a> {
    let text = |part: &'a Option<String>| part.as_deref().unwrap_or_default();
    let what = What::Objects {
        group: text(&asked.group),
        plural: text(&asked.resource),
        subresource: text(&asked.subresource),
        namespace: text(&asked.namespace),
        name: text(&asked.name),
    };
    Action { verb: text(&asked.verb), what, fields: None }.selecting(fields)
}

/// A selector in its text form; the structured one counts as none, which can only allow less.
fn selected_fields(asked: &ResourceAttributes) -> FieldSelector {
    let raw = asked.field_selector.as_ref().and_then(|selector| selector.raw_selector.as_deref());
    raw.and_then(|raw| FieldSelector::parse(raw).ok()).unwrap_or_default()
}

fn user_info(who: &Identity) -> UserInfo {
    UserInfo {
        username: Some(who.user.clone()),
        groups: Some(who.groups.clone()),
        uid: Some(who.uid.clone()).filter(|uid| !uid.is_empty()),
        extra: Some(who.extra.clone()).filter(|extra| !extra.is_empty()),
    }
}
