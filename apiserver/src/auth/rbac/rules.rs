//! What a rule allows, and which rules are part of which.
//!
//! Pure. The rules of matching are those of `rbac.authorization.k8s.io/v1`: `*` stands for everything in verbs, groups
//! and resources, `*/scale` for that subresource of every resource, a trailing `*` for the rest of a path.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::auth::{
    Action,
    action::{What, joined},
};

/// Everything, in one word.
const ALL: &str = "*";

/// Whether a rule allows a deed.
pub fn allows(rule: &PolicyRule, action: &Action<'_>) -> bool {
    if !has_or_all(&rule.verbs, action.verb) {
        return false;
    }
    match action.what {
        What::Path(path) => list(&rule.non_resource_urls).iter().any(|allowed| path_covers(allowed, path)),
        What::Objects { group, plural, subresource, name, .. } => {
            has_or_all(list(&rule.api_groups), group)
                && list(&rule.resources).iter().any(|allowed| resource_is(allowed, plural, subresource))
                && is_named(list(&rule.resource_names), name)
        }
    }
}

/// What of `wanted` the `held` rules do not allow, taken apart as far as it must be.
pub fn missing<'a>(
    held: impl Iterator<Item = &'a PolicyRule> + Clone,
    wanted: &[PolicyRule],
) -> Vec<PolicyRule> {
    let is_held = |part: &PolicyRule| held.clone().any(|rule| covers(rule, part));
    wanted.iter().flat_map(parts).filter(|part| !is_held(part)).collect()
}

/// How many [`parts`] a rule has.
pub fn size(rule: &PolicyRule) -> usize {
    let count = |field| list(field).len();
    let objects = count(&rule.api_groups)
        .saturating_mul(count(&rule.resources))
        .saturating_mul(count(&rule.resource_names).max(1));
    rule.verbs.len().saturating_mul(objects.saturating_add(count(&rule.non_resource_urls)))
}

/// A rule as rules of one verb on one thing each.
fn parts(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    let one = |text: &String| Some(vec![text.clone()]);
    for verb in &rule.verbs {
        let verbs = vec![verb.clone()];
        for group in list(&rule.api_groups) {
            for resource in list(&rule.resources) {
                let part = PolicyRule {
                    api_groups: one(group),
                    resources: one(resource),
                    verbs: verbs.clone(),
                    ..PolicyRule::default()
                };
                let names = list(&rule.resource_names);
                if names.is_empty() {
                    parts.push(part);
                } else {
                    let named =
                        names.iter().map(|name| PolicyRule { resource_names: one(name), ..part.clone() });
                    parts.extend(named);
                }
            }
        }
        let paths = list(&rule.non_resource_urls).iter();
        parts.extend(paths.map(|path| PolicyRule {
            non_resource_urls: one(path),
            verbs: verbs.clone(),
            ..PolicyRule::default()
        }));
    }
    parts
}

/// Whether a rule allows all that a part, as [`parts`] makes them, does.
fn covers(rule: &PolicyRule, part: &PolicyRule) -> bool {
    let all = |held: &[String], wanted: &[String]| wanted.iter().all(|one| has_or_all(held, one));
    if !all(&rule.verbs, &part.verbs) {
        return false;
    }
    if part.non_resource_urls.is_some() {
        let paths = list(&rule.non_resource_urls);
        return list(&part.non_resource_urls)
            .iter()
            .all(|wanted| paths.iter().any(|held| path_covers(held, wanted)));
    }
    let (names, wanted_names) = (list(&rule.resource_names), list(&part.resource_names));
    all(list(&rule.api_groups), list(&part.api_groups))
        && list(&part.resources).iter().all(|wanted| {
            let (plural, subresource) = wanted.split_once('/').unwrap_or((wanted, ""));
            list(&rule.resources).iter().any(|held| resource_is(held, plural, subresource))
        })
        && (names.is_empty()
            || !wanted_names.is_empty() && wanted_names.iter().all(|name| names.contains(name)))
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`: how upstream prints a rule to people.
pub fn describe(rule: &PolicyRule) -> String {
    let mut fields = Vec::new();
    for (name, values) in [
        ("APIGroups", list(&rule.api_groups)),
        ("NonResourceURLs", list(&rule.non_resource_urls)),
        ("ResourceNames", list(&rule.resource_names)),
        ("Resources", list(&rule.resources)),
        ("Verbs", &rule.verbs),
    ] {
        if !values.is_empty() {
            let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
            fields.push(format!("{name}:[{}]", quoted.join(" ")));
        }
    }
    format!("{{{}}}", fields.join(", "))
}

/// The smallest rule that allows a deed.
pub fn smallest(action: &Action<'_>) -> PolicyRule {
    let one = |text: &str| Some(vec![text.to_owned()]);
    let verbs = vec![action.verb.to_owned()];
    match action.what {
        What::Path(path) => PolicyRule { non_resource_urls: one(path), verbs, ..PolicyRule::default() },
        What::Objects { group, plural, subresource, .. } => PolicyRule {
            api_groups: one(group),
            resources: Some(vec![joined(plural, subresource)]),
            verbs,
            ..PolicyRule::default()
        },
    }
}

fn list(field: &Option<Vec<String>>) -> &[String] {
    field.as_deref().unwrap_or_default()
}

fn has_or_all(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == ALL || one == wanted)
}

/// No names in a rule mean all of them; some mean that a collection is out of its reach.
fn is_named(names: &[String], name: &str) -> bool {
    names.is_empty() || !name.is_empty() && names.iter().any(|one| one == name)
}

fn resource_is(allowed: &str, plural: &str, subresource: &str) -> bool {
    if allowed == ALL {
        return true;
    }
    match allowed.split_once('/') {
        None => subresource.is_empty() && allowed == plural,
        Some((of, sub)) => !subresource.is_empty() && sub == subresource && (of == ALL || of == plural),
    }
}

fn path_covers(allowed: &str, path: &str) -> bool {
    match allowed.strip_suffix(ALL) {
        Some(start) => path.starts_with(start),
        None => allowed == path,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A rule from words: verbs, groups, resources, names, each list separated by commas; `-` is the core group.
    pub fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> PolicyRule {
        let words = |text: &str| -> Vec<String> {
            text.split(',').filter(|word| !word.is_empty()).map(|word| word.replace('-', "")).collect()
        };
        let some = |text: &str| Some(words(text)).filter(|words| !words.is_empty());
        PolicyRule {
            verbs: words(verbs),
            api_groups: some(groups),
            resources: some(resources),
            resource_names: some(names),
            non_resource_urls: None,
        }
    }

    fn paths(verbs: &str, paths: &[&str]) -> PolicyRule {
        PolicyRule {
            non_resource_urls: Some(paths.iter().map(|path| (*path).to_owned()).collect()),
            ..rule(verbs, "", "", "")
        }
    }

    fn action<'a>(verb: &'a str, group: &'a str, resource: &'a str, name: &'a str) -> Action<'a> {
        let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Action {
            verb,
            what: What::Objects { group, plural, subresource, namespace: "default", name },
            fields: None,
        }
    }

    #[test]
    fn a_rule_allows_what_it_says_and_nothing_else() {
        for (rule, action, expected) in [
            (rule("get", "-", "pods", ""), action("get", "", "pods", "x"), true),
            (rule("get", "-", "pods", ""), action("list", "", "pods", ""), false),
            (rule("get", "-", "pods", ""), action("get", "apps", "pods", ""), false),
            (rule("*", "*", "*", ""), action("impersonate", "x", "y/z", "n"), true),
            (rule("*", "*", "*", ""), Action::at("get", "/version"), false),
            (rule("get", "-", "pods", ""), action("get", "", "pods/log", "x"), false),
            (rule("get", "-", "pods/log", ""), action("get", "", "pods/log", "x"), true),
            (rule("get", "-", "pods/log", ""), action("get", "", "pods", "x"), false),
            (rule("get", "*", "*/scale", ""), action("get", "apps", "deployments/scale", "x"), true),
            (rule("get", "*", "*/scale", ""), action("get", "apps", "deployments", "x"), false),
            (rule("get,list", "-", "pods", "a,b"), action("get", "", "pods", "b"), true),
            (rule("get,list", "-", "pods", "a,b"), action("get", "", "pods", "c"), false),
            (rule("get,list", "-", "pods", "a,b"), action("list", "", "pods", ""), false),
            (paths("get", &["/apis/*", "/version"]), Action::at("get", "/apis/apps"), true),
            (paths("get", &["/apis/*", "/version"]), Action::at("get", "/version/x"), false),
            (paths("get", &["*"]), Action::at("get", "/anything"), true),
            (paths("*", &["*"]), action("get", "", "pods", ""), false),
        ] {
            assert_eq!(allows(&rule, &action), expected, "{} {action:?}", describe(&rule));
        }
    }

    #[test]
    fn what_is_not_held_is_named_piece_by_piece() {
        let held = [rule("get,list", "-", "pods,services", ""), rule("*", "apps", "*", "")];
        let wanted = [rule("get,delete", "-,apps", "pods,secrets", ""), rule("get", "-", "pods", "a")];
        let lacking: Vec<String> = missing(held.iter(), &wanted).iter().map(describe).collect();
        assert_eq!(wanted.iter().map(size).sum::<usize>(), wanted.iter().flat_map(parts).count());
        assert_eq!(
            lacking,
            [
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#,
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}"#,
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["delete"]}"#,
            ]
        );
    }

    #[test]
    fn only_everything_covers_everything() {
        let all = [rule("*", "*", "*", ""), paths("*", &["*"])];
        let nearly = [rule("get,list", "*", "*", "")];
        assert!(missing(all.iter(), &all).is_empty());
        assert_eq!(missing(nearly.iter(), &all).len(), 2);
        let named = [rule("get", "-", "pods", "a,b")];
        assert!(missing(named.iter(), &[rule("get", "-", "pods", "a")]).is_empty());
        assert_eq!(missing(named.iter(), &[rule("get", "-", "pods", "")]).len(), 1);
        assert!(missing([paths("get", &["/apis/*"])].iter(), &[paths("get", &["/apis/apps/*"])]).is_empty());
        assert_eq!(missing([paths("get", &["/apis"])].iter(), &[paths("get", &["/apis/*"])]).len(), 1);
        let scale = [rule("get", "*", "*/scale", "")];
        assert!(missing(scale.iter(), &[rule("get", "apps", "deployments/scale", "")]).is_empty());
    }
}
