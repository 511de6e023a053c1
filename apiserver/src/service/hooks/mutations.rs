//! Lets mutating admission policies change a write, before any webhook is asked.
//!
//! Who is asked is found by the object as it comes; each then sees what those before it have made of it.

use std::time::{Duration, Instant};

use claw_client::request::PatchKind;
use claw_schemas::{
    ApiError,
    status::{Cause, Reason},
};
use serde_json::Value;

use super::{Hooks, Rounds, Who, policies::Unconfigured};
use crate::{
    admission::{Change, Mutation, Mutator, Resource},
    custom::cel::Trouble,
    fields,
    metrics::Outcome,
    patch,
};

/// A policy, put into force by a binding, with one of its parameters.
struct Invocation<'c> {
    who: Who,
    policy: &'c Mutator,
    binding: &'c str,
    resource: Resource,
    params: Value,
}

/// Why a policy did not do what it is for. Only those that may not be passed over are kept.
#[derive(Default)]
struct Failures(Vec<(String, Reason)>);

impl Failures {
    fn add(&mut self, policy: &Mutator, binding: Option<&str>, why: &str, reason: Reason) {
        let name = &policy.frame.name;
        if policy.frame.ignores_failures {
            tracing::warn!(policy = %name, why, "a policy that may be ignored is ignored");
            return;
        }
        let message = match binding {
            Some(binding) => format!("policy '{name}' with binding '{binding}' denied request: {why}"),
            None => format!("policy \"{name}\" denied request: {why}"),
        };
        self.0.push((message, reason));
    }
}

impl Hooks<'_> {
    /// Lets policies change an object, one after the other. True if one did.
    pub(super) async fn mutate(
        &self,
        old: &Value,
        new: &mut Value,
        rounds: &mut Rounds,
    ) -> Result<bool, ApiError> {
        let mut failures = Failures::default();
        let mut changed = false;
        for invocation in self.invocations(old, new, &mut failures).await? {
            if !rounds.wants(&invocation.who) {
                continue;
            }
            let has_changed = self.invoke(&invocation, old, new, &mut failures).await?;
            changed |= has_changed;
            rounds.was_asked(invocation.who, has_changed, invocation.policy.is_reinvoked);
            // Each may take a while, and there may be many.
            tokio::task::yield_now().await;
        }
        match failures.0.is_empty() {
            true => Ok(changed),
            false => Err(self.not_changed(new, failures)),
        }
    }

    /// All who are about the object.
    async fn invocations(
        &self,
        old: &Value,
        new: &Value,
        failures: &mut Failures,
    ) -> Result<Vec<Invocation<'_>>, ApiError> {
        let mut all = Vec::new();
        for policy in &self.configuration.mutators {
            let bindings = &self.configuration.mutator_bindings;
            let Some((asked, bindings)) = self.in_force(&policy.frame, bindings, old, new, true).await?
            else {
                continue;
            };
            for binding in bindings {
                let failed = match self.parameters(&policy.frame, binding).await? {
                    Ok(parameters) => {
                        all.extend(parameters.into_iter().map(|params| Invocation {
                            who: Who::policy(&policy.frame.name, &binding.name, &params),
                            policy,
                            binding: &binding.name,
                            resource: asked.resource.clone(),
                            params,
                        }));
                        continue;
                    }
                    Err(trouble) => trouble,
                };
                let binding = matches!(failed, Unconfigured::Binding(_)).then_some(binding.name.as_str());
                failures.add(policy, binding, &failed.to_string(), Reason::Forbidden);
            }
        }
        Ok(all)
    }

    /// All changes of one policy. What one of them cannot do does not keep the others from theirs.
    async fn invoke(
        &self,
        invocation: &Invocation<'_>,
        old: &Value,
        object: &mut Value,
        failures: &mut Failures,
    ) -> Result<bool, ApiError> {
        let Invocation { policy, binding, .. } = invocation;
        let mut fail = |why: &str| failures.add(policy, Some(binding), why, Reason::Invalid);
        match self.meets(invocation, old, object).await? {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => {
                fail(&why);
                return Ok(false);
            }
        }
        let mutations = match &policy.mutations {
            Ok(mutations) => mutations,
            Err(why) => {
                fail(&format!("compilation failed: {why}"));
                let figures = &self.service.metrics.admission;
                figures.mutated(&policy.frame.name, binding, Outcome::Uncompiled, Duration::ZERO);
                return Ok(false);
            }
        };
        let mut changed = false;
        for mutation in mutations {
            let (begun, figures) = (Instant::now(), &self.service.metrics.admission);
            let outcome = match self.mutated(invocation, mutation, old, object).await? {
                Ok(has_changed) => {
                    changed |= has_changed;
                    Outcome::Fine
                }
                Err((why, outcome)) => {
                    fail(&why);
                    outcome
                }
            };
            figures.mutated(&policy.frame.name, binding, outcome, begun.elapsed());
        }
        Ok(changed)
    }

    /// Whether the conditions of a policy hold, or why nobody knows.
    async fn meets(
        &self,
        invocation: &Invocation<'_>,
        old: &Value,
        object: &Value,
    ) -> Result<Result<bool, String>, ApiError> {
        let conditions = &invocation.policy.frame.conditions;
        if conditions.is_empty() {
            return Ok(Ok(true));
        }
        let asked = self.presented(invocation.resource.clone(), old, object, true).await?;
        let inputs = self.inputs(&asked, &invocation.params).await?;
        Ok(conditions.hold(inputs))
    }

    /// Makes one change. True if the object is another after it; else why it could not be made.
    async fn mutated(
        &self,
        invocation: &Invocation<'_>,
        mutation: &Mutation,
        old: &Value,
        object: &mut Value,
    ) -> Result<Result<bool, (String, Outcome)>, ApiError> {
        let asked = self.presented(invocation.resource.clone(), old, object, true).await?;
        let inputs = self.inputs(&asked, &invocation.params).await?;
        let change = match invocation.policy.change(mutation, inputs) {
            Ok(change) => change,
            Err(trouble @ Trouble::Spent) => return Ok(Err((trouble.to_string(), Outcome::Spent))),
            Err(Trouble::Error(why)) => return Ok(Err((why, Outcome::Failed))),
        };
        let patched = match self.applied(&asked.new, &change, &invocation.resource)? {
            Ok(patched) => patched,
            Err(why) => return Ok(Err((why, Outcome::Failed))),
        };
        if patched == asked.new {
            return Ok(Ok(false));
        }
        match self.accept(object, patched, &invocation.resource).await {
            Ok(()) => self.complete(object),
            Err(error) => return Ok(Err((error.message, Outcome::Failed))),
        }
        Ok(Ok(true))
    }

    /// The object after a change.
    fn applied(
        &self,
        object: &Value,
        change: &Change,
        resource: &Resource,
    ) -> Result<Result<Value, String>, ApiError> {
        Ok(match change {
            Change::Apply(config) => self.laid_over(object, config, resource)?,
            Change::Patch(operations) => {
                match patch::apply(PatchKind::Json, object, operations.to_string().as_bytes(), None) {
                    Ok(patched) => Ok(patched),
                    // A test that fails is how a patch says that it is not meant.
                    Err(error) if patch::is_failed_test(&error) => Ok(object.clone()),
                    Err(error) => Err(format!("JSONPatch: {}", error.message)),
                }
            }
        })
    }

    fn laid_over(
        &self,
        object: &Value,
        config: &Value,
        resource: &Resource,
    ) -> Result<Result<Value, String>, ApiError> {
        let other = self.other(resource)?;
        let kind = other.as_ref().unwrap_or(&self.target.kind);
        let schema = self.is_about_object().then(|| kind.descriptor.compiled());
        let merged =
            fields::overlay(schema, object, config).and_then(|merged| match patch::is_too_deep(&merged) {
                true => Err("the object nests too deeply".to_owned()),
                false => Ok(merged),
            });
        Ok(merged.map_err(|why| format!("error applying patch: {why}")))
    }

    /// Fills in what a change left out, so that the next one sees a whole object.
    fn complete(&self, object: &mut Value) {
        if self.target.sub.is_none() {
            self.target.kind.fill_in(object);
        }
    }

    /// 403 that tells of all failures. What the first says decides about the reason.
    fn not_changed(&self, new: &Value, failures: Failures) -> ApiError {
        let mut error = self.forbidden(new, "admission request denied by policy");
        if let Some((message, reason)) = failures.0.first() {
            error.message.clone_from(message);
            error.reason = *reason;
        }
        let cause = |(message, _)| Cause { message, ..Cause::default() };
        error.details.causes.extend(failures.0.into_iter().map(cause));
        error
    }
}
