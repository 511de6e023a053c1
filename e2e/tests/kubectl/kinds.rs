//! Every kind that the server brings, through real kubectl: made, shown, explained, changed, and refused where it is wrong.
//! What is expected of each stands in `data/kinds.yaml`.

use std::fmt::Write as _;

use claw_e2e::{
    Cluster, Kubectl, Options,
    kubectl::Outcome,
    need::{self, Need},
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    kind: String,
    /// What to call it on the command line, where its name alone is not enough.
    resource: Option<String>,
    manifest: Value,
    header: String,
    #[serde(default)]
    wide: String,
    row: Vec<String>,
    describe: Vec<String>,
    #[serde(default)]
    describe_from: u32,
    explain: String,
    patch: Value,
    path: String,
    patched: String,
    invalid: Value,
    says: String,
    frozen: Option<Value>,
    because: Option<String>,
    warns: Option<String>,
}

/// JSON merge patch, RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        target.clone_from(patch);
        return;
    };
    for (name, change) in changes {
        match target.as_object_mut() {
            Some(fields) if change.is_null() => drop(fields.remove(name)),
            _ => merge(&mut target[name], change),
        }
    }
}

/// What went wrong with one kind, so that one run tells all.
struct Judge<'a> {
    kubectl: &'a Kubectl,
    case: &'a Case,
    faults: &'a mut String,
}

impl Judge<'_> {
    fn run(&mut self, args: &[&str], input: &str) -> Outcome {
        Outcome::of(&mut self.kubectl.command(args), input)
    }

    fn ok(&mut self, args: &[&str]) -> String {
        let outcome = self.run(args, "");
        self.holds(outcome.code == 0, &format!("{args:?} works"), &outcome.stderr);
        outcome.stdout
    }

    fn holds(&mut self, holds: bool, what: &str, seen: &str) {
        if !holds {
            let (who, kind) = (&self.kubectl.name, &self.case.kind);
            let _ = writeln!(self.faults, "--- {who}, {kind}: {what}, saw:\n{seen}\n");
        }
    }

    fn refused(&mut self, args: &[&str], input: &str, because: &str) {
        let outcome = self.run(args, input);
        let refused = outcome.code != 0 && outcome.stderr.contains(because);
        self.holds(
            refused,
            &format!("{args:?} is refused with {because}"),
            &(outcome.stdout + &outcome.stderr),
        );
    }

    /// The minor version of this kubectl.
    fn minor(&self) -> u32 {
        self.kubectl.name.rsplit('.').next().and_then(|minor| minor.parse().ok()).unwrap_or(u32::MAX)
    }

    fn go(&mut self) {
        let case = self.case;
        let name = case.manifest["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let resource = case.resource.clone().unwrap_or_else(|| case.kind.to_lowercase());
        let target = format!("{resource}/{name}");
        self.create();
        self.show(&resource, &name);
        self.ok(&[
            "explain",
            &format!("{}.{}", resource.split('.').next().unwrap_or_default(), case.explain),
        ]);
        self.ok(&["patch", &target, "--type=strategic", "-p", &case.patch.to_string()]);
        let seen = self.ok(&["get", &target, "-o", &format!("jsonpath={}", case.path)]);
        self.holds(seen == case.patched, &format!("{} is {}", case.path, case.patched), &seen);
        if let (Some(frozen), Some(because)) = (&case.frozen, &case.because) {
            self.refused(&["patch", &target, "--type=merge", "-p", &frozen.to_string()], "", because);
        }
        self.ok(&["delete", &target]);
    }

    fn create(&mut self) {
        let case = self.case;
        let mut broken = case.manifest.clone();
        merge(&mut broken, &case.invalid);
        // Old versions judge by themselves before they ask.
        self.refused(&["create", "--validate=false", "-f", "-"], &broken.to_string(), &case.says);
        let made = self.run(&["create", "-f", "-"], &case.manifest.to_string());
        self.holds(made.code == 0, "it can be made", &made.stderr);
        match &case.warns {
            Some(warning) => self.holds(
                made.stderr.contains(warning),
                &format!("making it warns: {warning}"),
                &made.stderr,
            ),
            None => self.holds(made.stderr.is_empty(), "making it warns of nothing", &made.stderr),
        }
    }

    fn show(&mut self, resource: &str, name: &str) {
        let case = self.case;
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let table = self.ok(&["get", resource, name]);
        let header = table.lines().next().unwrap_or_default();
        self.holds(words(header) == words(&case.header), &format!("the header is {}", case.header), &table);
        let wide = self.ok(&["get", resource, name, "-o", "wide"]);
        let expected = format!("{} {}", case.header, case.wide);
        let header = wide.lines().next().unwrap_or_default();
        self.holds(words(header) == words(&expected), &format!("the wide header is {expected}"), &wide);
        for text in &case.row {
            self.holds(wide.contains(text.as_str()), &format!("the row has {text}"), &wide);
        }
        if self.minor() >= case.describe_from {
            let described = self.ok(&["describe", resource, name]);
            for text in &case.describe {
                self.holds(described.contains(text.as_str()), &format!("describe says {text}"), &described);
            }
        }
    }
}

/// How many cases go at the same time: kubectl spends most of its time starting.
const WORKERS: usize = 2;

#[test]
fn every_kind_is_made_shown_changed_and_judged_as_kubectl_knows_it() {
    if !need::all("every_kind_is_made_shown_changed_and_judged_as_kubectl_knows_it", &[Need::Kubectl]) {
        return;
    }
    let cases: Vec<Case> =
        serde_yaml::from_str(include_str!("../data/kinds.yaml")).expect("the data are sound");
    let cluster = Cluster::start(Options::server());
    let mut faults = String::new();
    for kubectl in &cluster.kubectls() {
        faults.push_str(&judge_all(kubectl, &cases));
    }
    assert!(faults.is_empty(), "{faults}");
}

fn judge_all(kubectl: &Kubectl, cases: &[Case]) -> String {
    let judge = |cases: &[Case]| {
        let mut faults = String::new();
        for case in cases {
            Judge { kubectl, case, faults: &mut faults }.go();
        }
        faults
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = cases
            .chunks(cases.len().div_ceil(WORKERS))
            .map(|part| scope.spawn(move || judge(part)))
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a judge does not panic")).collect()
    })
}

/// What kubectl makes from its own command line, and a field of what comes of it. Newer versions send these as protobuf.
const GENERATED: [(&str, &str, &str); 19] = [
    ("create deployment d --image=i --port=80", "deployment/d {.spec.replicas}", "1"),
    ("create job j --image=i -- sleep 1", "job/j {.spec.template.spec.restartPolicy}", "Never"),
    (
        "create cronjob c --image=i --schedule=@daily",
        "cronjob/c {.spec.jobTemplate.spec.template.spec.restartPolicy}",
        "OnFailure",
    ),
    ("create job k --from=cronjob/c", "job/k {.metadata.ownerReferences[0].kind}", "CronJob"),
    ("create service clusterip s1 --tcp=80:8080", "service/s1 {.spec.ports[0].targetPort}", "8080"),
    (
        "create service nodeport s2 --tcp=80 --node-port=30080",
        "service/s2 {.spec.ports[0].nodePort}",
        "30080",
    ),
    ("create service loadbalancer s3 --tcp=80", "service/s3 {.spec.type}", "LoadBalancer"),
    (
        "create service externalname s4 --external-name=example.com",
        "service/s4 {.spec.externalName}",
        "example.com",
    ),
    ("create serviceaccount a", "serviceaccount/a {.metadata.name}", "a"),
    (
        "create role r --verb=get,list --resource=pods,deployments.apps",
        "role/r {.rules[1].apiGroups[0]}",
        "apps",
    ),
    (
        "create rolebinding b --role=r --user=u --serviceaccount=default:a",
        "rolebinding/b {.subjects[1].kind}",
        "ServiceAccount",
    ),
    (
        "create clusterrole cr --verb=get --non-resource-url=/x",
        "clusterrole/cr {.rules[0].nonResourceURLs[0]}",
        "/x",
    ),
    (
        "create clusterrolebinding cb --clusterrole=cr --group=g",
        "clusterrolebinding/cb {.subjects[0].kind}",
        "Group",
    ),
    ("create quota q --hard=pods=3,secrets=7", "quota/q {.spec.hard.pods}", "3"),
    (
        "create poddisruptionbudget p --selector=app=d --min-available=50%",
        "pdb/p {.spec.minAvailable}",
        "50%",
    ),
    (
        "create priorityclass high --value=7 --preemption-policy=Never",
        "priorityclass/high {.preemptionPolicy}",
        "Never",
    ),
    (
        "create ingress i --rule=a.b/c*=s1:80,tls=t",
        "ingress/i {.spec.rules[0].http.paths[0].pathType}",
        "Prefix",
    ),
    ("expose deployment d --port=80 --name=s5", "service/s5 {.spec.selector.app}", "d"),
    ("run alone --image=i --restart=Never", "pod/alone {.spec.containers[0].image}", "i"),
];

#[test]
fn whatever_kubectl_makes_by_itself_arrives() {
    if !need::all("whatever_kubectl_makes_by_itself_arrives", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    let kubectl = cluster.kubectl();
    for (command, what, expected) in GENERATED {
        kubectl.ok(&command.split(' ').collect::<Vec<_>>());
        let (target, path) = what.split_once(' ').expect("an object and a path");
        assert_eq!(kubectl.ok(&["get", target, "-o", &format!("jsonpath={path}")]), expected, "{command}");
    }
}

#[test]
fn a_certificate_request_is_approved_once_and_names_who_asked() {
    if !need::all("a_certificate_request_is_approved_once_and_names_who_asked", &[Need::Kubectl]) {
        return;
    }
    let cases: Vec<Case> =
        serde_yaml::from_str(include_str!("../data/kinds.yaml")).expect("the data are sound");
    let request = cases.iter().find(|case| case.kind == "CertificateSigningRequest").expect("it is listed");
    let cluster = Cluster::start(Options::server());
    for kubectl in cluster.kubectls() {
        let mut manifest = request.manifest.clone();
        manifest["spec"]["username"] = "somebody-else".into();
        kubectl.ok_with(&["create", "-f", "-"], &manifest.to_string());
        let asked = kubectl.ok(&["get", "csr", "jane", "-o", "jsonpath={.spec.username}"]);
        assert_ne!(asked, "somebody-else");
        assert!(!asked.is_empty());
        kubectl.ok(&["certificate", "approve", "jane"]);
        let table = kubectl.ok(&["get", "csr", "jane"]);
        assert!(table.contains("Approved"), "{table}");
        let denied = kubectl.fails(&["certificate", "deny", "jane"], "");
        // Newer clients look before they ask.
        let either = ["mutually exclusive", "already Approved"];
        assert!(either.iter().any(|words| denied.contains(words)), "{denied}");
        kubectl.ok(&["delete", "csr", "jane"]);
    }
}
