//! Messages as Go writes them.

use std::sync::LazyLock;

use serde_json::json;

use super::*;

/// One length-delimited field.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        field.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    field.push(u8::try_from(length).unwrap());
    field.extend(content);
    field
}

fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw), bytes(3, b""), bytes(4, b"")].concat()
}

/// One for all tests, so that each schema is compiled once.
static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::builtin);

fn read(body: &[u8]) -> Result<Value, ProtobufError> {
    to_json(&REGISTRY, body)
}

#[test]
fn a_namespace_as_kubectl_creates_it_is_read() {
    // metadata{name, generateName "", ..., creationTimestamp{}} spec{} status{phase ""}
    let meta = [bytes(1, b"team"), bytes(2, b""), bytes(3, b""), bytes(8, b"")].concat();
    let raw = [bytes(1, &meta), bytes(2, b""), bytes(3, &bytes(1, b""))].concat();
    assert_eq!(
        read(&envelope("v1", "Namespace", &raw)).unwrap(),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}, "spec": {}, "status": {}})
    );
}

#[test]
fn maps_bytes_lists_and_inlined_messages_come_out_as_json() {
    let secret = [
        bytes(2, &[bytes(1, b"key"), bytes(2, b"hi")].concat()),
        bytes(2, &[bytes(1, b"empty")].concat()),
        bytes(3, b"Opaque"),
    ]
    .concat();
    assert_eq!(
        read(&envelope("v1", "Secret", &secret)).unwrap(),
        json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"key": "aGk=", "empty": null}})
    );

    let time = [number(1, 5), number(2, 0)].concat();
    let config_map =
        bytes(1, &[bytes(1, b"c"), bytes(8, &time), bytes(14, b"f1"), bytes(14, b"f2")].concat());
    assert_eq!(
        read(&envelope("v1", "ConfigMap", &config_map)).unwrap()["metadata"],
        json!({"name": "c", "creationTimestamp": "1970-01-01T00:00:05Z", "finalizers": ["f1", "f2"]})
    );

    // spec.volumes[0] = {name, volumeSource{emptyDir{}}}, spec.containers[0].livenessProbe{handler{tcpSocket{port}}}
    let volume = [bytes(1, b"v"), bytes(2, &bytes(2, b""))].concat();
    let port =
        |content: Vec<u8>| bytes(10, &[bytes(1, &bytes(3, &bytes(1, &content))), number(3, 9)].concat());
    let container = |content| bytes(2, &[bytes(1, b"c"), port(content)].concat());
    let by_number = container([number(1, 0), number(2, 80)].concat());
    let by_name = container([number(1, 1), bytes(3, b"http")].concat());
    let pod = bytes(2, &[bytes(1, &volume), by_number, by_name].concat());
    let probe = |port: Value| json!({"name": "c", "livenessProbe": {"tcpSocket": {"port": port}, "timeoutSeconds": 9}});
    assert_eq!(
        read(&envelope("v1", "Pod", &pod)).unwrap()["spec"],
        json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [probe(json!(80)), probe(json!("http"))]})
    );
}

#[test]
fn quantities_negative_numbers_and_meant_zeros_survive() {
    let minus_one = [vec![0xff; 9], vec![1]].concat();
    let replicas = [vec![1 << 3], minus_one].concat();
    let limits = bytes(1, &[bytes(1, b"cpu"), bytes(2, &bytes(1, b"500m"))].concat());
    let stdin = vec![0x80, 1, 0]; // field 16, where false means never set
    let security = bytes(15, &number(7, 0)); // allowPrivilegeEscalation, where false is meant
    let container = bytes(2, &[bytes(1, b"c"), bytes(8, &limits), security, stdin].concat());
    let template = bytes(3, &bytes(2, &container));
    let deployment = bytes(2, &[replicas, template].concat());
    let spec = &read(&envelope("apps/v1", "Deployment", &deployment)).unwrap()["spec"];
    assert_eq!(spec["replicas"], -1);
    assert_eq!(
        spec["template"]["spec"]["containers"],
        json!([{
            "name": "c",
            "resources": {"limits": {"cpu": "500m"}},
            "securityContext": {"allowPrivilegeEscalation": false},
        }])
    );
}

#[test]
fn a_question_about_somebody_is_read_with_its_lists_in_a_map() {
    // spec{resourceAttributes{verb, resource} user groups extra{key: {items}}}
    let extra = [bytes(1, b"scopes"), bytes(2, &[bytes(1, b"a"), bytes(1, b"b")].concat())].concat();
    let attributes = [bytes(2, b"get"), bytes(5, b"pods")].concat();
    let spec = [bytes(1, &attributes), bytes(3, b"eve"), bytes(4, b"devs"), bytes(5, &extra)].concat();
    let raw = [bytes(1, b""), bytes(2, &spec), bytes(3, b"")].concat();
    let read = read(&envelope("authorization.k8s.io/v1", "SubjectAccessReview", &raw)).unwrap();
    assert_eq!(
        read["spec"],
        json!({
            "resourceAttributes": {"verb": "get", "resource": "pods"},
            "user": "eve", "groups": ["devs"], "extra": {"scopes": ["a", "b"]},
        })
    );
}

#[test]
fn options_of_a_delete_are_read_in_any_version() {
    let raw = [number(1, 0), bytes(4, b"Background")].concat();
    assert_eq!(
        read(&envelope("policy/v1", "DeleteOptions", &raw)).unwrap(),
        json!({"apiVersion": "policy/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Background"})
    );
}

#[test]
fn base64_is_padded() {
    for (plain, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
    {
        assert_eq!(base64(plain.as_bytes()), expected);
    }
}

#[test]
fn damaged_and_unknown_messages_are_refused() {
    assert_eq!(read(b"{}"), Err(ProtobufError::NoMagic));
    assert!(matches!(read(&envelope("v1", "Teapot", b"")), Err(ProtobufError::UnknownKind { .. })));
    let error = read(&envelope("clawbernetes.io/v1", "KernelJob", b"")).unwrap_err();
    assert!(error.to_string().ends_with("is read as protobuf here, send JSON"), "{error}");
    let sound = envelope("v1", "Namespace", &bytes(1, &bytes(1, b"team")));
    // A message may be cut between two fields, but never within the one that holds the object.
    let start = sound.len() - 4 - bytes(1, &bytes(1, b"team")).len();
    for end in start + 1..sound.len() - 4 {
        assert!(matches!(read(&sound[..end]), Err(ProtobufError::Damaged(_))), "{end}");
    }
    let not_utf8 = envelope("v1", "Namespace", &bytes(1, &bytes(1, &[0xff])));
    assert!(matches!(read(&not_utf8), Err(ProtobufError::Damaged(_))));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        failure_persistence: None,
        ..proptest::prelude::ProptestConfig::default()
    })]

    #[test]
    fn no_bytes_make_the_reader_fall_over(raw: Vec<u8>) {
        for kind in REGISTRY.iter() {
            drop(read(&envelope(&kind.api_version(), &kind.kind, &raw)));
        }
    }
}
