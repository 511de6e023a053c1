//! Owners who wrote in other versions of a kind: finds those versions, and converts objects for [`crate::fields`].

use std::{collections::BTreeMap, sync::Arc};

use claw_schemas::ApiError;
use serde_json::Value;

use super::{
    ObjectService, apply,
    kinds::{Served, Target},
    object,
    owners::{self, Claims},
    sealed::Sealed,
    update::{Part, Proposal},
};
use crate::fields::{self, Entry, Halt, Lack, Subject, Versions};

impl ObjectService {
    /// What becomes of an object when somebody applies to it. Other proposals stay as they are.
    pub(super) async fn decided(
        &self,
        (target, part): (&Target, Part),
        old: &Sealed,
        proposal: Proposal,
    ) -> Result<Proposal, ApiError> {
        let Proposal { object: config, claims: Claims::Wanted { manager, force }, warnings } = proposal
        else {
            return Ok(proposal);
        };
        let now = owners::now();
        let applied = self.in_versions((target, part), old.entries(), |versions, entries| {
            fields::apply_over_last(versions, &old.object, &config, entries, &manager, force, &now)
        });
        let mut applied = applied.await?;
        object::place(target, &mut applied.object)?;
        Ok(Proposal { object: applied.object, claims: Claims::Applied(applied.entries), warnings })
    }

    /// Asks about owners, as often as it takes until every object that the answer rests on has been converted. That is once
    /// where all of them wrote in the version of this request.
    pub(super) async fn in_versions<T>(
        &self,
        (target, part): (&Target, Part),
        entries: Vec<Entry>,
        ask: impl Fn(&Versions<'_>, Vec<Entry>) -> Result<T, Halt>,
    ) -> Result<T, ApiError> {
        let own = owners::subject(&target.kind, part);
        let others = self.siblings(&target.kind, &entries);
        if others.is_empty() {
            return ask(&Versions::alone(own), entries).map_err(|halt| apply::halted(target, halt));
        }
        let subjects = others.iter().map(|(version, kind)| {
            (version.clone(), Subject { scope: own.scope, ..owners::subject(kind, part) })
        });
        let mut versions = Versions::with(own, subjects.collect());
        loop {
            match ask(&versions, entries.clone()) {
                Err(Halt::Lacks(lack)) => {
                    let converted = converted(&target.kind, &others, &lack).await?;
                    versions.tell(*lack, converted);
                }
                answer => return answer.map_err(|halt| apply::halted(target, halt)),
            }
        }
    }

    /// The kind in the other versions that somebody wrote in, as far as there are such versions.
    fn siblings(&self, kind: &Served, entries: &[Entry]) -> BTreeMap<String, Arc<Served>> {
        let versions = entries.iter().map(|entry| &entry.manager.api_version);
        let others = versions.filter(|version| **version != kind.api_version);
        others.filter_map(|version| Some((version.clone(), self.kinds.sibling(kind, version)?))).collect()
    }
}

async fn converted(
    own: &Arc<Served>,
    others: &BTreeMap<String, Arc<Served>>,
    lack: &Lack,
) -> Result<Value, ApiError> {
    let kind = |version: &str| if version == own.api_version { Some(own) } else { others.get(version) };
    let from = lack.object["apiVersion"].as_str().and_then(kind);
    let (Some(from), Some(to)) = (from, kind(&lack.version)) else {
        return Err(ApiError::internal(format!("no way leads to {} of an object", lack.version)));
    };
    from.converted(to, &lack.object).await
}
