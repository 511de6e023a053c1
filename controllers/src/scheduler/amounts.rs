//! Amounts of resources, as integers: milli-cores for `cpu`, whole units for everything else.
//!
//! What every node has and nearly every pod asks for sits in fixed places, because placing one pod compares hundreds of
//! nodes; devices, and whatever else there may be, sit in a map.

use std::{collections::BTreeMap, sync::Arc};

use claw_schemas::{needs, quantity::Quantity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// The resource that counts pods on a node.
pub const PODS: &str = "pods";

/// The resources with a fixed place, in the order of their names.
const COMMON: [&str; 4] = ["cpu", "ephemeral-storage", "memory", PODS];

/// Four PiB, or more cores than there are. Two thousand times as much can be added up, and taken away again, exactly.
const AMOUNT_MAX: i64 = 1 << 52;

/// Amounts by resource. Absent is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    common: [i64; COMMON.len()],
    others: BTreeMap<Arc<str>, i64>,
}

impl needs::Amounts for Amounts {
    fn add(&mut self, more: &Self) {
        Self::add(self, more);
    }

    fn raise(&mut self, floor: &Self) {
        Self::raise(self, floor);
    }
}

impl Amounts {
    /// From quantities as the API has them; what does not parse is zero, which validation lets nobody store.
    pub fn of(quantities: &BTreeMap<String, Text>) -> Self {
        let mut amounts = Self::default();
        for (resource, text) in quantities {
            let quantity: Quantity = text.0.parse().unwrap_or_default();
            let exact = if resource == "cpu" { quantity.milli() } else { quantity.units() };
            amounts.set(resource, i64::try_from(exact).map_or(AMOUNT_MAX, |amount| amount.min(AMOUNT_MAX)));
        }
        amounts
    }

    /// The amount of one resource.
    pub fn get(&self, resource: &str) -> i64 {
        match place(resource) {
            Some(place) => self.common[place],
            None => self.others.get(resource).copied().unwrap_or(0),
        }
    }

    /// Sets the amount of one resource.
    pub fn set(&mut self, resource: &str, amount: i64) {
        match place(resource) {
            Some(place) => self.common[place] = amount,
            None if amount == 0 => drop(self.others.remove(resource)),
            None => drop(self.others.insert(resource.into(), amount)),
        }
    }

    /// Adds other amounts.
    pub fn add(&mut self, more: &Self) {
        self.combine(more, i64::saturating_add);
    }

    /// Takes other amounts away.
    pub fn subtract(&mut self, less: &Self) {
        self.combine(less, i64::saturating_sub);
    }

    /// Raises each amount to at least that of `floor`.
    pub fn raise(&mut self, floor: &Self) {
        self.combine(floor, i64::max);
    }

    /// Takes over the amounts of another that are not zero.
    pub fn replace(&mut self, with: &Self) {
        with.iter().for_each(|(resource, amount)| self.set(resource, amount));
    }

    fn combine(&mut self, with: &Self, operation: fn(i64, i64) -> i64) {
        for (amount, other) in self.common.iter_mut().zip(with.common) {
            *amount = operation(*amount, other);
        }
        for (resource, other) in &with.others {
            let amount = self.others.entry(Arc::clone(resource)).or_default();
            *amount = operation(*amount, *other);
        }
        if !with.others.is_empty() {
            self.others.retain(|_, amount| *amount != 0);
        }
    }

    /// Every amount that is not zero, common resources first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        let common = COMMON.into_iter().zip(self.common).filter(|(_, amount)| *amount != 0);
        common.chain(self.others.iter().map(|(resource, amount)| (&**resource, *amount)))
    }

    /// The resources of which `self` asks for more than `total` has beside `used`. Asking for nothing is never too much.
    pub fn lacking<'a>(&'a self, total: &'a Self, used: &'a Self) -> impl Iterator<Item = &'a str> {
        let asked = self.common.into_iter().zip(total.common).zip(used.common).zip(COMMON);
        let common = asked
            .filter(|(((asked, total), used), _)| *asked != 0 && *asked > total - used)
            .map(|(_, resource)| resource);
        let others = self.others.iter().map(|(resource, asked)| (&**resource, *asked));
        common.chain(
            others
                .filter(|(resource, asked)| *asked > total.get(resource) - used.get(resource))
                .map(|(resource, _)| resource),
        )
    }

    /// Extended resources: they have a domain in their name (`nvidia.com/gpu`).
    pub fn devices(&self) -> impl Iterator<Item = &Arc<str>> {
        self.others.keys().filter(|resource| resource.contains('/'))
    }
}

fn place(resource: &str) -> Option<usize> {
    COMMON.iter().position(|common| *common == resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(of: &[(&str, &str)]) -> Amounts {
        let text = |(resource, amount): &(&str, &str)| ((*resource).to_owned(), Text((*amount).to_owned()));
        Amounts::of(&of.iter().map(text).collect())
    }

    #[test]
    fn cores_are_counted_in_thousandths_and_all_else_in_units() {
        let all = amounts(&[("cpu", "1500m"), ("memory", "1Ki"), ("nvidia.com/gpu", "2"), ("pods", "0")]);
        let listed: Vec<_> = all.iter().collect();
        assert_eq!(listed, [("cpu", 1500), ("memory", 1024), ("nvidia.com/gpu", 2)]);
        assert_eq!((all.get("nvidia.com/gpu"), all.get("amd.com/gpu")), (2, 0));
    }

    #[test]
    fn what_is_taken_and_given_back_leaves_nothing_behind() {
        let one = amounts(&[("cpu", "1"), ("nvidia.com/gpu", "1")]);
        let mut used = Amounts::default();
        used.add(&one);
        used.add(&one);
        assert_eq!(used.get("nvidia.com/gpu"), 2);
        used.subtract(&one);
        used.subtract(&one);
        assert_eq!(used, Amounts::default());
    }

    #[test]
    fn absurd_amounts_are_given_back_exactly_too() {
        let (small, absurd) = (amounts(&[("memory", "1Gi")]), amounts(&[("memory", "8Ei"), ("a/b", "9e18")]));
        let mut used = Amounts::default();
        for more in [&small, &absurd, &absurd, &small] {
            used.add(more);
        }
        for less in [&absurd, &small, &absurd] {
            used.subtract(less);
        }
        assert_eq!(used, small);
        assert!(absurd.lacking(&small, &used).eq(["memory", "a/b"]));
    }

    #[test]
    fn only_what_is_asked_for_can_be_lacking() {
        let total = amounts(&[("cpu", "2"), ("nvidia.com/gpu", "1")]);
        let overcommitted = amounts(&[("cpu", "3")]);
        let lacking = |asked: &[(&str, &str)], used: &Amounts| -> Vec<String> {
            amounts(asked).lacking(&total, used).map(str::to_owned).collect()
        };
        assert_eq!(lacking(&[("cpu", "2"), ("nvidia.com/gpu", "1")], &Amounts::default()), [""; 0]);
        assert_eq!(lacking(&[("nvidia.com/gpu", "1")], &overcommitted), [""; 0]);
        assert_eq!(
            lacking(&[("cpu", "1m"), ("nvidia.com/gpu", "2"), ("memory", "1")], &overcommitted),
            ["cpu", "memory", "nvidia.com/gpu"]
        );
    }
}
