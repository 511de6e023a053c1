//! A quota's account: what its status says is used, and what a write of an object adds to it or gives back.

use serde_json::Value;

use super::{
    Amount, Amounts, scopes,
    usage::{self, By, Kind},
};

/// Why a quota does not let an object in, in the words of upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is not as much left.
    #[error("exceeded quota: {quota}, requested: {requested}, used: {used}, limited: {limited}")]
    Exceeded {
        /// Its name.
        quota: String,
        /// What the write asks for, of the resources that do not suffice.
        requested: String,
        /// What is used of them.
        used: String,
        /// What there is of them.
        limited: String,
    },
    /// Containers leave open how much they need of what is limited.
    #[error("failed quota: {quota}: must specify {missing}")]
    Unsaid {
        /// Its name.
        quota: String,
        /// `limits.cpu for: a,b; requests.cpu for: a`
        missing: String,
    },
}

/// A stored quota.
#[derive(Clone, Copy)]
pub struct Quota<'q>(pub &'q Value);

impl Quota<'_> {
    /// What there is.
    pub fn hard(self) -> Amounts {
        Amounts::of(&self.0["spec"]["hard"])
    }

    /// What its status says is used.
    pub fn used(self) -> Amounts {
        Amounts::of(&self.0["status"]["used"])
    }

    /// Whether the status is about what the quota limits now. Else it has to be counted again.
    pub fn is_counted(self) -> bool {
        let (hard, used) = (self.hard(), self.used());
        Amounts::of(&self.0["status"]["hard"]) == hard && hard.iter().all(|(name, _)| used.has(name))
    }

    /// Whether it limits anything that objects of a kind use.
    pub fn is_about(self, kind: &Kind) -> bool {
        let covers = kind.is_pod() || !scopes::are_set(self.0);
        covers && self.hard().iter().any(|(name, _)| kind.is_about(name))
    }

    /// What an object uses of it.
    pub fn usage(self, kind: &Kind, object: &Value) -> Amounts {
        let covers = if kind.is_pod() { scopes::cover(self.0, object) } else { !scopes::are_set(self.0) };
        if !covers {
            return Amounts::default();
        }
        let hard = self.hard();
        kind.usage(object).of_names(|name| hard.has(name))
    }

    /// What objects of a kind use of it together.
    pub fn usage_of_all<'o>(self, kind: &Kind, objects: impl ExactSizeIterator<Item = &'o Value>) -> Amounts {
        let mut sum = Amounts::default();
        if kind.by() == By::Being {
            let count = objects.len();
            for (name, one) in self.usage(kind, &Value::Null).iter() {
                sum.set(name, one.times(count));
            }
            return sum;
        }
        objects.for_each(|object| sum.add_all(&self.usage(kind, object)));
        sum
    }

    /// What the account has to change by when an object takes the place of another. Nothing stands for none.
    pub fn difference(self, kind: &Kind, old: Option<&Value>, new: Option<&Value>) -> Amounts {
        let mut difference = new.map(|new| self.usage(kind, new)).unwrap_or_default();
        for (name, amount) in old.map(|old| self.usage(kind, old)).unwrap_or_default().iter() {
            let more = difference.get(name).unwrap_or_default();
            difference.set(name, more.minus(amount));
        }
        let unchanged = |name: &str| difference.get(name).is_some_and(|amount| amount.milli == 0);
        difference.of_names(|name| !unchanged(name))
    }

    /// What is used after a difference.
    ///
    /// # Errors
    /// When more would be used than there is.
    pub fn after(self, used: &Amounts, difference: &Amounts) -> Result<Amounts, Refusal> {
        let (hard, mut after) = (self.hard(), used.clone());
        for (name, amount) in difference.iter() {
            // An account that was wrong never goes below nothing; the next count puts it right.
            let sum = after.get(name).unwrap_or_default().plus(amount);
            after.set(name, if sum.milli < 0 { Amount::default() } else { sum });
        }
        let exceeded = |name: &str| {
            let of = |amounts: &Amounts| amounts.get(name).unwrap_or_default().milli;
            of(difference) > 0 && of(&after) > of(&hard)
        };
        let requested = difference.of_names(exceeded);
        if requested.is_empty() {
            return Ok(after);
        }
        let of_these = |amounts: &Amounts| amounts.of_names(|name| requested.has(name)).listed();
        Err(Refusal::Exceeded {
            quota: self.name(),
            requested: requested.listed(),
            used: of_these(used),
            limited: of_these(&hard),
        })
    }

    /// Whether a new pod says all that it has to say.
    ///
    /// # Errors
    /// When it does not.
    pub fn require(self, kind: &Kind, new: &Value) -> Result<(), Refusal> {
        if !kind.is_pod() || !scopes::cover(self.0, new) {
            return Ok(());
        }
        let missing = usage::unsaid(new, &self.hard());
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.iter().map(|(resource, names)| format!("{resource} for: {}", names.join(",")));
        Err(Refusal::Unsaid { quota: self.name(), missing: missing.collect::<Vec<_>>().join("; ") })
    }

    fn name(self) -> String {
        self.0["metadata"]["name"].as_str().unwrap_or_default().to_owned()
    }
}

/// Writes into a quota what is used.
pub fn set_used(quota: &mut Value, used: &Amounts) {
    let hard = quota["spec"]["hard"].clone();
    let names = Amounts::of(&hard);
    let mut listed = used.of_names(|name| names.has(name));
    for (name, _) in names.iter().filter(|(name, _)| !used.has(name)) {
        listed.set(name, Amount::default());
    }
    let status = &mut quota["status"];
    status["hard"] = if hard.is_null() { Value::Object(serde_json::Map::new()) } else { hard };
    status["used"] = listed.json();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods() -> Kind {
        Kind { group: String::new(), plural: "pods".to_owned() }
    }

    fn pod(cpu: &str, phase: &str) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}, "status": {"phase": phase}})
    }

    fn quota(hard: Value, used: Value) -> Value {
        json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
    }

    fn charged(quota: &Value, old: Option<&Value>, new: Option<&Value>) -> Result<Value, String> {
        let quota = Quota(quota);
        let difference = quota.difference(&pods(), old, new);
        quota.after(&quota.used(), &difference).map(|used| used.json()).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn what_fits_is_added_and_what_does_not_is_named() {
        let quota =
            quota(json!({"requests.cpu": "2", "pods": "3"}), json!({"requests.cpu": "1500m", "pods": "2"}));
        let fits = charged(&quota, None, Some(&pod("500m", "Pending")));
        assert_eq!(fits, Ok(json!({"requests.cpu": "2", "pods": "3"})));
        let refused = charged(&quota, None, Some(&pod("501m", "Pending")));
        let said = "exceeded quota: q, requested: requests.cpu=501m, used: requests.cpu=1500m, limited: requests.cpu=2";
        assert_eq!(refused, Err(said.to_owned()));
    }

    #[test]
    fn several_resources_that_do_not_suffice_are_listed_by_name() {
        let full =
            quota(json!({"requests.cpu": "1", "pods": "1"}), json!({"requests.cpu": "1", "pods": "1"}));
        let said = "exceeded quota: q, requested: pods=1,requests.cpu=1, used: pods=1,requests.cpu=1, limited: pods=1,requests.cpu=1";
        assert_eq!(charged(&full, None, Some(&pod("1", "Pending"))), Err(said.to_owned()));
    }

    #[test]
    fn what_ends_or_goes_gives_back_and_nothing_changes_for_nothing() {
        let quota =
            quota(json!({"requests.cpu": "2", "pods": "3"}), json!({"requests.cpu": "2", "pods": "2"}));
        let (running, over) = (pod("1", "Running"), pod("1", "Succeeded"));
        let given_back = Ok(json!({"requests.cpu": "1", "pods": "1"}));
        assert_eq!(charged(&quota, Some(&running), Some(&over)), given_back);
        assert_eq!(charged(&quota, Some(&running), None), given_back);
        assert!(Quota(&quota).difference(&pods(), Some(&over), None).is_empty());
        assert!(Quota(&quota).difference(&pods(), Some(&running), Some(&running)).is_empty());
    }

    #[test]
    fn who_gives_back_is_let_through_even_where_too_much_is_used() {
        let over =
            quota(json!({"requests.cpu": "1", "pods": "1"}), json!({"requests.cpu": "5", "pods": "4"}));
        assert_eq!(
            charged(&over, Some(&pod("1", "Running")), None),
            Ok(json!({"requests.cpu": "4", "pods": "3"}))
        );
        let wrong = quota(json!({"pods": "1"}), json!({"pods": "0"}));
        assert_eq!(charged(&wrong, Some(&pod("1", "Running")), None), Ok(json!({"pods": "0"})));
    }

    #[test]
    fn a_status_is_an_account_only_of_what_is_limited_now() {
        let mut quota = json!({"spec": {"hard": {"pods": "2", "secrets": "5"}}});
        assert!(!Quota(&quota).is_counted());
        set_used(&mut quota, &Amounts::of(&json!({"pods": "1", "configmaps": "7"})));
        assert_eq!(quota["status"]["used"], json!({"pods": "1", "secrets": "0"}));
        assert!(Quota(&quota).is_counted());
        quota["spec"]["hard"]["pods"] = json!("3");
        assert!(!Quota(&quota).is_counted());
    }

    #[test]
    fn quotas_with_scopes_are_about_pods_alone() {
        let scoped = json!({"spec": {"hard": {"pods": "1", "count/secrets": "1"}, "scopes": ["BestEffort"]}});
        let secrets = Kind { group: String::new(), plural: "secrets".to_owned() };
        assert!(Quota(&scoped).is_about(&pods()) && !Quota(&scoped).is_about(&secrets));
        assert!(Quota(&scoped).usage(&pods(), &pod("1", "Pending")).is_empty());
    }

    #[test]
    fn what_must_be_said_is_said_by_resource_and_container() {
        let hard = quota(json!({"limits.cpu": "1", "requests.cpu": "1"}), json!({}));
        let silent = json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}]}});
        let said = "failed quota: q: must specify limits.cpu for: a,b; requests.cpu for: a,b";
        assert_eq!(Quota(&hard).require(&pods(), &silent).unwrap_err().to_string(), said);
        assert_eq!(
            Quota(&hard).require(&Kind { group: String::new(), plural: "secrets".into() }, &silent),
            Ok(())
        );
    }

    #[test]
    fn kinds_that_only_count_are_counted_without_being_read() {
        let quota = json!({"spec": {"hard": {"count/widgets.example.com": "9"}}});
        let widgets = Kind { group: "example.com".into(), plural: "widgets".into() };
        let none = Value::Null;
        let all = Quota(&quota).usage_of_all(&widgets, [&none, &none, &none].into_iter());
        assert_eq!(all.listed(), "count/widgets.example.com=3");
    }
}
