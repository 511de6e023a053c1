//! Real kubectl asks for rights, gives them, and uses them.

use claw_e2e::{
    Cluster, Kubectl, Options,
    kubectl::Outcome,
    need::{self, Need},
    wait,
};

#[test]
fn kubectl_gives_rights_and_uses_them() {
    if !need::all("kubectl_gives_rights_and_uses_them", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1).with(&["--hollow"]));
    for (number, kubectl) in cluster.kubectls().iter().enumerate() {
        eprintln!("--- {}", kubectl.name);
        let namespace = format!("team-{number}");
        kubectl.ok(&["create", "namespace", &namespace]);
        let story = Story { cluster: &cluster, kubectl, namespace: &namespace };
        story.namespaces_come_with_an_account();
        story.rights_by_role_and_binding();
        story.what_is_denied_and_why();
        story.acting_as_somebody_else();
        story.a_token_is_its_account();
        story.default_roles_are_made_of_parts();
    }
}

struct Story<'a> {
    cluster: &'a Cluster,
    kubectl: &'a Kubectl,
    namespace: &'a str,
}

impl Story<'_> {
    fn args<'b>(&'b self, args: &[&'b str]) -> Vec<&'b str> {
        [&["-n", self.namespace], args].concat()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        self.kubectl.ok(&self.args(args))
    }

    #[track_caller]
    fn fails(&self, args: &[&str]) -> String {
        self.kubectl.fails(&self.args(args), "")
    }

    fn namespaces_come_with_an_account(&self) {
        wait::until("the namespace has its account and the certificate", wait::SOON, || {
            let account = self.kubectl.run(&self.args(&["get", "serviceaccount", "default"]));
            let map = self.kubectl.run(&self.args(&["get", "configmap", "kube-root-ca.crt", "-o", "yaml"]));
            wait::check(
                account.code == 0 && map.stdout.contains("BEGIN CERTIFICATE"),
                format!("{account:?} {map:?}"),
            )
        });
    }

    fn rights_by_role_and_binding(&self) {
        let account = format!("{}:bot", self.namespace);
        self.ok(&["create", "serviceaccount", "bot"]);
        self.ok(&["create", "role", "reader", "--verb=get,list", "--resource=configmaps"]);
        assert_eq!(self.can_i("list", "configmaps"), "no\n");
        let subject = format!("--serviceaccount={account}");
        self.ok(&["create", "rolebinding", "bot-reads", "--role=reader", &subject]);
        assert_eq!(self.can_i("list", "configmaps"), "yes\n");
        assert_eq!(self.can_i("delete", "configmaps"), "no\n");
        assert_eq!(self.ok(&["auth", "can-i", "delete", "nodes"]), "yes\n");
    }

    fn user(&self) -> String {
        format!("system:serviceaccount:{}:bot", self.namespace)
    }

    /// What the service account may, as kubectl says it.
    fn can_i(&self, verb: &str, resource: &str) -> String {
        self.kubectl.run(&self.args(&["auth", "can-i", verb, resource, "--as", &self.user()])).stdout
    }

    fn what_is_denied_and_why(&self) {
        let user = self.user();
        let said = self.fails(&["get", "pods", "--as", &user]);
        let first = format!(
            "Error from server (Forbidden): pods is forbidden: User \"{user}\" cannot list resource \"pods\" in API group \"\" in the namespace \"{}\"",
            self.namespace
        );
        assert!(said.starts_with(&first), "{said}");
        assert!(said.contains("kubectl create role NAME --verb=list --resource=pods"), "{said}");
        let list = self.ok(&["auth", "can-i", "--list", "--as", &user]);
        assert!(
            list.lines().any(|line| line.starts_with("configmaps") && line.contains("[get list]")),
            "{list}"
        );
        assert!(list.contains("selfsubjectaccessreviews.authorization.k8s.io"), "{list}");
    }

    fn acting_as_somebody_else(&self) {
        let said = self.fails(&["get", "configmaps", "--as", "eve"]);
        assert!(said.contains("User \"eve\" cannot list resource \"configmaps\""), "{said}");
        self.ok(&["get", "configmaps", "--as", "eve", "--as-group", "system:masters"]);
        let everywhere = self.fails(&["get", "configmaps", "-A", "--as", &self.user()]);
        assert!(everywhere.contains("at the cluster scope"), "{everywhere}");
    }

    fn a_token_is_its_account(&self) {
        // `create token` and `auth whoami` are younger than the oldest kubectl.
        if !self.kubectl.run(&["create", "token", "--help"]).stdout.contains("--duration") {
            eprintln!("{} has no `create token`", self.kubectl.name);
            return;
        }
        let token = self.ok(&["create", "token", "bot", "--duration=10m"]);
        let token = token.trim();
        let as_bot = |args: &[&str]| -> Outcome {
            let server = format!("--server={}", self.cluster.url());
            let mut own =
                vec!["--kubeconfig=/dev/null", &server, "--insecure-skip-tls-verify", "--token", token];
            own.extend(["-n", self.namespace]);
            own.extend(args);
            self.kubectl.run(&own)
        };
        let maps = as_bot(&["get", "configmaps"]).success().expect("a token reads what it may");
        assert!(maps.contains("kube-root-ca.crt"), "{maps}");
        let secrets = as_bot(&["get", "secrets"]);
        assert!(secrets.stderr.contains("User \"system:serviceaccount:"), "{secrets:?}");
        let who = as_bot(&["auth", "whoami", "-o", "yaml"]).success().expect("a token says who it is");
        assert!(who.contains(&self.user()) && who.contains("system:serviceaccounts"), "{who}");
        let me = self.ok(&["auth", "whoami"]);
        assert!(me.contains("kubernetes-admin") && me.contains("system:masters"), "{me}");
        self.ok(&["delete", "serviceaccount", "bot"]);
        let gone = as_bot(&["get", "configmaps"]);
        assert!(gone.code != 0, "the token of a deleted account is void: {gone:?}");
    }

    fn default_roles_are_made_of_parts(&self) {
        wait::until("admin shows what it is made of", wait::SOON, || {
            let admin = self.kubectl.ok(&["get", "clusterrole", "admin", "-o", "yaml"]);
            wait::check(admin.contains("rolebindings") && admin.contains("deployments"), admin)
        });
    }
}
