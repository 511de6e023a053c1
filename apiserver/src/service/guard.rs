//! Rules about writes that need to know who writes: nobody grants more than they hold, and nodes keep to themselves.
//!
//! Runs on what is about to be stored, after defaults and validation.

use std::sync::Arc;

use claw_schemas::{ApiError, gpu, status::Cause};
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use serde_json::Value;

use super::{ObjectService, accounts::MIRROR, approval, kinds::Target, object::text, update::Part};
use crate::auth::{
    Action, Identity, What,
    rbac::{self, escalation},
};

/// Labels with this prefix (or below it) are for administrators to fence nodes in.
const RESTRICTED: &str = "node-restriction.kubernetes.io";

/// Labels in Kubernetes' own domains that a node may set on itself.
const NODE_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "node.kubernetes.io/windows-build",
];

/// Domains below which a node may set what it likes.
const NODE_LABEL_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

impl ObjectService {
    pub(super) fn guard_create(&self, target: &Target, object: &Value) -> Result<(), ApiError> {
        if approval::is_request(&target.kind)
            && let Some(why) = approval::refusal(object)
        {
            return Err(target.kind.forbidden(text(object, "name"), &why));
        }
        let Some(who) = judged(target) else { return Ok(()) };
        if target.kind.descriptor.group == rbac::GROUP {
            self.guard_grant(target, who, &Value::Null, object)?;
        }
        match who.node() {
            Some(node) => {
                guard_mirror(target, node, object)?;
                guard_lease(target, node, text(object, "name"))?;
                guard_slice(target, node, text(object, "name"), object)
            }
            None => Ok(()),
        }
    }

    pub(super) fn guard_update(
        &self,
        target: &Target,
        part: Part,
        old: &Value,
        new: &Value,
    ) -> Result<(), ApiError> {
        let Some(who) = judged(target) else { return Ok(()) };
        if target.kind.descriptor.group == rbac::GROUP {
            self.guard_grant(target, who, old, new)?;
        }
        if approval::is_request(&target.kind) {
            self.guard_signer(target, who, approval::deed(part, old, new), text_of_signer(old))?;
        }
        if let Some(node) = who.node() {
            guard_slice(target, node, text(new, "name"), new)?;
            guard_claim(target, node, old, new)?;
        }
        if let Some(node) = who.node().filter(|_| target.kind.is_core("nodes") && part == Part::Main) {
            guard_node(target, node, old, new)?;
        }
        Ok(())
    }

    /// Who decides about requests for certificates, and who answers them, does so for the signers that are theirs.
    fn guard_signer(
        &self,
        target: &Target,
        who: &Identity,
        deed: Option<&str>,
        signer: &str,
    ) -> Result<(), ApiError> {
        let Some(verb) = deed else { return Ok(()) };
        let may = |name: &String| {
            let what = What::Objects {
                group: approval::GROUP,
                plural: "signers",
                subresource: "",
                namespace: "",
                name,
            };
            self.authorizer.allows(who, &Action { verb, what, fields: None })
        };
        if approval::names_of(signer).iter().any(may) {
            return Ok(());
        }
        let why = format!(
            "user not permitted to {verb} requests with signerName {signer:?}: a ClusterRole gives it with apiGroups: \
             [{}], resources: [signers], resourceNames: [{signer}], verbs: [{verb}]",
            approval::GROUP
        );
        Err(target.kind.forbidden(&target.name, &why))
    }

    fn guard_grant(&self, target: &Target, who: &Identity, old: &Value, new: &Value) -> Result<(), ApiError> {
        let changed = |fields: &[&str]| fields.iter().any(|field| old[field] != new[field]);
        match &*target.kind.descriptor.plural {
            "roles" | "clusterroles" if changed(&["rules", "aggregationRule"]) => {
                self.guard_role(target, who, old, new)
            }
            // By its labels a role becomes part of others, which is as good as writing its rules there.
            "clusterroles" if old["metadata"]["labels"] != new["metadata"]["labels"] => {
                self.guard_role(target, who, old, new)
            }
            "rolebindings" | "clusterrolebindings" if changed(&["subjects", "roleRef"]) => {
                self.guard_binding(target, who, new)
            }
            _ => Ok(()),
        }
    }

    fn guard_role(&self, target: &Target, who: &Identity, old: &Value, new: &Value) -> Result<(), ApiError> {
        let (namespace, name) = (target.namespace.as_str(), text(new, "name"));
        let plural = &*target.kind.descriptor.plural;
        if self.authorizer.allows(who, &on_role("escalate", plural, namespace, name)) {
            return Ok(());
        }
        // What selectors will choose nobody can know.
        let hands_out_all =
            !new["aggregationRule"].is_null() && old["aggregationRule"] != new["aggregationRule"];
        let wanted = match (hands_out_all, &new["aggregationRule"]) {
            (true, _) => escalation::everything().to_vec(),
            (false, Value::Null) => rules_of(new),
            (false, _) => self.rules_so_far(new),
        };
        self.require_held(target, name, who, &wanted)
    }

    /// Of a role that aggregates others: what it has by them, and what is to be written into it.
    fn rules_so_far(&self, role: &Value) -> Vec<PolicyRule> {
        let mut rules = rules_of(role);
        let aggregated = self.authorizer.role(None, text(role, "name"));
        rules.extend(aggregated.iter().flat_map(|all| all.iter().cloned()));
        rules
    }

    fn guard_binding(&self, target: &Target, who: &Identity, new: &Value) -> Result<(), ApiError> {
        let (namespace, name) = (target.namespace.as_str(), text(new, "name"));
        let role: RoleRef = serde_json::from_value(new["roleRef"].clone()).unwrap_or_default();
        let (plural, of) = match role.kind.as_str() {
            "ClusterRole" => ("clusterroles", None),
            _ => ("roles", Some(namespace)),
        };
        // Asked where the binding is, for roles of the cluster too: so somebody may bind these in one namespace alone.
        if self.authorizer.allows(who, &on_role("bind", plural, namespace, &role.name)) {
            return Ok(());
        }
        let rules = self
            .authorizer
            .role(of, &role.name)
            .ok_or_else(|| ApiError::not_found(rbac::GROUP, plural, &role.name))?;
        self.require_held(target, name, who, &rules)
    }

    fn require_held(
        &self,
        target: &Target,
        name: &str,
        who: &Identity,
        wanted: &[PolicyRule],
    ) -> Result<(), ApiError> {
        let held: Vec<Arc<[PolicyRule]>> = self.authorizer.rules(who, &target.namespace);
        match escalation::refusal(who, &held, wanted) {
            Some(why) => Err(target.kind.forbidden(name, &why)),
            None => Ok(()),
        }
    }
}

/// Who is to be judged: not the server itself, and not those who may do everything.
fn judged(target: &Target) -> Option<&Identity> {
    target.by.as_ref().filter(|who| !who.is_master())
}

fn on_role<'a>(verb: &'a str, plural: &'a str, namespace: &'a str, name: &'a str) -> Action<'a> {
    let what = What::Objects { group: rbac::GROUP, plural, subresource: "", namespace, name };
    Action { verb, what, fields: None }
}

fn text_of_signer(request: &Value) -> &str {
    request["spec"]["signerName"].as_str().unwrap_or_default()
}

fn rules_of(role: &Value) -> Vec<PolicyRule> {
    serde_json::from_value(role["rules"].clone()).unwrap_or_default()
}

/// A node chooses no pods, but shows those that it runs by itself.
fn guard_mirror(target: &Target, node: &str, pod: &Value) -> Result<(), ApiError> {
    let is_mirror = !pod["metadata"]["annotations"][MIRROR].is_null();
    if !target.kind.is_pod() || is_mirror && pod["spec"]["nodeName"] == node && owners_of(pod).is_empty() {
        return Ok(());
    }
    let why = format!(
        "node \"{node}\" may only create mirrors of pods that it runs by itself: annotated with {MIRROR}, with \
         spec.nodeName: {node}, and without owners"
    );
    Err(target.kind.forbidden(text(pod, "name"), &why))
}

/// A node is as alive as its own lease says, so it creates no other's.
fn guard_lease(target: &Target, node: &str, name: &str) -> Result<(), ApiError> {
    if &*target.kind.descriptor.plural != "leases" || name == node {
        return Ok(());
    }
    let why = format!("node \"{node}\" may only have the lease that has its name");
    Err(target.kind.forbidden(name, &why))
}

/// A node speaks for its own devices, in the slice that has its name.
fn guard_slice(target: &Target, node: &str, name: &str, new: &Value) -> Result<(), ApiError> {
    let descriptor = &target.kind.descriptor;
    let is_slice = &*descriptor.group == "resource.k8s.io" && &*descriptor.plural == "resourceslices";
    if !is_slice || (name == gpu::slice_name(node) && new["spec"]["nodeName"] == node) {
        return Ok(());
    }
    let own = gpu::slice_name(node);
    let why = format!("node \"{node}\" may only have slice \"{own}\", with spec.nodeName: {node}");
    Err(target.kind.forbidden(name, &why))
}

/// Of a claim a node says how its own devices are.
fn guard_claim(target: &Target, node: &str, old: &Value, new: &Value) -> Result<(), ApiError> {
    let descriptor = &target.kind.descriptor;
    if &*descriptor.group != "resource.k8s.io" || &*descriptor.plural != "resourceclaims" {
        return Ok(());
    }
    let without_own = |claim: &Value| {
        let mut status = claim["status"].as_object().cloned().unwrap_or_default();
        let mut devices =
            status.remove("devices").and_then(|all| all.as_array().cloned()).unwrap_or_default();
        devices.retain(|one| one["driver"] != gpu::DRIVER || one["pool"] != node);
        (status, devices)
    };
    if without_own(old) == without_own(new) {
        return Ok(());
    }
    let why = format!("node \"{node}\" may only change its own devices in status.devices");
    Err(target.kind.forbidden(&target.name, &why))
}

/// A node may not choose which pods come to it.
fn guard_node(target: &Target, node: &str, old: &Value, new: &Value) -> Result<(), ApiError> {
    let forbidden = |why: String, field: &str| {
        let mut error = target.kind.forbidden(&target.name, &why);
        error.details.causes.push(Cause {
            reason: "FieldValueForbidden".into(),
            message: why,
            field: field.into(),
        });
        Err(error)
    };
    if old["spec"]["taints"] != new["spec"]["taints"] {
        return forbidden(format!("node \"{node}\" is not allowed to modify taints"), "spec.taints");
    }
    // With an owner that does not exist the collector would delete the Node, and the next hello make one without what
    // administrators had put on it.
    if owners_of(old) != owners_of(new) {
        let why = format!("node \"{node}\" is not allowed to modify ownerReferences");
        return forbidden(why, "metadata.ownerReferences");
    }
    let (was, is) = (&old["metadata"]["labels"], &new["metadata"]["labels"]);
    let keys = [was, is].into_iter().filter_map(Value::as_object).flat_map(|labels| labels.keys());
    let mut touched: Vec<&str> = keys.filter(|key| was[*key] != is[*key]).map(String::as_str).collect();
    touched.retain(|key| !may_label(key));
    touched.sort_unstable();
    touched.dedup();
    if touched.is_empty() {
        return Ok(());
    }
    let why = format!("node \"{node}\" is not allowed to modify labels: {}", touched.join(", "));
    forbidden(why, "metadata.labels")
}

fn owners_of(object: &Value) -> &[Value] {
    object["metadata"]["ownerReferences"].as_array().map_or(&[], Vec::as_slice)
}

/// Whether a node may change a label of its own, by whatever way it asks.
pub(crate) fn may_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is_in =
        |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|sub| sub.ends_with('.'));
    if is_in(RESTRICTED) {
        return false;
    }
    if !is_in("kubernetes.io") && !is_in("k8s.io") {
        return true;
    }
    NODE_LABELS.contains(&key) || NODE_LABEL_DOMAINS.into_iter().any(is_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_labels_itself_with_what_it_is_and_not_with_what_it_may() {
        for (key, may) in [
            ("gpu", true),
            ("example.com/rack", true),
            ("kubernetes.io/hostname", true),
            ("topology.kubernetes.io/zone", true),
            ("kubelet.kubernetes.io/x", true),
            ("node.kubernetes.io/x", true),
            ("node-restriction.kubernetes.io/tenant", false),
            ("team.node-restriction.kubernetes.io/tenant", false),
            ("node-role.kubernetes.io/control-plane", false),
            ("kubernetes.io/other", false),
            ("k8s.io/x", false),
        ] {
            assert_eq!(may_label(key), may, "{key}");
        }
    }
}
