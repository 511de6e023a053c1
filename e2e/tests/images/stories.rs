//! Images in containers, through the whole product: pulled from Debian's docker-registry, run as they want to be run,
//! refused with reasons that people can read, and removed when the disk is full.

use std::path::Path;

use claw_e2e::{
    Cluster, Options,
    cluster::write,
    docker_registry::DockerRegistry,
    http::Http,
    kubectl::{Kubectl, Outcome},
    need::{self, Need},
    wait,
};
use serde_json::{Value, json};

use super::{
    files::docker_archive,
    made::{self, Layer, Made, app},
    registry::{Answer, Registry},
};

const NEEDS: [Need; 3] = [Need::Root, Need::Kubectl, Need::DockerRegistry];

/// A one-machine cluster whose node may speak plain HTTP to these.
fn cluster(hosts: &[&str], more: &[&str]) -> Cluster {
    let mut args = vec!["--node-name".to_owned(), "machine".to_owned()];
    args.extend(hosts.iter().map(|host| format!("--insecure-registry={host}")));
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Cluster::start(Options::up(1).with(&args))
}

fn pod(name: &str, image: &str, spec: Value) -> String {
    let mut container = json!({"name": "main", "image": image});
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 30, "restartPolicy": "Never"}});
    for (field, value) in spec.as_object().unwrap() {
        match field.as_str() {
            "imagePullSecrets" => pod["spec"][field] = value.clone(),
            _ => container[field] = value.clone(),
        }
    }
    pod["spec"]["containers"] = json!([container]);
    pod.to_string()
}

fn run(kubectl: &Kubectl, name: &str, image: &str, spec: Value) -> String {
    kubectl.ok_with(&["apply", "-f", "-"], &pod(name, image, spec));
    let phase = "jsonpath={.status.phase} {.status.containerStatuses[0].state}";
    wait::until(&format!("{name} has run"), wait::LATER, || {
        let seen = kubectl.ok(&["get", "pod", name, "-o", phase]);
        wait::check(seen.starts_with("Succeeded"), seen)
    });
    kubectl.ok(&["logs", name])
}

/// Type, reason and message of each event of a pod.
fn events(kubectl: &Kubectl, pod: &str) -> Vec<String> {
    let filter = format!("involvedObject.name={pod}");
    let path = "jsonpath={range .items[*]}{.type} {.reason} {.message}{\"\\n\"}{end}";
    let said = kubectl.ok(&["get", "events", "--field-selector", &filter, "-o", path]);
    said.lines().map(str::to_owned).collect()
}

fn says(kubectl: &Kubectl, pod: &str, wanted: &str) {
    wait::until(&format!("an event of {pod} says {wanted}"), wait::SOON, || {
        let said = events(kubectl, pod);
        wait::check(said.iter().any(|line| line.starts_with(wanted)), said.join("\n"))
    });
}

fn waits(kubectl: &Kubectl, pod: &str, reason: &str) -> String {
    let path = "jsonpath={.status.containerStatuses[0].state.waiting.reason} {.status.containerStatuses[0].state.waiting.message}";
    wait::until(&format!("{pod} waits with {reason}"), wait::SOON, || {
        let seen = kubectl.ok(&["get", "pod", pod, "-o", path]);
        if seen.split(' ').next() == Some(reason) { Ok(seen) } else { Err(seen) }
    })
}

#[test]
fn an_image_from_a_registry_is_run_as_it_wants_to_be_run() {
    if !need::all("an_image_from_a_registry_is_run_as_it_wants_to_be_run", &NEEDS) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let registry = DockerRegistry::open(scratch.path());
    let made = app("v1");
    let image = made.push(&registry, "team/app:v1");
    let cluster = cluster(&[&registry.host], &[]);
    let kubectl = cluster.kubectl();

    // Entry point, arguments and folder are the image's.
    assert_eq!(run(&kubectl, "plain", &image, json!({})), "v1\n");
    says(&kubectl, "plain", &format!("Normal Pulling Pulling image \"{image}\""));
    says(&kubectl, "plain", &format!("Normal Pulled Successfully pulled image \"{image}\" in "));
    assert!(events(&kubectl, "plain").join("\n").contains("Image size: "));
    let path = "jsonpath={.status.containerStatuses[0].imageID}";
    let id = kubectl.ok(&["get", "pod", "plain", "-o", path]);
    assert_eq!(id, format!("{}/team/app@{}", registry.host, made.digest()));

    let environment = run(&kubectl, "environment", &image, json!({"args": ["env"]}));
    for line in ["GREETING=hello", "TAG=v1"] {
        assert!(environment.lines().any(|known| known == line), "{environment}");
    }
    says(
        &kubectl,
        "environment",
        &format!("Normal Pulled Container image \"{image}\" already present on machine"),
    );
    let status = run(&kubectl, "user", &image, json!({"args": ["cat", "/proc/self/status"]}));
    for line in ["Uid:\t1000\t1000\t1000\t1000", "Gid:\t1001\t1001\t1001\t1001", "Groups:\t44 "] {
        assert!(status.lines().any(|known| known == line), "{line:?} is not in {status}");
    }

    // What upper layers cover, bring and take away.
    let shown = run(&kubectl, "layers", &image, json!({"args": ["cat", "/data/covered", "/opt/new"]}));
    assert_eq!(shown, "top\nnew\n");
    for hidden in ["/data/hidden", "/opt/old"] {
        let name = hidden.replace('/', "-").trim_start_matches('-').to_owned();
        kubectl.ok_with(&["apply", "-f", "-"], &pod(&name, &image, json!({"args": ["cat", hidden]})));
        wait::until(&format!("{hidden} is not there"), wait::LATER, || {
            let seen = kubectl.ok(&["get", "pod", &name, "-o", "jsonpath={.status.phase}"]);
            wait::check(seen == "Failed", seen)
        });
    }

    // The container's word comes before the image's.
    let own = json!({"command": ["/toolbox", "cat"], "args": ["covered"], "workingDir": "/data",
        "securityContext": {"runAsUser": 0}});
    assert_eq!(run(&kubectl, "own", &image, own), "top\n");
    kubectl.ok_with(
        &["apply", "-f", "-"],
        &pod("nonroot", &image, json!({"securityContext": {"runAsNonRoot": true}})),
    );
    let why = waits(&kubectl, "nonroot", "CreateContainerConfigError");
    assert!(why.contains("non-numeric user (app)"), "{why}");

    // The toolbox ends with 0 when it gets SIGTERM; the image's signal leaves it no choice.
    kubectl.ok_with(&["apply", "-f", "-"], &pod("stopped", &image, json!({"args": ["sleep", "3600"]})));
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/stopped", "--timeout=600s"]);
    let file = cluster.scratch().join("stopped");
    let watch = kubectl.spawn(&["get", "pod", "stopped", "-w", "-o", "json"], &file);
    wait::until("the watch has begun", wait::SOON, || {
        wait::check(watch.output().contains("stopped"), watch.output())
    });
    kubectl.ok(&["delete", "pod", "stopped"]);
    wait::until("it ended by SIGKILL", wait::SOON, || {
        let said = watch.output();
        wait::check(said.contains("\"exitCode\": 137") && said.contains("\"signal\": 9"), said)
    });
    wait::until("the node says which images it has", wait::LATER, || {
        let node = kubectl.ok(&["get", "node", "machine", "-o", "jsonpath={.status.images[*].names}"]);
        wait::check(node.contains(&image) && node.contains(&made.digest()), node)
    });
}

#[test]
fn pull_secrets_of_pods_and_accounts_open_a_closed_registry() {
    if !need::all("pull_secrets_of_pods_and_accounts_open_a_closed_registry", &NEEDS) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let registry = DockerRegistry::closed(scratch.path());
    let image = app("secret").push(&registry, "team/app:v1");
    let cluster = cluster(&[&registry.host], &[]);
    let kubectl = cluster.kubectl();

    kubectl.ok_with(&["apply", "-f", "-"], &pod("nobody", &image, json!({})));
    let why = waits(&kubectl, "nobody", "ImagePullBackOff");
    assert!(why.contains("401 Unauthorized"), "{why}");
    says(&kubectl, "nobody", &format!("Warning Failed Failed to pull image \"{image}\": "));
    says(&kubectl, "nobody", "Warning Failed Error: ErrImagePull");
    says(&kubectl, "nobody", &format!("Normal BackOff Back-off pulling image \"{image}\""));

    kubectl.ok(&[
        "create",
        "secret",
        "docker-registry",
        "pull",
        "--docker-server",
        &registry.host,
        "--docker-username",
        "app",
        "--docker-password",
        "sesame",
    ]);
    let always = |more: Value| {
        let mut spec = json!({"imagePullPolicy": "Always"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let by_pod = always(json!({"imagePullSecrets": [{"name": "pull"}]}));
    assert_eq!(run(&kubectl, "somebody", &image, by_pod), "secret\n");

    // The older type, through the account that the pod runs as; and one that is not there beside it.
    let old = json!({&registry.host: {"username": "app", "password": "sesame"}}).to_string();
    let file = write(&cluster.scratch().join("dockercfg"), &old);
    let from = format!("--from-file=.dockercfg={}", file.display());
    kubectl.ok(&["create", "secret", "generic", "old", "--type=kubernetes.io/dockercfg", &from]);
    let patch = json!({"imagePullSecrets": [{"name": "old"}, {"name": "missing"}]}).to_string();
    kubectl.ok(&["patch", "serviceaccount", "default", "--type=merge", "-p", &patch]);
    assert_eq!(run(&kubectl, "account", &image, always(json!({}))), "secret\n");
    says(
        &kubectl,
        "account",
        "Warning FailedToRetrieveImagePullSecret Unable to retrieve some image pull secrets (missing: not found)",
    );
}

#[test]
fn policies_and_bad_names_are_told_in_the_words_of_a_kubelet() {
    if !need::all("policies_and_bad_names_are_told_in_the_words_of_a_kubelet", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let registry = Registry::with(app("v1"), |_| None);
    let cluster = cluster(&[&registry.host], &[]);
    let (kubectl, image) = (cluster.kubectl(), registry.name());

    kubectl.ok_with(&["apply", "-f", "-"], &pod("never", &image, json!({"imagePullPolicy": "Never"})));
    let why = waits(&kubectl, "never", "ErrImageNeverPull");
    assert!(
        why.contains(&format!("Container image \"{image}\" is not present with pull policy of Never")),
        "{why}"
    );
    says(&kubectl, "never", "Warning ErrImageNeverPull Container image");
    assert_eq!(registry.asked().len(), 0);

    assert_eq!(run(&kubectl, "first", &image, json!({"imagePullPolicy": "IfNotPresent"})), "v1\n");
    let after_first = registry.count("/manifests/");
    assert_eq!(run(&kubectl, "second", &image, json!({"imagePullPolicy": "IfNotPresent"})), "v1\n");
    assert_eq!(registry.count("/manifests/"), after_first, "it is here");
    assert_eq!(run(&kubectl, "third", &image, json!({"imagePullPolicy": "Always"})), "v1\n");
    assert_eq!(registry.count("/manifests/"), after_first + 1, "it is asked what the tag stands for");
    assert_eq!(registry.count("/blobs/"), 4, "and what is here is not fetched");
    wait::until("the one that never pulls starts, too", wait::LATER, || {
        let seen = kubectl.ok(&["get", "pod", "never", "-o", "jsonpath={.status.phase}"]);
        wait::check(seen == "Succeeded", seen)
    });

    let missing = format!("{}/app:v2", registry.host);
    kubectl.ok_with(&["apply", "-f", "-"], &pod("missing", &missing, json!({})));
    let why = waits(&kubectl, "missing", "ImagePullBackOff");
    assert!(why.contains(&format!("Back-off pulling image \"{missing}\"")) && why.contains("404"), "{why}");
    kubectl.ok_with(&["apply", "-f", "-"], &pod("wrong", "UPPER", json!({})));
    let why = waits(&kubectl, "wrong", "InvalidImageName");
    assert!(why.contains("couldn't parse image name \"UPPER\""), "{why}");
    says(&kubectl, "wrong", "Warning InspectFailed Failed to apply default image tag \"UPPER\"");
}

#[test]
fn a_pod_that_is_deleted_while_its_image_comes_does_not_wait_for_it() {
    if !need::all(
        "a_pod_that_is_deleted_while_its_image_comes_does_not_wait_for_it",
        &[Need::Root, Need::Kubectl],
    ) {
        return;
    }
    let made = app("v1");
    let layer = made.layers[0].clone();
    let registry = Registry::with(made, move |asked| {
        asked.path.contains(&layer).then(|| Answer::Stall(vec![0x1f, 0x8b]))
    });
    // As good as for ever.
    let cluster = cluster(&[&registry.host], &["--image-pull-patience=3600"]);
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], &pod("impatient", &registry.name(), json!({})));
    wait::until("the layer is asked for", wait::SOON, || {
        let asked = registry.count("/blobs/");
        wait::check(asked >= 2, asked)
    });
    kubectl.ok(&["delete", "pod", "impatient", "--timeout=600s"]);
    let said = events(&kubectl, "impatient").join("\n");
    assert!(!said.contains("Warning"), "{said}");
}

#[test]
fn an_image_from_a_file_runs_without_any_registry_and_stays_while_it_is_used() {
    if !need::all(
        "an_image_from_a_file_runs_without_any_registry_and_stays_while_it_is_used",
        &[Need::Root, Need::Kubectl],
    ) {
        return;
    }
    let cluster = cluster(&[], &[]);
    let kubectl = cluster.kubectl();
    let file = cluster.scratch().join("app.tar");
    std::fs::write(&file, docker_archive(&app("saved"), &["app:saved"])).unwrap();
    let image = |args: &[&str]| {
        let mut command = cluster.cli();
        command.arg("image").args(args).arg("--data-dir").arg(cluster.data_dir());
        Outcome::of(&mut command, "")
    };
    assert_eq!(
        image(&["import", file.to_str().unwrap()]).success().unwrap(),
        "docker.io/library/app:saved\n"
    );
    kubectl.ok_with(&["apply", "-f", "-"], &pod("used", "app:saved", json!({"args": ["sleep", "3600"]})));
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/used", "--timeout=600s"]);
    let refused = image(&["rm", "app:saved"]);
    assert!(refused.code != 0 && refused.stderr.contains("in use by a container"), "{refused:?}");
    kubectl.ok(&["delete", "pod", "used", "--now"]);
    wait::until("it can be removed once its pod is gone", wait::SOON, || {
        image(&["rm", "app:saved"]).success()
    });
    let listed = image(&["ls", "-o", "json"]).success().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap(), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_nobody_uses_make_room_for_new_ones() {
    if !need::all("images_that_nobody_uses_make_room_for_new_ones", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let small = |tag: &str| {
        let tag_layer = Layer::new().file("tag", tag.as_bytes()).done();
        let program = Layer::new().program("toolbox", &made::TOOLBOX).done();
        Made::new(json!({"Entrypoint": ["/toolbox"]}), vec![program, tag_layer])
    };
    let (old, used, new) = (
        Registry::with(small("old"), |_| None),
        Registry::with(small("used"), |_| None),
        Registry::with(small("new"), |_| None),
    );
    // A disk is always fuller than nothing, so after each pull everything goes that may.
    let hosts = [&*old.host, &*used.host, &*new.host];
    let cluster = cluster(&hosts, &["--image-gc-high=0", "--image-gc-low=0", "--image-gc-min-age=0"]);
    let (kubectl, http) = (cluster.kubectl(), Http::admin(&cluster));
    run(&kubectl, "old", &old.name(), json!({"args": ["true"]}));
    kubectl.ok_with(&["apply", "-f", "-"], &pod("used", &used.name(), json!({"args": ["sleep", "3600"]})));
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/used", "--timeout=600s"]);
    let names = || async {
        let node = http.get("/api/v1/nodes/machine").await.map_err(|error| error.to_string())?;
        Ok::<_, String>(node["status"]["images"].to_string())
    };
    wait::until_async("both are listed: a pod that is over still has its container", wait::SOON, || async {
        let listed = names().await?;
        wait::check(listed.contains(&old.name()) && listed.contains(&used.name()), listed)
    })
    .await;
    let uid = kubectl.ok(&["get", "pod", "old", "-o", "jsonpath={.metadata.uid}"]);
    kubectl.ok(&["delete", "pod", "old", "--now"]);
    let records = cluster.data_dir().join("node/pods").join(uid);
    wait::until("its container is forgotten", wait::SOON, || {
        wait::check(!records.exists(), records.display())
    });
    run(&kubectl, "new", &new.name(), json!({"args": ["true"]}));
    wait::until_async("the old one has gone, and no other", wait::SOON, || async {
        let listed = names().await?;
        let holds =
            !listed.contains(&old.name()) && listed.contains(&used.name()) && listed.contains(&new.name());
        wait::check(holds, listed)
    })
    .await;
    let layers = cluster.data_dir().join("node/images/layers");
    wait::until("the layers of the old one have gone, and the program is shared", wait::LATER, || {
        wait::check(count(&layers) == 3, count(&layers))
    });
    assert_eq!(run(&kubectl, "again", &old.name(), json!({"args": ["cat", "/tag"]})), "old");
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn an_image_of_very_many_layers_is_stacked() {
    if !need::all("an_image_of_very_many_layers_is_stacked", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let mut layers = vec![Layer::new().program("toolbox", &made::TOOLBOX).done()];
    layers.extend((0..127).map(|number| Layer::new().file("last", format!("{number}\n").as_bytes()).done()));
    let registry = Registry::with(Made::of_docker(json!({"Entrypoint": ["/toolbox"]}), layers), |_| None);
    let cluster = cluster(&[&registry.host], &[]);
    let kubectl = cluster.kubectl();
    assert_eq!(run(&kubectl, "tall", &registry.name(), json!({"args": ["cat", "/last"]})), "126\n");
}
