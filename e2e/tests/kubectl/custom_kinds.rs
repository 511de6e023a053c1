//! Real kubectl, oldest and newest at hand, with a kind that the server learns of while it runs.

use std::path::PathBuf;

use claw_e2e::{
    Cluster, Kubectl, Options,
    binary::workspace,
    cluster::write,
    need::{self, Need},
    wait,
};

fn example(name: &str) -> String {
    let path: PathBuf = workspace().join("examples/custom-kind").join(name);
    path.to_string_lossy().into_owned()
}

#[test]
fn every_kubectl_lives_with_a_kind_from_its_definition_to_its_end() {
    if !need::all("every_kubectl_lives_with_a_kind_from_its_definition_to_its_end", &[Need::Kubectl]) {
        return;
    }
    let mut cluster = Cluster::start(Options::server());
    for kubectl in cluster.kubectls() {
        eprintln!("--- {}", kubectl.name);
        defined(&kubectl);
        read_in_every_way(&kubectl);
        changed(&cluster, &kubectl);
        refused(&kubectl);
        cluster.stop();
        cluster.restart();
        let kubectl = cluster
            .kubectls()
            .into_iter()
            .find(|other| other.name == kubectl.name)
            .expect("it is still there");
        assert!(
            kubectl.ok(&["get", "dset", "books"]).contains("books"),
            "a restart keeps the kind and its objects"
        );
        taken_away(&kubectl);
    }
}

fn defined(kubectl: &Kubectl) {
    let applied = kubectl.ok(&["apply", "-f", &example("definition.yaml")]);
    assert_eq!(applied, "customresourcedefinition.apiextensions.k8s.io/datasets.data.example.com created\n");
    kubectl.ok(&["wait", "--for=condition=Established", "crd/datasets.data.example.com", "--timeout=600s"]);
    assert!(kubectl.ok(&["get", "crd"]).contains("datasets.data.example.com"));
    let resources = kubectl.ok(&["api-resources", "--api-group=data.example.com"]);
    assert!(
        resources.contains("datasets") && resources.contains("dset") && resources.contains("Dataset"),
        "{resources}"
    );
    assert_eq!(
        kubectl.ok(&["apply", "-f", &example("object.yaml")]),
        "dataset.data.example.com/books created\n"
    );
    assert_eq!(
        kubectl.ok(&["apply", "-f", &example("object.yaml")]),
        "dataset.data.example.com/books unchanged\n"
    );
}

fn read_in_every_way(kubectl: &Kubectl) {
    let table = kubectl.ok(&["get", "dset"]);
    let header: Vec<_> = table.lines().next().unwrap_or("").split_whitespace().collect();
    assert_eq!(header, ["NAME", "FORMAT", "COPIES", "AGE"]);
    let row: Vec<_> = table.lines().nth(1).unwrap_or("").split_whitespace().collect();
    assert_eq!(row[..3], ["books", "parquet", "1"]);
    let wide = kubectl.ok(&["get", "datasets.data.example.com", "-o", "wide"]);
    assert!(wide.contains("SOURCE") && wide.contains("https://example.com/books"), "{wide}");
    assert!(kubectl.ok(&["get", "all"]).contains("dataset.data.example.com/books"));
    assert!(kubectl.ok(&["get", "dset", "--field-selector", "spec.format=text", "-o", "name"]).is_empty());
    assert!(kubectl.ok(&["describe", "dataset", "books"]).contains("https://example.com/books"));
    let explained = kubectl.ok(&["explain", "dataset"]);
    assert!(explained.contains("Data that training runs read"), "{explained}");
    let explained = kubectl.ok(&["explain", "dataset.spec.shards.records"]);
    assert!(explained.contains("records") && explained.contains("integer"), "{explained}");
    let explained = kubectl.ok(&["explain", "dataset.metadata.labels"]);
    assert!(explained.contains("labels"), "{explained}");
}

fn changed(cluster: &Cluster, kubectl: &Kubectl) {
    let copies = || kubectl.ok(&["get", "dset", "books", "-o", "jsonpath={.spec.copies}"]);
    kubectl.ok(&["patch", "dset", "books", "--type=merge", "-p", r#"{"spec":{"copies":2}}"#]);
    assert_eq!(copies(), "2");
    kubectl.ok(&[
        "patch",
        "dset",
        "books",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/spec/copies","value":3}]"#,
    ]);
    kubectl.ok(&["scale", "dataset", "books", "--replicas=5"]);
    assert_eq!(copies(), "5");
    kubectl.ok(&["scale", "dataset", "books", "--current-replicas=5", "--replicas=4"]);
    assert_eq!(copies(), "4");
    kubectl.ok(&["label", "dset", "books", "kind=prose"]);
    assert!(
        kubectl
            .ok(&["get", "dset", "-l", "kind=prose", "-o", "name"])
            .contains("dataset.data.example.com/books")
    );
    kubectl.ok(&["annotate", "dset", "books", "note=kept"]);
    let watch =
        kubectl.spawn(&["get", "dset", "-w"], &cluster.scratch().join(format!("watch-{}", kubectl.name)));
    wait::until("get -w shows the object", wait::SOON, || {
        let seen = watch.output();
        wait::check(seen.contains("books"), seen)
    });
    let file = write(
        &cluster.scratch().join("books.yaml"),
        &kubectl.ok(&["get", "dset", "books", "-o", "yaml"]).replace("copies: 4", "copies: 6"),
    );
    assert_eq!(
        kubectl.ok(&["replace", "-f", &file.to_string_lossy()]),
        "dataset.data.example.com/books replaced\n"
    );
    wait::until("get -w shows the change", wait::SOON, || {
        let seen = watch.output();
        wait::check(seen.contains("parquet   6"), seen)
    });
}

fn refused(kubectl: &Kubectl) {
    let object = |name: &str, spec: &str| {
        format!(
            "apiVersion: data.example.com/v1\nkind: Dataset\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        )
    };
    let wrong = kubectl.fails(&["apply", "-f", "-"], &object("broken", "source: nowhere"));
    assert!(wrong.contains("\"nowhere\" is no URL") && wrong.contains("spec.source"), "{wrong}");
    let wrong = kubectl.fails(&["apply", "-f", "-"], &object("broken", "source: 'https://a.b', copies: -1"));
    assert!(wrong.contains("should be greater than or equal to 0"), "{wrong}");
    let wrong = kubectl.fails(&["apply", "-f", "-"], &object("broken", "source: 'https://a.b', copeis: 1"));
    assert!(wrong.contains("copeis"), "{wrong}");
    let moved = kubectl
        .fails(&["patch", "dset", "books", "--type=merge", "-p", r#"{"spec":{"source":"https://c.d"}}"#], "");
    assert!(moved.contains("the source of a dataset stays"), "{moved}");
}

fn taken_away(kubectl: &Kubectl) {
    kubectl.ok_with(
        &["apply", "-f", "-"],
        "apiVersion: data.example.com/v1\nkind: Dataset\nmetadata: {name: more}\nspec: {source: 'https://a.b'}\n",
    );
    kubectl.ok(&["delete", "dset", "books"]);
    kubectl.ok(&["delete", "crd", "datasets.data.example.com", "--timeout=600s"]);
    kubectl.finds_no_kind("dset");
    // Defined again, the kind begins without the objects of its former life.
    kubectl.ok(&["apply", "-f", &example("definition.yaml")]);
    kubectl.ok(&["wait", "--for=condition=Established", "crd/datasets.data.example.com", "--timeout=600s"]);
    assert!(kubectl.ok(&["get", "dset", "-o", "name"]).is_empty());
    kubectl.ok(&["delete", "crd", "datasets.data.example.com", "--timeout=600s"]);
}
