//! Puts a configuration over an object: leaves are replaced, structures, maps and lists that can be shared are merged.
//!
//! Nothing is removed here. Items of lists come in the order of the configuration; items that only the object has stay
//! where they were relative to the shared ones.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    element::Element,
    form::{self, At, Form},
};

/// The object under the configuration, which [`super::extract::check`] found sound.
pub(super) fn merge(live: &Value, config: &Value, at: At<'_>) -> Value {
    match (Form::of(config, at), live, config) {
        (Form::Fields, Value::Object(live), Value::Object(config)) => Value::Object(fields(live, config, at)),
        (form @ (Form::Values | Form::Items(_)), Value::Array(live), Value::Array(config)) => {
            Value::Array(Lists::new(live, config, form, form::items(at)).merge())
        }
        (_, _, config) => config.clone(),
    }
}

fn fields(live: &Map<String, Value>, config: &Map<String, Value>, at: At<'_>) -> Map<String, Value> {
    let mut merged = live.clone();
    for (name, wanted) in config {
        let value = match live.get(name) {
            Some(found) => merge(found, wanted, form::field(at, name)),
            None => wanted.clone(),
        };
        merged.insert(name.clone(), value);
    }
    merged
}

/// Two lists of items that can be told apart.
struct Lists<'a> {
    /// Items that cannot be told apart have no step.
    live: Vec<(Option<Element>, &'a Value)>,
    /// Steps that are there once; `None` where several items share one, which are replaced rather than merged.
    found: BTreeMap<Element, Option<&'a Value>>,
    config: Vec<(Element, &'a Value)>,
    at: At<'a>,
}

impl<'a> Lists<'a> {
    fn new(live: &'a [Value], config: &'a [Value], form: Form<'_>, at: At<'a>) -> Self {
        let live: Vec<_> = live.iter().map(|item| (form.item(item).ok(), item)).collect();
        let mut found = BTreeMap::new();
        for (element, item) in &live {
            if let Some(element) = element {
                found.entry(element.clone()).and_modify(|known| *known = None).or_insert(Some(*item));
            }
        }
        let config = config.iter().filter_map(|item| Some((form.item(item).ok()?, item))).collect();
        Self { live, found, config, at }
    }

    /// Walks the configuration. Before a shared item come those that only the object has and that stand before it there.
    fn merge(&self) -> Vec<Value> {
        let wanted: BTreeSet<&Element> = self.config.iter().map(|(element, _)| element).collect();
        let is_shared = |element: &Option<Element>| element.as_ref().is_some_and(|one| wanted.contains(one));
        let mut merged = Vec::with_capacity(self.live.len() + self.config.len());
        let mut live = self.live.iter().peekable();
        let mut next = 0;
        while next < self.config.len() {
            // Up to and with the next shared item.
            let shared = self.config[next..].iter().position(|(one, _)| self.found.contains_key(one));
            let end = shared.map_or(self.config.len(), |at| next + at + 1);
            let target = shared.map(|_| &self.config[end - 1].0);
            while let Some((element, item)) =
                live.next_if(|(one, _)| target.is_none() || one.as_ref() != target)
            {
                if !is_shared(element) {
                    merged.push((*item).clone());
                }
            }
            merged.extend(self.config[next..end].iter().map(|(element, wanted)| self.item(element, wanted)));
            next = end;
        }
        merged.extend(live.filter(|(one, _)| !is_shared(one)).map(|(_, item)| (*item).clone()));
        merged
    }

    fn item(&self, element: &Element, wanted: &Value) -> Value {
        match self.found.get(element) {
            Some(Some(found)) => merge(found, wanted, self.at),
            _ => wanted.clone(),
        }
    }
}
