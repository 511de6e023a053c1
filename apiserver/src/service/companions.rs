//! The writes that go with that of an object, in one transaction with it: what it takes and what it gives back.

use claw_schemas::ApiError;
use serde_json::Value;

use super::{ObjectService, kinds::Target, quotas::Turn};
use crate::store::Write;

/// Writes to commit before that of the object itself.
#[derive(Default)]
pub(super) struct Companions {
    pub writes: Vec<Write>,
    /// Held until they are committed.
    pub turn: Option<Turn>,
}

impl ObjectService {
    /// What goes with an object taking the place of another. Nothing stands for none. A new service that names no
    /// address, or lacks node ports, is given them.
    pub(super) async fn companions(
        &self,
        target: &Target,
        old: Option<&Value>,
        mut new: Option<&mut Value>,
    ) -> Result<Companions, ApiError> {
        let mut writes = self.address_writes(target, old, new.as_deref_mut()).await?;
        writes.extend(self.node_port_writes(target, old, new.as_deref_mut()).await?);
        let charged = self.charge(target, old, new.as_deref()).await?;
        writes.extend(charged.writes);
        // No object of the cluster uses quotas, so there is one turn at most.
        let turn = match charged.turn {
            Some(turn) => Some(turn),
            None => self.admit_default_class(target, new.as_deref()).await?,
        };
        Ok(Companions { writes, turn })
    }
}
