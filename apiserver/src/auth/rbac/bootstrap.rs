//! The roles and bindings that every cluster has, and how one that users changed is brought up to date.
//!
//! Pure. Source: "Default roles and role bindings" in Kubernetes' documentation. The roles of single controllers are left
//! out: ours act as one component of the server, and other controllers bring their own.

use std::collections::BTreeMap;

use claw_schemas::{api, metrics};
use k8s_openapi::{
    Resource as _,
    api::rbac::v1::{AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use serde_json::{Value, json};

use super::{GROUP, rules};
use crate::auth::{AUTHENTICATED, MASTERS, SERVICE_ACCOUNTS, UNAUTHENTICATED};

/// Set to `false` by whoever wants an object left as it is.
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// Marks what came with the cluster.
const DEFAULTS_LABEL: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const READ_WRITE: &str = "create delete deletecollection get list patch update watch";

/// A role: its name, the role it is part of, and its rules as verbs, group and resources.
type Row = (&'static str, &'static str, &'static [(&'static str, &'static str, &'static str)]);

/// Group "/" stands for paths.
static ROLES: &[Row] = &[
    ("cluster-admin", "", &[("*", "*", "*"), ("*", "/", "*")]),
    ("admin", "", &[]),
    ("edit", "admin", &[]),
    ("view", "edit", &[]),
    (
        "system:aggregate-to-admin",
        "admin",
        &[
            ("create", "authorization.k8s.io", "localsubjectaccessreviews"),
            (READ_WRITE, GROUP, "rolebindings roles"),
        ],
    ),
    (
        "system:aggregate-to-edit",
        "edit",
        &[
            (READ, "", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
            ("impersonate", "", "serviceaccounts"),
            (WRITE, "", "pods pods/attach pods/exec pods/portforward pods/proxy"),
            ("create", "", "pods/eviction serviceaccounts/token"),
            (
                WRITE,
                "",
                "configmaps persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy",
            ),
            (
                WRITE,
                "apps",
                "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale",
            ),
            (WRITE, "autoscaling", "horizontalpodautoscalers"),
            (WRITE, "batch", "cronjobs jobs"),
            (WRITE, api::GROUP, "kerneljobs"),
            (WRITE, "policy", "poddisruptionbudgets"),
            (WRITE, "networking.k8s.io", "ingresses networkpolicies"),
            (READ_WRITE, "coordination.k8s.io", "leases"),
            (WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
        ],
    ),
    (
        "system:aggregate-to-view",
        "view",
        &[
            (
                READ,
                "",
                "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status",
            ),
            (
                READ,
                "",
                "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status",
            ),
            (READ, "", "namespaces"),
            (READ, "discovery.k8s.io", "endpointslices"),
            (
                READ,
                "apps",
                "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
            ),
            (READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
            (READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
            (
                READ,
                api::GROUP,
                "devicechecks devicechecks/status devicepolicies devicepolicies/status kerneljobs kerneljobs/status",
            ),
            (READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
            (READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
            (READ, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
        ],
    ),
    ("system:aggregated-metrics-reader", "view", &[("get list", metrics::GROUP, "pods nodes")]),
    (
        "system:basic-user",
        "",
        &[
            ("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
            ("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    (
        "system:discovery",
        "",
        &[(
            "get",
            "/",
            "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
        )],
    ),
    ("system:public-info-viewer", "", &[("get", "/", "/healthz /livez /readyz /version /version/")]),
    (
        "system:monitoring",
        "",
        &[("get", "/", "/healthz /healthz/* /livez /livez/* /readyz /readyz/* /metrics /metrics/slis")],
    ),
    (
        "system:auth-delegator",
        "",
        &[
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
    ),
    (
        "system:service-account-issuer-discovery",
        "",
        &[(
            "get",
            "/",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    ),
    (
        "system:node",
        "",
        &[
            (READ, "", "pods namespaces services"),
            ("get", "", "configmaps secrets serviceaccounts persistentvolumeclaims persistentvolumes"),
            ("create", "", "serviceaccounts/token"),
            ("get list watch patch update", "", "nodes"),
            ("patch update", "", "nodes/status pods/status"),
            ("create patch update", "", "events"),
            ("create get patch update", "coordination.k8s.io", "leases"),
        ],
    ),
];

/// Which groups have which roles. Nodes have theirs by the node authorizer, which knows what is whose.
static BINDINGS: &[(&str, &[&str])] = &[
    ("cluster-admin", &[MASTERS]),
    ("system:basic-user", &[AUTHENTICATED]),
    ("system:discovery", &[AUTHENTICATED]),
    ("system:monitoring", &["system:monitoring"]),
    ("system:node", &[]),
    ("system:public-info-viewer", &[AUTHENTICATED, UNAUTHENTICATED]),
    ("system:service-account-issuer-discovery", &[SERVICE_ACCOUNTS]),
];

/// An object that every cluster has.
pub struct Default {
    /// `clusterroles`, `clusterrolebindings`
    pub plural: &'static str,
    /// Its name.
    pub name: String,
    /// As a manifest.
    pub object: Value,
}

/// All of them, roles before bindings.
pub fn defaults() -> Vec<Default> {
    let default = |plural, name: &str, object| Default { plural, name: name.to_owned(), object };
    let roles = ROLES.iter().map(|row| default("clusterroles", row.0, json!(role(row))));
    let bindings = BINDINGS
        .iter()
        .map(|(name, groups)| default("clusterrolebindings", name, json!(binding(name, groups))));
    roles.chain(bindings).collect()
}

/// A default object with what its present form lacks, or `None` when that is to stay as it is. What users added
/// stays; what they took away comes back, unless they said so by the annotation.
pub fn reconciled(present: &Value, wanted: &Value) -> Option<Value> {
    if present["metadata"]["annotations"][AUTO_UPDATE] == "false" {
        return None;
    }
    let mut new = present.clone();
    for field in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
            new["metadata"][field][key] = value.clone();
        }
    }
    if !wanted["aggregationRule"].is_null() {
        new["aggregationRule"] = wanted["aggregationRule"].clone();
    } else {
        add_rules(&mut new, wanted);
    }
    add_subjects(&mut new, wanted);
    (new != *present).then_some(new)
}

fn add_rules(object: &mut Value, wanted: &Value) {
    let rules = |object: &Value| -> Vec<PolicyRule> {
        serde_json::from_value(object["rules"].clone()).unwrap_or_default()
    };
    let (mut all, wanted) = (rules(object), rules(wanted));
    let lacking = rules::missing(all.clone().iter(), &wanted);
    if !lacking.is_empty() {
        all.extend(lacking);
        object["rules"] = json!(all);
    }
}

fn add_subjects(object: &mut Value, wanted: &Value) {
    for subject in wanted["subjects"].as_array().into_iter().flatten() {
        match object["subjects"].as_array_mut() {
            Some(all) if all.contains(subject) => {}
            Some(all) => all.push(subject.clone()),
            None => object["subjects"] = json!([subject]),
        }
    }
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(BTreeMap::from([(DEFAULTS_LABEL.0.to_owned(), DEFAULTS_LABEL.1.to_owned())])),
        annotations: Some(BTreeMap::from([(AUTO_UPDATE.to_owned(), "true".to_owned())])),
        ..ObjectMeta::default()
    }
}

/// The label that makes a role part of another.
fn part_of(role: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{role}")
}

fn role((name, part, rows): &Row) -> ClusterRole {
    let mut metadata = metadata(name);
    if !part.is_empty() {
        metadata.labels.get_or_insert_default().insert(part_of(part), "true".to_owned());
    }
    let selector = || LabelSelector {
        match_labels: Some(BTreeMap::from([(part_of(name), "true".to_owned())])),
        ..LabelSelector::default()
    };
    let aggregation_rule =
        rows.is_empty().then(|| AggregationRule { cluster_role_selectors: Some(vec![selector()]) });
    let rules = rows.iter().map(|(verbs, group, things)| rule(verbs, group, things)).collect();
    ClusterRole { metadata, aggregation_rule, rules: Some(rules).filter(|rules: &Vec<_>| !rules.is_empty()) }
}

fn rule(verbs: &str, group: &str, things: &str) -> PolicyRule {
    let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    let verbs = words(verbs);
    match group {
        "/" => PolicyRule { verbs, non_resource_urls: Some(words(things)), ..PolicyRule::default() },
        group => PolicyRule {
            verbs,
            api_groups: Some(vec![group.to_owned()]),
            resources: Some(words(things)),
            ..PolicyRule::default()
        },
    }
}

fn binding(name: &str, groups: &[&str]) -> ClusterRoleBinding {
    let subject = |group: &&str| Subject {
        api_group: Some(GROUP.to_owned()),
        kind: "Group".to_owned(),
        name: (*group).to_owned(),
        namespace: None,
    };
    let subjects: Vec<Subject> = groups.iter().map(subject).collect();
    ClusterRoleBinding {
        metadata: metadata(name),
        role_ref: RoleRef {
            api_group: Some(GROUP.to_owned()),
            kind: ClusterRole::KIND.to_owned(),
            name: name.to_owned(),
        },
        subjects: Some(subjects).filter(|subjects| !subjects.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default(name: &str) -> Value {
        defaults().into_iter().find(|one| one.name == name).unwrap().object
    }

    #[test]
    fn a_default_says_what_it_is() {
        let edit = default("edit");
        assert_eq!(edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"], "true");
        assert_eq!(
            edit["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"],
            json!({"rbac.authorization.k8s.io/aggregate-to-edit": "true"})
        );
        assert_eq!(edit["kind"], "ClusterRole");
        let all = &default("cluster-admin")["rules"];
        assert_eq!(all[0], json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}));
        assert_eq!(all[1], json!({"nonResourceURLs": ["*"], "verbs": ["*"]}));
    }

    #[test]
    fn what_users_added_stays_and_what_they_took_away_comes_back() {
        let wanted = default("system:basic-user");
        assert_eq!(reconciled(&wanted, &wanted), None);
        let mut changed = wanted.clone();
        changed["rules"] = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        let new = reconciled(&changed, &wanted).unwrap();
        assert_eq!(new["rules"].as_array().unwrap().len(), 4);
        assert_eq!(new["rules"][0], changed["rules"][0]);
        changed["metadata"]["annotations"][AUTO_UPDATE] = json!("false");
        assert_eq!(reconciled(&changed, &wanted), None);
    }

    #[test]
    fn a_binding_gets_its_groups_back_beside_new_ones() {
        let binding = defaults()
            .into_iter()
            .find(|one| one.plural == "clusterrolebindings" && one.name == "system:discovery");
        let wanted = binding.unwrap().object;
        let mut changed = wanted.clone();
        changed["subjects"] = json!([{"kind": "User", "name": "eve", "apiGroup": GROUP}]);
        let new = reconciled(&changed, &wanted).unwrap();
        assert_eq!(new["subjects"].as_array().unwrap().len(), 2);
    }
}
