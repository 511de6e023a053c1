//! Amounts by resource.

use std::collections::BTreeMap;

use claw_schemas::{
    needs,
    quantity::{Family, Quantity},
};
use serde_json::{Map, Value};

/// An exact amount, and the suffixes in which it is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Thousandths of the resource's unit.
    pub milli: i128,
    family: Family,
}

/// Amounts by resource, ordered by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, Amount>);

impl Amount {
    /// A count of objects.
    pub fn count(count: usize) -> Self {
        Self { milli: i128::try_from(count).unwrap_or(i128::MAX / 1000) * 1000, family: Family::Decimal }
    }

    /// From JSON; what is no quantity is nothing.
    pub fn of(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        let quantity: Quantity = text.parse().ok()?;
        Some(Self { milli: quantity.milli(), family: Family::of(text) })
    }

    /// The sum. It is shown as the first amount that is not zero.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let family = if self.milli == 0 { other.family } else { self.family };
        Self { milli: self.milli.saturating_add(other.milli), family }
    }

    /// The difference, which may be negative.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.plus(Self { milli: -other.milli, ..other })
    }

    /// As many times.
    #[must_use]
    pub fn times(self, count: usize) -> Self {
        let count = i128::try_from(count).unwrap_or(i128::MAX);
        Self { milli: self.milli.saturating_mul(count), ..self }
    }

    /// The canonical text.
    pub fn text(self) -> String {
        Quantity::from_milli(self.milli).text(self.family)
    }
}

impl Amounts {
    /// From JSON: a map of quantities.
    pub fn of(map: &Value) -> Self {
        let entries = map.as_object().into_iter().flatten();
        Self(entries.filter_map(|(name, value)| Some((name.clone(), Amount::of(value)?))).collect())
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let entries = self.iter().map(|(name, amount)| (name.to_owned(), amount.text().into()));
        Value::Object(entries.collect::<Map<_, _>>())
    }

    /// That of one resource.
    pub fn get(&self, name: &str) -> Option<Amount> {
        self.0.get(name).copied()
    }

    /// Whether there is one of a resource.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Sets one.
    pub fn set(&mut self, name: impl Into<String>, amount: Amount) {
        self.0.insert(name.into(), amount);
    }

    /// Adds to one.
    pub fn add(&mut self, name: &str, amount: Amount) {
        match self.0.get_mut(name) {
            Some(sum) => *sum = sum.plus(amount),
            None => self.set(name, amount),
        }
    }

    /// Adds all of another.
    pub fn add_all(&mut self, more: &Self) {
        more.iter().for_each(|(name, amount)| self.add(name, amount));
    }

    /// Raises each to at least that of another.
    pub fn raise(&mut self, floor: &Self) {
        for (name, amount) in floor.iter() {
            if self.get(name).is_none_or(|own| own.milli < amount.milli) {
                self.set(name, amount);
            }
        }
    }

    /// The amounts of some resources only.
    #[must_use]
    pub fn of_names(&self, wanted: impl Fn(&str) -> bool) -> Self {
        Self(self.iter().filter(|(name, _)| wanted(name)).map(|(name, one)| (name.to_owned(), one)).collect())
    }

    /// All, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Amount)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `cpu=2,memory=1Gi`
    pub fn listed(&self) -> String {
        let parts: Vec<String> =
            self.iter().map(|(name, amount)| format!("{name}={}", amount.text())).collect();
        parts.join(",")
    }
}

impl needs::Amounts for Amounts {
    fn add(&mut self, more: &Self) {
        self.add_all(more);
    }

    fn raise(&mut self, floor: &Self) {
        Self::raise(self, floor);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sums_are_exact_and_shown_in_the_suffixes_of_what_came_first() {
        let mut sum = Amounts::default();
        for (cpu, memory) in [("500m", "1Gi"), ("1", "512Mi"), ("0.25", "1M")] {
            sum.add_all(&Amounts::of(&json!({"cpu": cpu, "memory": memory})));
        }
        assert_eq!(sum.json(), json!({"cpu": "1750m", "memory": "1611612736"}));
        let nothing = Amount::default().plus(Amount::of(&json!("2Gi")).unwrap());
        assert_eq!(nothing.text(), "2Gi");
        assert_eq!(nothing.minus(Amount::of(&json!("3Gi")).unwrap()).text(), "-1Gi");
    }

    #[test]
    fn amounts_are_listed_by_name() {
        let amounts = Amounts::of(&json!({"requests.memory": "1Gi", "pods": "3", "odd": "x"}));
        assert_eq!(amounts.listed(), "pods=3,requests.memory=1Gi");
    }
}
