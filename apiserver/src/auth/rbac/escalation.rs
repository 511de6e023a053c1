//! That nobody gives away more than they have, and how people are told what they lack.
//!
//! Pure. Who writes a role must hold every rule of it or may `escalate` it; who binds one must hold its rules or may
//! `bind` it.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::{SERVICE_ACCOUNT_PREFIX, rules};
use crate::auth::{Action, Identity, action::What};

/// Parts of a rule that a refusal lists; a role of everything has as many as there are verbs and kinds.
const LISTED_MAX: usize = 20;

/// Parts that are compared with what somebody holds. A rule has a part for each verb on each thing by each name, so a
/// few thousand words make more parts than there is memory; no role that people write comes near.
const PARTS_MAX: usize = 10_000;

/// Every rule there is: what one must hold to hand out by selectors what is not known yet.
pub fn everything() -> [PolicyRule; 2] {
    let all = || Some(vec!["*".to_owned()]);
    let verbs = vec!["*".to_owned()];
    [
        PolicyRule { api_groups: all(), resources: all(), verbs: verbs.clone(), ..PolicyRule::default() },
        PolicyRule { non_resource_urls: all(), verbs, ..PolicyRule::default() },
    ]
}

/// The words of the refusal, when `held` lacks anything of `wanted`.
pub fn refusal(who: &Identity, held: &[Arc<[PolicyRule]>], wanted: &[PolicyRule]) -> Option<String> {
    if wanted.iter().map(rules::size).fold(0, usize::saturating_add) > PARTS_MAX {
        return Some(format!(
            "its rules have more than {PARTS_MAX} combinations of verbs, things and names: split it into smaller roles"
        ));
    }
    let lacking = rules::missing(held.iter().flat_map(|rules| rules.iter()), wanted);
    if lacking.is_empty() {
        return None;
    }
    let more = lacking.len().saturating_sub(LISTED_MAX);
    let mut lines: Vec<String> = lacking.iter().take(LISTED_MAX).map(rules::describe).collect();
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    Some(format!(
        "user \"{}\" (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        who.user,
        who.groups,
        lines.join("\n")
    ))
}

/// What is missing, and the commands that would give it.
pub fn advice(who: &Identity, action: &Action<'_>, dangling: &[String]) -> String {
    let rule = rules::describe(&rules::smallest(action));
    let (namespace, on) = (action.namespace(), on(action));
    let (role, place) = match namespace {
        "" => ("clusterrole", String::new()),
        namespace => ("role", format!(" -n {namespace}")),
    };
    let subject = match who.user.strip_prefix(SERVICE_ACCOUNT_PREFIX) {
        Some(account) => format!("--serviceaccount={account}"),
        None => format!("--user={}", who.user),
    };
    let mut text = format!(
        "no role that is bound to this user has the rule {rule}; an administrator can give it: \
         kubectl create {role} NAME --verb={} {on}{place}, then kubectl create {role}binding NAME --{role}=NAME {subject}{place}",
        action.verb
    );
    if !dangling.is_empty() {
        text += &format!("; RBAC: [{}]", dangling.join(", "));
    }
    text
}

fn on(action: &Action<'_>) -> String {
    match action.what {
        What::Path(path) => format!("--non-resource-url={path}"),
        What::Objects { group, plural, subresource, .. } => {
            let dot = if group.is_empty() { "" } else { "." };
            let slash = if subresource.is_empty() { "" } else { "/" };
            format!("--resource={plural}{dot}{group}{slash}{subresource}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::rbac::rules::tests::rule;

    #[test]
    fn a_refusal_lists_what_is_lacking() {
        let who = Identity::of("eve", &["devs"]);
        let held: Arc<[PolicyRule]> = [rule("get", "-", "pods", "")].into();
        assert_eq!(refusal(&who, std::slice::from_ref(&held), &[rule("get", "-", "pods", "x")]), None);
        assert_eq!(
            refusal(&who, &[held], &[rule("get,delete", "-", "pods", "")]).unwrap(),
            "user \"eve\" (groups=[\"devs\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
        );
        let many: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
        let huge = PolicyRule {
            verbs: many.clone(),
            api_groups: Some(many.clone()),
            resources: Some(many.clone()),
            resource_names: Some(many),
            ..PolicyRule::default()
        };
        let everything_held: Arc<[PolicyRule]> = everything().into();
        assert!(refusal(&who, &[everything_held], &[huge]).unwrap().contains("split it"));
        let all = refusal(&who, &[], &everything()).unwrap();
        assert!(all.contains(r#"{NonResourceURLs:["*"], Verbs:["*"]}"#), "{all}");
    }

    #[test]
    fn advice_is_a_command_that_works() {
        let what = What::Objects {
            group: "apps",
            plural: "deployments",
            subresource: "scale",
            namespace: "team",
            name: "",
        };
        let who = Identity::of("system:serviceaccount:team:bot", &[]);
        let text = advice(&who, &Action { verb: "patch", what, fields: None }, &[]);
        assert!(
            text.contains("kubectl create role NAME --verb=patch --resource=deployments.apps/scale -n team"),
            "{text}"
        );
        assert!(text.contains("--role=NAME --serviceaccount=team:bot -n team"), "{text}");
        let text = advice(&Identity::of("eve", &[]), &Action::at("get", "/metrics"), &["x not found".into()]);
        assert!(
            text.contains("kubectl create clusterrole NAME --verb=get --non-resource-url=/metrics"),
            "{text}"
        );
        assert!(text.ends_with("RBAC: [x not found]"), "{text}");
    }
}
