//! Which requests somebody is asked about: rules on operations and kinds, selectors on namespaces and objects.
//!
//! Source: "Matching requests" in the Kubernetes documentation "Dynamic Admission Control".

use claw_schemas::selector::LabelSelector;
use serde_json::Value;

use super::{Attributes, Resource};

/// What somebody wants to be asked about.
pub(crate) struct Matching {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// Whether a kind in another version is meant, too.
    is_equivalent: bool,
    /// Of the namespace. Empty for any.
    pub namespaces: LabelSelector,
    /// Of the object, as it was or as it is to be. Empty for any.
    objects: LabelSelector,
}

struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// With their subresource, which may be empty.
    resources: Vec<(String, String)>,
    /// `*`, `Cluster` or `Namespaced`
    scope: String,
    /// Empty for any.
    names: Vec<String>,
}

impl Matching {
    /// Of a webhook, whose rules are in `rules`.
    pub fn of_webhook(declared: &Value) -> Self {
        Self::new(declared, "rules")
    }

    /// Of a policy or a binding, whose rules are in `resourceRules`. Without any it is about everything.
    pub fn of_policy(declared: &Value) -> Self {
        let matching = Self::new(declared, "resourceRules");
        if matching.rules.is_empty() { Self { rules: vec![Rule::any()], ..matching } } else { matching }
    }

    fn new(declared: &Value, rules: &str) -> Self {
        Self {
            rules: Rule::all(&declared[rules]),
            excluded: Rule::all(&declared["excludeResourceRules"]),
            is_equivalent: declared["matchPolicy"] != "Exact",
            namespaces: selector(&declared["namespaceSelector"]),
            objects: selector(&declared["objectSelector"]),
        }
    }

    /// The resource as which somebody wants to be asked about a request: the request's own, or one of those that show the
    /// same objects.
    pub fn resource(&self, attributes: &Attributes, others: &[Resource]) -> Option<Resource> {
        let find = |rules: &[Rule]| {
            let own = rules.iter().any(|rule| rule.matches(attributes, &attributes.resource));
            if own {
                return Some(attributes.resource.clone());
            }
            let others = others.iter().filter(|_| self.is_equivalent);
            let mut pairs = rules.iter().flat_map(|rule| others.clone().map(move |other| (rule, other)));
            pairs.find(|(rule, other)| rule.matches(attributes, other)).map(|(_, other)| other.clone())
        };
        if find(&self.excluded).is_some() {
            return None;
        }
        find(&self.rules)
    }

    /// Whether the labels of an object, as it was or as it is to be, are those wanted.
    pub fn selects(&self, old: &Value, new: &Value) -> bool {
        let selected = |object: &Value| object.is_object() && selects(&self.objects, object);
        self.objects.is_empty() || selected(new) || selected(old)
    }
}

/// Whether a selector chooses an object.
pub(crate) fn selects(selector: &LabelSelector, object: &Value) -> bool {
    selector.matches_with(|key| object["metadata"]["labels"][key].as_str())
}

/// A selector of an object that has been validated. One that is missing selects everything.
pub(super) fn selector(declared: &Value) -> LabelSelector {
    let parsed = serde_json::from_value(declared.clone()).ok();
    parsed.and_then(|meta| LabelSelector::from_meta(&meta).ok()).unwrap_or_default()
}

impl Rule {
    fn all(declared: &Value) -> Vec<Self> {
        declared.as_array().into_iter().flatten().map(Self::of).collect()
    }

    fn any() -> Self {
        let any = || vec!["*".to_owned()];
        let resources = vec![("*".to_owned(), "*".to_owned())];
        let (scope, names) = ("*".to_owned(), Vec::new());
        Self { operations: any(), groups: any(), versions: any(), resources, scope, names }
    }

    fn of(declared: &Value) -> Self {
        let texts = |field: &str| -> Vec<String> {
            let items = declared[field].as_array().into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let split = |resource: String| match resource.split_once('/') {
            Some((plural, sub)) => (plural.to_owned(), sub.to_owned()),
            None => (resource, String::new()),
        };
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources").into_iter().map(split).collect(),
            scope: declared["scope"].as_str().unwrap_or("*").to_owned(),
            names: texts("resourceNames"),
        }
    }

    fn matches(&self, attributes: &Attributes, resource: &Resource) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        let is_sub = |(plural, sub): &(String, String)| {
            (plural == "*" || *plural == resource.plural) && (sub == "*" || sub == attributes.subresource)
        };
        self.in_scope(attributes)
            && any(&self.operations, attributes.operation.name())
            && any(&self.groups, &resource.group)
            && any(&self.versions, &resource.version)
            && self.resources.iter().any(is_sub)
            && (self.names.is_empty() || self.names.contains(&attributes.name))
    }

    /// A namespace is an object of the cluster, though it is in itself.
    fn in_scope(&self, attributes: &Attributes) -> bool {
        let is_in_one = !attributes.namespace.is_empty() && !attributes.is_namespace();
        match self.scope.as_str() {
            "Namespaced" => is_in_one,
            "Cluster" => !is_in_one,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        admission::{Kind, Operation},
        auth::Identity,
    };

    fn attributes(operation: Operation, group: &str, plural: &str, subresource: &'static str) -> Attributes {
        let resource = Resource { group: group.into(), version: "v1".into(), plural: plural.into() };
        Attributes {
            operation,
            kind: Kind::default(),
            resource,
            subresource,
            namespace: "ns".to_owned(),
            name: "x".to_owned(),
            dry_run: false,
            options: Value::Null,
            who: Identity::anonymous(),
        }
    }

    fn matching(rule: &Value) -> Matching {
        Matching::of_webhook(&json!({"rules": [rule]}))
    }

    #[test]
    fn rules_match_by_operation_group_version_resource_and_subresource() {
        let rule = |resources: &[&str]| json!({"operations": ["CREATE", "UPDATE"], "apiGroups": ["apps", ""], "apiVersions": ["v1"], "resources": resources});
        let asks = |rule: &Value, operation, group: &str, plural: &str, sub| {
            matching(rule).resource(&attributes(operation, group, plural, sub), &[]).is_some()
        };
        assert!(asks(&rule(&["pods"]), Operation::Create, "", "pods", ""));
        assert!(asks(&rule(&["*"]), Operation::Update, "apps", "deployments", ""));
        assert!(!asks(&rule(&["pods"]), Operation::Delete, "", "pods", ""));
        assert!(!asks(&rule(&["pods"]), Operation::Create, "batch", "pods", ""));
        assert!(!asks(&rule(&["pods"]), Operation::Update, "", "pods", "status"), "a subresource is named");
        assert!(!asks(&rule(&["*"]), Operation::Update, "", "pods", "status"));
        assert!(asks(&rule(&["pods/*"]), Operation::Update, "", "pods", "status"));
        assert!(asks(&rule(&["pods/*"]), Operation::Update, "", "pods", ""));
        assert!(asks(&rule(&["*/scale"]), Operation::Update, "apps", "deployments", "scale"));
        assert!(asks(&rule(&["*/*"]), Operation::Update, "apps", "deployments", "scale"));
    }

    #[test]
    fn a_namespace_is_in_the_scope_of_the_cluster() {
        let rule = |scope: &str| {
            matching(
                &json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "scope": scope}),
            )
        };
        let (pod, namespace) = (
            attributes(Operation::Create, "", "pods", ""),
            attributes(Operation::Update, "", "namespaces", ""),
        );
        for (scope, of_pod, of_namespace) in
            [("*", true, true), ("Namespaced", true, false), ("Cluster", false, true)]
        {
            assert_eq!(rule(scope).resource(&pod, &[]).is_some(), of_pod, "{scope}");
            assert_eq!(rule(scope).resource(&namespace, &[]).is_some(), of_namespace, "{scope}");
        }
    }

    #[test]
    fn another_version_counts_unless_the_match_is_to_be_exact() {
        let rule = json!({"operations": ["*"], "apiGroups": ["autoscaling"], "apiVersions": ["v2"], "resources": ["*"]});
        let asked = attributes(Operation::Create, "autoscaling", "hpas", "");
        let v2 = Resource { version: "v2".to_owned(), ..asked.resource.clone() };
        let with = |policy: &str| Matching::of_webhook(&json!({"rules": [rule], "matchPolicy": policy}));
        assert_eq!(with("Equivalent").resource(&asked, std::slice::from_ref(&v2)), Some(v2.clone()));
        assert_eq!(with("Exact").resource(&asked, &[v2]), None);
    }

    #[test]
    fn an_object_is_selected_by_what_it_was_or_will_be() {
        let matching = Matching::of_webhook(&json!({"objectSelector": {"matchLabels": {"a": "b"}}}));
        let (with, without) = (json!({"metadata": {"labels": {"a": "b"}}}), json!({"metadata": {}}));
        assert!(matching.selects(&with, &without) && matching.selects(&Value::Null, &with));
        assert!(!matching.selects(&without, &without) && !matching.selects(&Value::Null, &Value::Null));
        assert!(Matching::of_webhook(&json!({})).selects(&Value::Null, &without));
    }
}
