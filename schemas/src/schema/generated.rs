//! Objects made at random from the schema itself, to hold the engine against the typed kinds.

use std::sync::LazyLock;

use k8s_openapi::{
    Resource,
    api::{
        admissionregistration::v1 as admission,
        apps::v1 as apps,
        autoscaling::{v1 as autoscaling_v1, v2 as autoscaling},
        batch::v1 as batch,
        certificates::v1 as certificates,
        coordination::v1 as coordination,
        core::v1 as core,
        discovery::v1 as discovery,
        networking::v1 as networking,
        policy::v1 as policy,
        rbac::v1 as rbac,
        resource::{v1 as resource, v1beta2 as resource_beta},
        scheduling::v1 as scheduling,
        storage::v1 as storage,
    },
};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::*;
use crate::{Registry, api};

/// One for all cases, so that each schema is compiled once.
static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::builtin);

/// Levels of a generated object; pod templates are nine deep.
const DEPTH_MAX: u32 = 12;

/// A stream of choices that a failing case can repeat from its seed.
struct Choices(u64);

impl Choices {
    /// A number below `bound` (splitmix64).
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below a usize")
    }

    fn one_of(&mut self, values: &[Value]) -> Value {
        values[self.below(values.len())].clone()
    }
}

/// A well-typed value, with nulls and unknown fields in between.
fn value(place: Place<'_>, choices: &mut Choices, depth: u32) -> Value {
    if depth == 0 || choices.below(20) == 0 {
        return Value::Null;
    }
    match place.shape() {
        Shape::Any => choices.one_of(&[json!({"a": [1, null]}), json!({})]),
        Shape::Struct(Struct { fields, .. }) => {
            let mut object = Map::new();
            for field in fields {
                if choices.below(fields.len()) < 4 {
                    let inner = place.field(&field.name).expect("its own field");
                    object.insert(field.name.to_string(), value(inner, choices, depth - 1));
                }
            }
            if choices.below(10) == 0 {
                object.insert("noSuchField".to_owned(), json!([{"x": 1}]));
            }
            Value::Object(object)
        }
        Shape::Map(values) => (0..choices.below(3))
            .map(|n| (format!("key{n}"), value(place.at(*values), choices, depth - 1)))
            .collect::<Map<_, _>>()
            .into(),
        Shape::List(items) => {
            (0..choices.below(3)).map(|_| value(place.at(*items), choices, depth - 1)).collect()
        }
        Shape::Scalar(scalar) => leaf(*scalar, choices),
    }
}

fn leaf(scalar: Scalar, choices: &mut Choices) -> Value {
    choices.one_of(&match scalar {
        Scalar::String => [json!(""), json!("text"), json!("ünï")],
        Scalar::Bytes => [json!(""), json!("aGk="), json!("AAAA")],
        Scalar::Time | Scalar::MicroTime => [
            json!("2026-01-02T03:04:05Z"),
            json!("2026-01-02T03:04:05.123456Z"),
            json!("2026-01-02T03:04:05+02:00"),
        ],
        Scalar::Int32 => [json!(0), json!(i32::MAX), json!(i32::MIN)],
        Scalar::Int64 => [json!(0), json!(i64::MAX), json!(i64::MIN)],
        Scalar::Number => [json!(0), json!(1.5), json!(-3)],
        Scalar::Boolean => [json!(true), json!(false), json!(true)],
        Scalar::IntOrString => [json!(7), json!("25%"), json!("http")],
        Scalar::Quantity => [json!(2), json!(0.5), json!("1.5Gi")],
    })
}

fn decodes<K: Resource + DeserializeOwned>(seed: u64) {
    let (api_version, kind) = (K::API_VERSION, K::KIND);
    let schema = REGISTRY.kind(api_version, kind).expect("served").compiled();
    let mut object = value(schema.root(), &mut Choices(seed), DEPTH_MAX);
    if !object.is_object() {
        return;
    }
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    let report = schema.check(&object);
    assert_eq!(report.errors, [], "{object}");
    schema.normalize(&mut object);
    assert_eq!(
        schema.check(&object),
        Report::default(),
        "a normalized object has no unknown fields: {object}"
    );
    let once = object.clone();
    schema.normalize(&mut object);
    assert_eq!(object, once, "normalizing twice changes nothing");
    as_the_server_demands(&mut object);
    if K::GROUP == api::GROUP && object["spec"].is_null() {
        object["spec"] = json!({});
    }
    let decoded = serde_json::from_value::<K>(object.clone());
    assert!(decoded.is_ok(), "{kind}: {:?}: {object}", decoded.err());
}

/// What the API server sees to behind the schema: conditions have a time, embedded claims are claims.
fn as_the_server_demands(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(as_the_server_demands),
        Value::Object(fields) => {
            for (name, value) in fields {
                as_the_server_demands(value);
                for item in value.as_array_mut().into_iter().flatten() {
                    match name.as_str() {
                        "conditions" if item.is_object() && item["lastTransitionTime"].is_null() => {
                            item["lastTransitionTime"] = "2026-01-02T03:04:05Z".into();
                        }
                        "volumeClaimTemplates" => {
                            item["apiVersion"] = "v1".into();
                            item["kind"] = "PersistentVolumeClaim".into();
                        }
                        _ => {}
                    }
                }
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_passes_the_check_decodes_as_its_typed_kind(seed: u64) {
        decodes::<core::Pod>(seed);
        decodes::<core::Node>(seed);
        decodes::<core::Namespace>(seed);
        decodes::<core::ConfigMap>(seed);
        decodes::<core::Secret>(seed);
        decodes::<core::Event>(seed);
        decodes::<core::Service>(seed);
        decodes::<core::Endpoints>(seed);
        decodes::<core::ServiceAccount>(seed);
        decodes::<core::ResourceQuota>(seed);
        decodes::<core::LimitRange>(seed);
        decodes::<core::PersistentVolume>(seed);
        decodes::<core::PersistentVolumeClaim>(seed);
        decodes::<core::PodTemplate>(seed);
        decodes::<core::ReplicationController>(seed);
        decodes::<admission::ValidatingWebhookConfiguration>(seed);
        decodes::<admission::MutatingWebhookConfiguration>(seed);
        decodes::<admission::ValidatingAdmissionPolicy>(seed);
        decodes::<admission::ValidatingAdmissionPolicyBinding>(seed);
        decodes::<admission::MutatingAdmissionPolicy>(seed);
        decodes::<admission::MutatingAdmissionPolicyBinding>(seed);
        decodes::<apps::Deployment>(seed);
        decodes::<apps::ReplicaSet>(seed);
        decodes::<apps::DaemonSet>(seed);
        decodes::<apps::StatefulSet>(seed);
        decodes::<apps::ControllerRevision>(seed);
        decodes::<autoscaling::HorizontalPodAutoscaler>(seed);
        decodes::<autoscaling_v1::HorizontalPodAutoscaler>(seed);
        decodes::<batch::Job>(seed);
        decodes::<batch::CronJob>(seed);
        decodes::<certificates::CertificateSigningRequest>(seed);
        decodes::<api::KernelJob>(seed);
        decodes::<api::DeviceCheck>(seed);
        decodes::<api::DevicePolicy>(seed);
        decodes::<coordination::Lease>(seed);
        decodes::<discovery::EndpointSlice>(seed);
        decodes::<networking::NetworkPolicy>(seed);
        decodes::<networking::Ingress>(seed);
        decodes::<networking::IngressClass>(seed);
        decodes::<networking::IPAddress>(seed);
        decodes::<policy::PodDisruptionBudget>(seed);
        decodes::<rbac::Role>(seed);
        decodes::<rbac::RoleBinding>(seed);
        decodes::<rbac::ClusterRole>(seed);
        decodes::<rbac::ClusterRoleBinding>(seed);
        decodes::<resource::ResourceSlice>(seed);
        decodes::<resource::DeviceClass>(seed);
        decodes::<resource::ResourceClaim>(seed);
        decodes::<resource::ResourceClaimTemplate>(seed);
        decodes::<resource_beta::DeviceTaintRule>(seed);
        decodes::<scheduling::PriorityClass>(seed);
        decodes::<storage::StorageClass>(seed);
    }
}
