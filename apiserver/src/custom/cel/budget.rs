//! How much work rules may make.

use std::cell::Cell;

/// Units of one evaluation, and of all rules about one object: the figures of Kubernetes. A unit is a step of an expression
/// or ten bytes of text looked at, of the order of 100 ns: a rule is stopped after 0.1 s, an object's rules after 1 s.
const RULE_UNITS_MAX: u64 = 1_000_000;
const OBJECT_UNITS_MAX: u64 = 10_000_000;

/// Bytes of text that cost as much as one step.
pub(super) const BYTES_PER_UNIT: u64 = 10;

/// The work that may still be done for one object.
pub(in crate::custom) struct Budget {
    object: Cell<u64>,
    rule: Cell<u64>,
}

/// The work is used up.
#[derive(Debug, PartialEq)]
pub(super) struct Spent;

impl Budget {
    /// For the rules of one object.
    pub fn of_object() -> Self {
        Self { object: Cell::new(OBJECT_UNITS_MAX), rule: Cell::new(0) }
    }

    /// What one rule may use of it.
    pub fn begin_rule(&self) {
        self.rule.set(RULE_UNITS_MAX);
    }

    /// Takes units off.
    pub(super) fn charge(&self, units: u64) -> Result<(), Spent> {
        let take = |cell: &Cell<u64>| match cell.get().checked_sub(units) {
            Some(left) => {
                cell.set(left);
                Ok(())
            }
            None => {
                cell.set(0);
                Err(Spent)
            }
        };
        take(&self.rule)?;
        take(&self.object)
    }

    /// Whether nothing is left for further rules.
    pub fn is_spent(&self) -> bool {
        self.object.get() == 0
    }

    pub fn spend_all(&self) {
        self.object.set(0);
    }
}
