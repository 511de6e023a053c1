//! Holds writes against validating admission policies, and what mutating ones share with that: finds what is in force, its parameters, and does what the bindings say about
//! what does not comply.
//!
//! The words of refusals are those of kube-apiserver.

use std::{fmt, sync::Arc, time::Duration};

use claw_client::ResourceRef;
use claw_schemas::{ApiError, status::Cause};
use serde_json::Value;

use super::{Asked, Hooks, NOTHING};
use crate::{
    admission::{Binding, Frame, Judgement, Policy, Reference, Refusal, selects},
    custom::cel::Inputs,
    metrics::Outcome,
    service::{encode, errors, kinds::Served},
    store::{Key, Record},
};

/// Why a policy cannot be asked about anything.
pub(super) enum Unconfigured {
    Policy(String),
    Binding(String),
}

impl fmt::Display for Unconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(why) => write!(f, "failed to configure policy: {why}"),
            Self::Binding(why) => write!(f, "failed to configure binding: {why}"),
        }
    }
}

impl Hooks<'_> {
    /// Refuses what does not comply with the policies in force.
    pub(super) async fn comply(&self, old: &Value, new: &Value) -> Result<(), ApiError> {
        let mut refused = Vec::new();
        for policy in &self.configuration.policies {
            let bindings = &self.configuration.bindings;
            let Some((asked, bindings)) = self.in_force(&policy.frame, bindings, old, new, false).await?
            else {
                continue;
            };
            for binding in bindings {
                refused.extend(self.judged(policy, binding, &asked).await?);
            }
        }
        match refused.into_iter().next() {
            Some((message, refusal)) => Err(self.denied(new, &message, &refusal)),
            None => Ok(()),
        }
    }

    /// What a policy is to be asked about, and the bindings that put it into force there.
    pub(super) async fn in_force<'b>(
        &self,
        policy: &Frame,
        bindings: &'b [Arc<Binding>],
        old: &Value,
        new: &Value,
        may_change: bool,
    ) -> Result<Option<(Asked, Vec<&'b Binding>)>, ApiError> {
        let own: Vec<_> = bindings.iter().filter(|one| one.policy == policy.name).collect();
        if own.is_empty() {
            return Ok(None);
        }
        let Some(asked) = self.concerning(&policy.matching, old, new, may_change).await? else {
            return Ok(None);
        };
        let mut bound = Vec::new();
        for binding in own {
            if self.is_bound(binding, old, new).await? {
                bound.push(&**binding);
            }
        }
        Ok(Some((asked, bound)))
    }

    async fn is_bound(&self, binding: &Binding, old: &Value, new: &Value) -> Result<bool, ApiError> {
        match &binding.matching {
            Some(matching) => Ok(self.concerning(matching, old, new, false).await?.is_some()),
            None => Ok(true),
        }
    }

    /// What expressions of a policy are about.
    pub(super) async fn inputs<'a>(
        &'a self,
        asked: &'a Asked,
        params: &'a Value,
    ) -> Result<Inputs<'a>, ApiError> {
        let namespace = match self.attributes.namespace.is_empty() || self.attributes.is_namespace() {
            true => &NOTHING,
            false => self.namespace().await?,
        };
        let Asked { request, old, new, .. } = asked;
        Ok(Inputs { object: new, old, request, params, namespace, authorizer: self })
    }

    /// What a policy, put into force by a binding, has against a request.
    async fn judged(
        &self,
        policy: &Policy,
        binding: &Binding,
        asked: &Asked,
    ) -> Result<Vec<(String, Refusal)>, ApiError> {
        let by = format!("ValidatingAdmissionPolicy '{}'", policy.frame.name);
        let bound = format!("{by} with binding '{}'", binding.name);
        let refused =
            |by: &str, refusal: Refusal| (format!("{by} denied request: {}", refusal.message), refusal);
        let parameters = match self.parameters(&policy.frame, binding).await? {
            Ok(parameters) => parameters,
            Err(_) if policy.frame.ignores_failures => return Ok(Vec::new()),
            Err(trouble) => {
                let by = if matches!(trouble, Unconfigured::Policy(_)) { &by } else { &bound };
                let refusal = Refusal::failed(trouble.to_string(), Outcome::Failed, Duration::ZERO);
                return Ok(vec![refused(by, refusal)]);
            }
        };
        let mut all = Vec::new();
        for params in &parameters {
            let inputs = self.inputs(asked, params).await?;
            let judgement = policy.judge(inputs);
            self.count(policy, binding, &judgement);
            let Judgement { refusals, annotations, troubles, ignored: _ } = judgement;
            for (key, value) in annotations {
                tracing::info!(policy = %policy.frame.name, key, value, "a policy annotates a request");
            }
            self.tell(binding, &bound, &refusals);
            all.extend(troubles.into_iter().map(|refusal| refused(&bound, refusal)));
            let denied = refusals.into_iter().filter(|_| binding.denies);
            all.extend(denied.map(|refusal| refused(&bound, refusal)));
            // Each evaluation may take a while, and there may be many parameters.
            tokio::task::yield_now().await;
        }
        Ok(all)
    }

    /// Counts what expressions led to. Those that hold lead to nothing, here and upstream.
    fn count(&self, policy: &Policy, binding: &Binding, judgement: &Judgement) {
        let count = |refusal: &Refusal, action: &str| {
            let (policy, figures) = (&policy.frame.name, &self.service.metrics.admission);
            figures.validated(policy, &binding.name, refusal.outcome, action, refusal.took);
        };
        let actions = [("deny", binding.denies), ("warn", binding.warns), ("audit", binding.audits)];
        for (action, _) in actions.into_iter().filter(|(_, is_taken)| *is_taken) {
            judgement.refusals.iter().for_each(|refusal| count(refusal, action));
        }
        judgement.troubles.iter().for_each(|refusal| count(refusal, "deny"));
        judgement.ignored.iter().for_each(|refusal| count(refusal, "allow"));
    }

    /// What a binding wants said about what does not comply.
    fn tell(&self, binding: &Binding, bound: &str, refusals: &[Refusal]) {
        for Refusal { message, .. } in refusals {
            if binding.warns {
                self.target.say(&[format!("Validation failed for {bound}: {message}")]);
            }
            if binding.audits {
                let (policy, binding) = (&binding.policy, &binding.name);
                tracing::info!(%policy, %binding, message, "a request does not comply with a policy");
            }
        }
    }

    fn denied(&self, new: &Value, message: &str, refusal: &Refusal) -> ApiError {
        let mut error = self.forbidden(new, message);
        (error.code, error.reason) = (refusal.reason.code(), refusal.reason);
        error.details.causes.push(Cause { message: message.to_owned(), ..Cause::default() });
        error
    }

    /// With what a policy is to be evaluated, one after the other. A policy without parameters has nothing once.
    pub(super) async fn parameters(
        &self,
        policy: &Frame,
        binding: &Binding,
    ) -> Result<Result<Vec<Value>, Unconfigured>, ApiError> {
        let (Some((api_version, kind)), Some(reference)) = (&policy.parameters, &binding.parameters) else {
            return Ok(Ok(vec![Value::Null]));
        };
        let registry = self.service.registry();
        let Some(descriptor) = registry.kind(api_version, kind) else {
            return Ok(Err(Unconfigured::Policy(format!(
                "failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'"
            ))));
        };
        let path = ResourceRef::collection(&descriptor.group, &descriptor.version, &descriptor.plural);
        let served = self.service.kinds.resolve(path)?.kind;
        let namespace = match namespace_of(&served, reference, &self.attributes.namespace) {
            Ok(namespace) => namespace,
            Err(why) => return Ok(Err(Unconfigured::Binding(why.to_owned()))),
        };
        let found = self.find_parameters(&served, reference, namespace).await?;
        if found.is_empty() && reference.must_be {
            let why = "no params found for policy binding with `Deny` parameterNotFoundAction";
            return Ok(Err(Unconfigured::Binding(why.to_owned())));
        }
        Ok(Ok(found))
    }

    async fn find_parameters(
        &self,
        served: &Served,
        reference: &Reference,
        namespace: &str,
    ) -> Result<Vec<Value>, ApiError> {
        let records: Vec<Record> = match &reference.name {
            Some(name) => self.service.find(&served.key(namespace, name)).await?.into_iter().collect(),
            None => {
                let place = Some(namespace).filter(|namespace| !namespace.is_empty());
                let descriptor = &served.descriptor;
                let prefix = Key::collection(descriptor.storage_group(), &descriptor.plural, place);
                self.service.store.list(&prefix, None, 0, None).await.map_err(errors::from_store)?.items
            }
        };
        let shown = served.shown(records).await?;
        let objects = shown.iter().map(encode::value_of).collect::<Result<Vec<_>, _>>()?;
        let is_meant = |object: &Value| reference.name.is_some() || selects(&reference.selector, object);
        Ok(objects.into_iter().filter(is_meant).collect())
    }
}

/// Where parameters are: in the namespace that the binding names, else in that of the request.
fn namespace_of<'n>(
    served: &Served,
    reference: &'n Reference,
    requested: &'n str,
) -> Result<&'n str, &'static str> {
    match (served.descriptor.namespaced(), reference.namespace.as_deref()) {
        (false, None) => Ok(""),
        (false, Some(_)) => Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`"),
        (true, Some(namespace)) => Ok(namespace),
        (true, None) if requested.is_empty() => {
            Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
        }
        (true, None) => Ok(requested),
    }
}
