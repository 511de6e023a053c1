//! Asks one webhook, and does what it answers.

use claw_client::request::PatchKind;
use claw_schemas::{ApiError, status::Reason};
use serde_json::Value;

use super::{Asked, Hooks, NOTHING};
use crate::{
    admission::{Answer, Met, Trouble, Webhook, internal},
    custom::cel::{Evaluation, Inputs},
    patch,
};

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
            Met::Yes => Ok(Some(asked)),
            Met::No => Ok(None),
            Met::Unclear(_) if webhook.ignores_failures => Ok(None),
            Met::Unclear(why) => Err(self.forbidden(new, &why)),
        }
    }

    fn met(&self, webhook: &Webhook, asked: &Asked) -> Met {
        if webhook.conditions.is_empty() {
            return Met::Yes;
        }
        let inputs = Inputs {
            object: &asked.new,
            old: &asked.old,
            request: &asked.request,
            params: &NOTHING,
            namespace: &NOTHING,
            authorizer: self,
        };
        webhook.conditions.met(&Evaluation::new(inputs, &[]))
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
        match webhook.ask(request, may_change).await {
            Ok(answer) => {
                self.target.say(&answer.warnings);
                if answer.annotations.is_object() {
                    let (webhook, annotations) = (&webhook.name, &answer.annotations);
                    tracing::info!(%webhook, %annotations, "a webhook annotates a request");
                }
                Ok(Some(answer))
            }
            Err(Trouble(why)) if webhook.ignores_failures => {
                tracing::warn!(%why, "a webhook that may be ignored is ignored");
                Ok(None)
            }
            Err(Trouble(why)) => Err(internal(why)),
        }
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
            Err(error) => return Err(internal(error.message)),
        };
        if patched == asked.new {
            return Ok(false);
        }
        self.accept(object, patched, &asked.resource).await.map_err(|error| {
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
