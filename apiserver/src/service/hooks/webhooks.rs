//! Asks one webhook, and does what it answers.

use std::time::Instant;

use claw_client::{request::PatchKind, trace::SPANS};
use claw_schemas::{ApiError, status::Reason};
use serde_json::Value;
use tracing::{Instrument as _, trace_span};

use super::{Asked, Hooks, NOTHING};
use crate::{
    admission::{Answer, Trouble, Webhook, internal},
    custom::cel::Inputs,
    metrics, patch,
};

/// As which a webhook that cannot be asked is counted: the code that upstream has for that.
const UNAVAILABLE: u16 = 503;

impl Hooks<'_> {
    /// What a webhook is to be asked, if it is.
    pub(super) async fn asked(
        &self,
        webhook: &Webhook,
        old: &Value,
        new: &Value,
        may_change: bool,
    ) -> Result<Option<Asked>, ApiError> {
        let Some(asked) = self.concerning(&webhook.matching, old, new, may_change).await? else {
            return Ok(None);
        };
        match self.met(webhook, &asked) {
            Ok(true) => Ok(Some(asked)),
            Ok(false) => Ok(None),
            Err(_) if webhook.ignores_failures => Ok(None),
            Err(why) => Err(self.forbidden(new, &why)),
        }
    }

    fn met(&self, webhook: &Webhook, asked: &Asked) -> Result<bool, String> {
        if webhook.conditions.is_empty() {
            return Ok(true);
        }
        let inputs = Inputs {
            object: &asked.new,
            old: &asked.old,
            request: &asked.request,
            params: &NOTHING,
            namespace: &NOTHING,
            authorizer: self,
        };
        webhook.conditions.hold(inputs)
    }

    /// Asks, and hands on what there is to say beside yes or no. `None` is no answer where none is needed.
    pub(super) async fn ask(
        &self,
        webhook: &Webhook,
        asked: &Asked,
        may_change: bool,
    ) -> Result<Option<Answer>, ApiError> {
        if self.attributes.dry_run && !webhook.bears_dry_run {
            return Err(webhook.refuses_dry_run());
        }
        let mut request = asked.request.clone();
        request["object"] = asked.new.clone();
        request["oldObject"] = asked.old.clone();
        let (begun, figures) = (Instant::now(), &self.service.metrics.admission);
        let counted = self.counted(webhook, may_change);
        let span = trace_span!(target: SPANS, "webhook", webhook = webhook.name, may_change);
        match webhook.ask(request, may_change).instrument(span).await {
            Ok(answer) => {
                let code = answer.denial.as_ref().map_or(200, |denial| denial.code);
                figures.answered(counted, code, begun.elapsed());
                self.target.say(&answer.warnings);
                if answer.annotations.is_object() {
                    let (webhook, annotations) = (&webhook.name, &answer.annotations);
                    tracing::info!(%webhook, %annotations, "a webhook annotates a request");
                }
                Ok(Some(answer))
            }
            Err(Trouble(why)) => {
                figures.failed(counted, UNAVAILABLE, webhook.ignores_failures, begun.elapsed());
                if !webhook.ignores_failures {
                    return Err(internal(why));
                }
                tracing::warn!(%why, "a webhook that may be ignored is ignored");
                Ok(None)
            }
        }
    }

    fn counted<'a>(&self, webhook: &'a Webhook, may_change: bool) -> metrics::Asked<'a> {
        metrics::Asked { name: &webhook.name, may_change, operation: self.attributes.operation.name() }
    }

    /// Lets one webhook change an object. True if it did.
    pub(super) async fn changes(
        &self,
        webhook: &Webhook,
        asked: Asked,
        object: &mut Value,
    ) -> Result<bool, ApiError> {
        let Some(answer) = self.ask(webhook, &asked, true).await? else { return Ok(false) };
        if let Some(denial) = answer.denial {
            return Err(denial);
        }
        let Some(patch) = answer.patch.filter(|patch| !is_nothing(patch)) else { return Ok(false) };
        if asked.new.is_null() {
            return Err(webhook.cannot_modify());
        }
        let patched = match patch::apply(PatchKind::Json, &asked.new, &patch, None) {
            Ok(patched) => patched,
            Err(error) if error.reason == Reason::BadRequest && webhook.ignores_failures => {
                tracing::warn!(webhook = %webhook.name, %error, "a patch that may be ignored is ignored");
                return Ok(false);
            }
            Err(error) => {
                self.service.metrics.admission.unusable(self.counted(webhook, true));
                return Err(internal(error.message));
            }
        };
        if patched == asked.new {
            return Ok(false);
        }
        self.accept(object, patched, &asked.resource).await.map_err(|error| {
            self.service.metrics.admission.unusable(self.counted(webhook, true));
            internal(format!(
                "admission webhook \"{}\" made an invalid object: {}",
                webhook.name, error.message
            ))
        })?;
        Ok(true)
    }
}

fn is_nothing(patch: &[u8]) -> bool {
    serde_json::from_slice::<Vec<Value>>(patch).is_ok_and(|operations| operations.is_empty())
}
