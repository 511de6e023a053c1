//! Images on the node of an ordinary user.

use std::{fs, os::unix::fs::MetadataExt as _};

use claw_e2e::{
    Cluster, Options,
    kubectl::Outcome,
    need::{self, Need},
    user::{FIRST_SUBORDINATE, User},
    wait,
};
use serde_json::json;

use super::{
    files::docker_archive,
    made::{Layer, Made, TOOLBOX},
};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: owns}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: main, image: "owned:1", imagePullPolicy: Never, args: [sleep, "1000000"]}
"#;

fn image() -> Made {
    let below = Layer::new()
        .program("toolbox", &TOOLBOX)
        .file("gone", b"gone")
        .folder("opaque", 0)
        .file("opaque/old", b"old")
        .folder("own", 1000)
        .folder("others", 1001)
        .done();
    let above =
        Layer::new().file(".wh.gone", b"").file("opaque/.wh..wh..opq", b"").file("opaque/new", b"new").done();
    Made::new(json!({"Entrypoint": ["/toolbox"], "User": "1000:1000"}), vec![below, above])
}

#[test]
fn files_of_an_image_belong_to_their_owners_on_the_node_of_an_ordinary_user() {
    let story = "files_of_an_image_belong_to_their_owners_on_the_node_of_an_ordinary_user";
    if !need::all(story, &[Need::Root, Need::Users, Need::Kubectl]) {
        return;
    }
    let mut cluster = Cluster::start(Options::up(0));
    let user = User::new(cluster.scratch());
    let archive = cluster.scratch().join("owned.tar");
    fs::write(&archive, docker_archive(&image(), &["owned:1"])).unwrap();
    let data = cluster.scratch().join("users");
    let mut import = user.cli();
    import.args(["image", "import"]).arg(&archive).arg("--data-dir").arg(&data);
    assert_eq!(Outcome::of(&mut import, "").success().unwrap(), "docker.io/library/owned:1\n");

    cluster.join_node_from("users", user.prefix(), &[]);
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], POD);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/owns", "--timeout=600s"]);
    let toolbox = |command: &[&str]| kubectl.run(&[&["exec", "owns", "--", "/toolbox"], command].concat());
    assert_eq!(toolbox(&["write", "/own/file", "text"]).code, 0, "its own folder");
    assert_ne!(toolbox(&["write", "/others/file", "text"]).code, 0, "somebody else's");
    for (file, is_there) in [("/gone", false), ("/opaque/old", false), ("/opaque/new", true)] {
        assert_eq!(toolbox(&["test", "-e", file]).code == 0, is_there, "{file}");
    }
    let layers = fs::read_dir(data.join("node/images/layers")).unwrap().flatten();
    let own =
        layers.map(|layer| layer.path()).find_map(|layer| fs::metadata(layer.join("fs/own")).ok()).unwrap();
    assert_eq!(own.uid(), FIRST_SUBORDINATE + 999, "outside it is one of the user's subordinate ids");
    kubectl.ok(&["delete", "pod", "owns", "--timeout=600s"]);
    // Or the node would stop with pods, and keep what they are in.
    wait::until("the node has forgotten the pod", wait::LATER, || {
        let records = fs::read_dir(data.join("node/pods")).unwrap().count();
        wait::check(records == 0, records.to_string())
    });
}

#[test]
fn an_image_with_owners_whom_a_user_does_not_have_is_refused_by_name() {
    let story = "an_image_with_owners_whom_a_user_does_not_have_is_refused_by_name";
    if !need::all(story, &[Need::Root, Need::Users]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let user = User::alone(scratch.path());
    let archive = scratch.path().join("owned.tar");
    fs::write(&archive, docker_archive(&image(), &["owned:1"])).unwrap();
    let mut import = user.cli();
    import.args(["image", "import"]).arg(&archive);
    let refusal = Outcome::of(&mut import, "").success().unwrap_err();
    assert!(refusal.contains("own: it belongs to 1000:1000") && refusal.contains("/etc/subuid"), "{refusal}");
}
