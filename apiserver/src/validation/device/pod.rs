//! Claims that a pod uses, and which of its containers use them.

use std::collections::HashSet;

use serde_json::Value;

use crate::validation::{
    each,
    faults::{Faults, Path},
    is_empty, named, names, text,
};

pub(in crate::validation) fn claims(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    let mut known = HashSet::new();
    each(&spec["resourceClaims"], &path.field("resourceClaims"), |claim, path| {
        named(names::dns_label, &claim["name"], &path.field("name"), faults);
        if !known.insert(text(&claim["name"])) {
            faults.duplicate(&path.field("name"), &claim["name"]);
        }
        source(claim, path, faults);
    });
    for field in ["containers", "initContainers"] {
        each(&spec[field], &path.field(field), |container, path| {
            let path = path.field("resources");
            used(&container["resources"]["claims"], &known, &path.field("claims"), faults);
        });
    }
}

fn source(claim: &Value, path: &Path<'_>, faults: &mut Faults) {
    let fields = ["resourceClaimName", "resourceClaimTemplateName"];
    let mut set = fields.into_iter().filter(|field| !is_empty(&claim[*field]));
    match (set.next(), set.next()) {
        (None, _) => {
            let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
            faults.invalid(path, claim, why);
        }
        (Some(_), Some(_)) => {
            let why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
            faults.invalid(path, claim, why);
        }
        (Some(field), None) => named(names::dns_subdomain, &claim[field], &path.field(field), faults),
    }
}

fn used(claims: &Value, known: &HashSet<&str>, path: &Path<'_>, faults: &mut Faults) {
    let mut seen = HashSet::new();
    each(claims, path, |claim, path| {
        let name = text(&claim["name"]);
        if name.is_empty() {
            faults.required(&path.field("name"), "");
        } else if !known.contains(name) {
            faults.not_found(&path.field("name"), &claim["name"]);
        }
        if !seen.insert((name, text(&claim["request"]))) {
            faults.duplicate(path, claim);
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wrong(claims: Value, used: Value) -> Vec<String> {
        let container = json!({"name": "c", "resources": {"claims": used}});
        let spec = json!({"resourceClaims": claims, "containers": [container]});
        let mut faults = Faults::default();
        super::claims(&spec, &Path::Root.field("spec"), &mut faults);
        faults.into_causes().into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn a_container_uses_claims_of_its_pod_each_of_which_has_one_source() {
        let good = json!([
            {"name": "a", "resourceClaimName": "x"}, {"name": "b", "resourceClaimTemplateName": "y"},
        ]);
        let uses = json!([{"name": "a"}, {"name": "b", "request": "r"}, {"name": "b", "request": "s"}]);
        assert!(wrong(good.clone(), uses).is_empty());
        assert_eq!(
            wrong(good.clone(), json!([{"name": "no"}])),
            ["spec.containers[0].resources.claims[0].name"]
        );
        let twice = json!([{"name": "a"}, {"name": "a"}]);
        assert_eq!(wrong(good, twice), ["spec.containers[0].resources.claims[1]"]);
        for (claim, field) in [
            (json!({"name": "a"}), "spec.resourceClaims[0]"),
            (
                json!({"name": "a", "resourceClaimName": "x", "resourceClaimTemplateName": "y"}),
                "spec.resourceClaims[0]",
            ),
            (json!({"name": "A", "resourceClaimName": "x"}), "spec.resourceClaims[0].name"),
            (json!({"name": "a", "resourceClaimName": "X"}), "spec.resourceClaims[0].resourceClaimName"),
        ] {
            assert_eq!(wrong(json!([claim]), json!([])), [field]);
        }
    }
}
