//! Who may do what: roles, what nobody may give away, nodes, and the questions about it.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use claw_apiserver::{
    auth::{
        Access, BoundPods, Identity,
        service_accounts::{ServiceAccounts, SigningKey},
    },
    service::ObjectService,
    store,
};
use claw_client::{
    ResourceRef, Verb,
    request::{ListOptions, WatchOptions, WriteOptions},
};
use claw_schemas::{Registry, gpu, status::Reason};
use serde_json::{Value, json};

use crate::world::{World, bound_pod, configmaps, namespaces, pod, pods};

const RBAC: &str = "rbac.authorization.k8s.io";

/// A service that asks who somebody is, entered as an administrator.
async fn guarded() -> (World, Arc<Access>) {
    let store = store::memory();
    let access = Access::start(store.clone()).await.unwrap();
    let service = ObjectService::new(store.clone(), Registry::builtin(), access.clone());
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    service.set_service_accounts(Arc::new(ServiceAccounts::new(SigningKey::from_pem(&pem).unwrap(), store)));
    service.ensure_bootstrap_objects().await.unwrap();
    (World { service: Arc::new(service), who: Identity::loopback("test") }, access)
}

/// The same service entered as somebody else.
fn as_user(world: &World, user: &str, groups: &[&str]) -> World {
    let groups = [groups, &["system:authenticated"]].concat();
    World { service: world.service.clone(), who: Identity::of(user, &groups) }
}

fn rbac(plural: &str) -> ResourceRef {
    ResourceRef::collection(RBAC, "v1", plural)
}

fn reviews(group: &str, plural: &str) -> ResourceRef {
    ResourceRef::collection(group, "v1", plural)
}

fn accounts() -> ResourceRef {
    ResourceRef::collection("", "v1", "serviceaccounts").in_namespace("default")
}

fn rule(verbs: &[&str], resources: &[&str]) -> Value {
    json!({"apiGroups": [""], "resources": resources, "verbs": verbs})
}

fn role(name: &str, rules: &[Value]) -> Value {
    json!({"metadata": {"name": name}, "rules": rules})
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": user}],
    })
}

/// Gives a user rules in `default`.
async fn give(world: &World, user: &str, rules: &[Value]) {
    let name = format!("of-{user}");
    world.create(rbac("roles").in_namespace("default"), &role(&name, rules)).await.unwrap();
    let binding = binding(&name, "Role", &name, user);
    world.create(rbac("rolebindings").in_namespace("default"), &binding).await.unwrap();
}

/// Gives a user a rule everywhere.
async fn give_cluster(world: &World, user: &str, name: &str, rule: &Value) {
    world.create(rbac("clusterroles"), &role(name, std::slice::from_ref(rule))).await.unwrap();
    let binding = binding(name, "ClusterRole", name, user);
    world.create(rbac("clusterrolebindings"), &binding).await.unwrap();
}

#[tokio::test]
async fn a_denial_says_what_is_missing_and_how_it_is_given() {
    let (world, _) = guarded().await;
    let eve = as_user(&world, "eve", &[]);
    let error = eve.list(pods(), ListOptions::default()).await.unwrap_err();
    assert_eq!(error.code, 403);
    assert!(
        error.message.starts_with(
            "pods is forbidden: User \"eve\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\": "
        ),
        "{error}"
    );
    let rule = r#"has the rule {APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#;
    assert!(error.message.contains(rule), "{error}");
    assert!(error.message.contains("kubectl create rolebinding NAME --role=NAME --user=eve"), "{error}");
}

#[tokio::test]
async fn rights_begin_and_end_with_their_objects() {
    let (world, _) = guarded().await;
    let eve = as_user(&world, "eve", &[]);
    give(&world, "eve", &[rule(&["list", "watch"], &["pods"])]).await;
    eve.list(pods(), ListOptions::default()).await.unwrap();
    eve.try_watch(pods()).await.unwrap();
    assert_eq!(
        eve.list(pods().in_namespace("kube-system"), ListOptions::default()).await.unwrap_err().code,
        403
    );
    assert_eq!(eve.get(pods().named("x")).await.unwrap_err().code, 403);
    world
        .delete(rbac("rolebindings").in_namespace("default").named("of-eve"), Default::default())
        .await
        .unwrap();
    assert_eq!(eve.list(pods(), ListOptions::default()).await.unwrap_err().code, 403);
}

#[tokio::test]
async fn a_watch_of_one_name_is_about_that_name() {
    let (world, _) = guarded().await;
    let mut one = rule(&["watch", "list"], &["configmaps"]);
    one["resourceNames"] = json!(["a"]);
    give(&world, "eve", &[one]).await;
    let eve = as_user(&world, "eve", &[]);
    let watch = async |selector: &str| {
        let options = WatchOptions { field_selector: selector.to_owned(), ..WatchOptions::default() };
        eve.service.watch(&eve.who, configmaps(), options, claw_client::request::View::Object).await.map(drop)
    };
    watch("metadata.name=a").await.unwrap();
    assert_eq!(watch("metadata.name=b").await.unwrap_err().code, 403);
    assert_eq!(watch("").await.unwrap_err().code, 403);
}

#[tokio::test]
async fn a_namespace_administrator_reads_the_namespace_and_no_other() {
    let (world, _) = guarded().await;
    let to_eve = binding("eve", "ClusterRole", "admin", "eve");
    world.create(rbac("rolebindings").in_namespace("default"), &to_eve).await.unwrap();
    let eve = as_user(&world, "eve", &[]);
    eve.get(namespaces().named("default")).await.unwrap();
    assert_eq!(eve.get(namespaces().named("kube-system")).await.unwrap_err().code, 403);
    eve.create(configmaps(), &json!({"metadata": {"name": "a"}})).await.unwrap();
    assert_eq!(eve.list(namespaces(), ListOptions::default()).await.unwrap_err().code, 403);
}

#[tokio::test]
async fn an_apply_takes_the_right_to_patch_and_that_to_create_where_there_is_nothing() {
    let (world, _) = guarded().await;
    give(&world, "eve", &[rule(&["patch"], &["configmaps"])]).await;
    let eve = as_user(&world, "eve", &[]);
    let config =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}});
    let one = || configmaps().named("a");
    assert_eq!(eve.apply(one(), "m", &config, false).await.unwrap_err().code, 403);
    world.create(configmaps(), &json!({"metadata": {"name": "a"}})).await.unwrap();
    eve.apply(one(), "m", &config, false).await.unwrap();
    give(&world, "bob", &[rule(&["create"], &["configmaps"])]).await;
    let bob = as_user(&world, "bob", &[]);
    assert_eq!(bob.apply(one(), "m", &config, false).await.unwrap_err().code, 403);
}

#[tokio::test]
async fn a_put_that_makes_something_takes_the_right_to_create_it() {
    let (world, _) = guarded().await;
    let services = ResourceRef::collection("", "v1", "services").in_namespace("default");
    give(&world, "eve", &[rule(&["update"], &["services"])]).await;
    let eve = as_user(&world, "eve", &[]);
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let error = eve.update(services.clone().named("s"), &service).await.unwrap_err();
    assert!(error.code == 403 && error.message.contains("cannot create"), "{error}");
    world.update(services.named("s"), &service).await.unwrap();
}

#[tokio::test]
async fn nobody_grants_more_than_they_hold() {
    let (world, _) = guarded().await;
    let roles = || rbac("roles").in_namespace("default");
    let writes = json!({"apiGroups": [RBAC], "resources": ["roles"], "verbs": ["create", "patch"]});
    give(&world, "eve", &[rule(&["get"], &["pods"]), writes]).await;
    let eve = as_user(&world, "eve", &[]);
    eve.create(roles(), &role("same", &[rule(&["get"], &["pods"])])).await.unwrap();
    let more = role("more", &[rule(&["get", "delete"], &["pods", "secrets"])]);
    let error = eve.create(roles(), &more).await.unwrap_err();
    assert_eq!(error.reason, Reason::Forbidden);
    for part in [
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"eve\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:",
        r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#,
        r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}"#,
    ] {
        assert!(error.message.contains(part), "{error}");
    }
    let grown = json!({"rules": [rule(&["*"], &["pods"])]});
    assert_eq!(eve.merge(roles().named("same"), &grown).await.unwrap_err().code, 403);
    eve.merge(roles().named("same"), &json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    world.create(roles(), &more).await.unwrap();
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    eve.merge(roles().named("more"), &labelled).await.expect("what was granted before is no new grant");
}

#[tokio::test]
async fn nobody_binds_a_role_that_holds_more_than_they() {
    let (world, _) = guarded().await;
    let bindings = || rbac("rolebindings").in_namespace("default");
    let writes = json!({"apiGroups": [RBAC], "resources": ["rolebindings"], "verbs": ["create"]});
    give(&world, "eve", std::slice::from_ref(&writes)).await;
    let eve = as_user(&world, "eve", &[]);
    let admin = binding("b", "ClusterRole", "admin", "eve");
    assert_eq!(eve.create(bindings(), &admin).await.unwrap_err().code, 403);
    let nothing = binding("b", "ClusterRole", "nothing", "eve");
    let error = eve.create(bindings(), &nothing).await.unwrap_err();
    assert_eq!(error.reason, Reason::NotFound, "{error}");
    let may_bind = json!({"apiGroups": [RBAC], "resources": ["clusterroles"], "verbs": ["bind"], "resourceNames": ["view"]});
    world.create(rbac("clusterroles"), &role("binder", &[may_bind])).await.unwrap();
    world.create(rbac("clusterrolebindings"), &binding("b", "ClusterRole", "binder", "eve")).await.unwrap();
    eve.create(bindings(), &binding("view", "ClusterRole", "view", "eve")).await.unwrap();
    assert_eq!(eve.create(bindings(), &admin).await.unwrap_err().code, 403);
}

#[tokio::test]
async fn who_may_bind_roles_in_one_namespace_binds_roles_of_the_cluster_there_and_nowhere_else() {
    let (world, _) = guarded().await;
    let binds = json!({"apiGroups": [RBAC], "resources": ["clusterroles"], "verbs": ["bind"],
                       "resourceNames": ["admin", "edit", "view"]});
    let writes = json!({"apiGroups": [RBAC], "resources": ["rolebindings"], "verbs": ["create"]});
    world.create(rbac("clusterroles"), &role("role-grantor", &[binds, writes])).await.unwrap();
    let to_eve = binding("role-grantor", "ClusterRole", "role-grantor", "eve");
    world.create(rbac("rolebindings").in_namespace("default"), &to_eve).await.unwrap();
    let eve = as_user(&world, "eve", &[]);
    let grant = binding("grant", "ClusterRole", "view", "mallory");
    eve.create(rbac("rolebindings").in_namespace("default"), &grant).await.unwrap();
    let more = binding("more", "ClusterRole", "cluster-admin", "mallory");
    assert_eq!(eve.create(rbac("rolebindings").in_namespace("default"), &more).await.unwrap_err().code, 403);
    give_cluster(&world, "eve", "writer", &json!({"apiGroups": [RBAC], "resources": ["rolebindings", "clusterrolebindings"], "verbs": ["create"]})).await;
    let elsewhere = rbac("rolebindings").in_namespace("kube-system");
    assert_eq!(eve.create(elsewhere, &grant).await.unwrap_err().code, 403);
    assert_eq!(eve.create(rbac("clusterrolebindings"), &grant).await.unwrap_err().code, 403);
}

#[tokio::test]
async fn an_aggregation_rule_needs_everything_or_the_right_to_escalate() {
    let (world, _) = guarded().await;
    let writes = json!({"apiGroups": [RBAC], "resources": ["clusterroles"], "verbs": ["create"]});
    world.create(rbac("clusterroles"), &role("writer", std::slice::from_ref(&writes))).await.unwrap();
    world.create(rbac("clusterrolebindings"), &binding("b", "ClusterRole", "writer", "eve")).await.unwrap();
    let eve = as_user(&world, "eve", &[]);
    let mut whole = json!({"metadata": {"name": "whole"}});
    whole["aggregationRule"]["clusterRoleSelectors"] = json!([{"matchLabels": {"a": "b"}}]);
    assert_eq!(eve.create(rbac("clusterroles"), &whole).await.unwrap_err().code, 403);
    let escalates =
        json!({"apiGroups": [RBAC], "resources": ["clusterroles"], "verbs": ["create", "escalate"]});
    world.merge(rbac("clusterroles").named("writer"), &json!({"rules": [escalates]})).await.unwrap();
    eve.create(rbac("clusterroles"), &whole).await.unwrap();
}

#[tokio::test]
async fn nobody_makes_a_role_part_of_their_own_by_its_labels() {
    let (world, _) = guarded().await;
    let writes = json!({"apiGroups": [RBAC], "resources": ["clusterroles"], "verbs": ["patch"]});
    world.create(rbac("clusterroles"), &role("writer", &[writes, rule(&["get"], &["pods"])])).await.unwrap();
    world.create(rbac("clusterrolebindings"), &binding("b", "ClusterRole", "writer", "eve")).await.unwrap();
    world.create(rbac("clusterrolebindings"), &binding("v", "ClusterRole", "view", "eve")).await.unwrap();
    world.create(rbac("clusterroles"), &role("small", &[rule(&["get"], &["pods"])])).await.unwrap();
    let eve = as_user(&world, "eve", &[]);
    let part = json!({"metadata": {"labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}});
    for all in ["cluster-admin", "edit"] {
        let error = eve.merge(rbac("clusterroles").named(all), &part).await.unwrap_err();
        assert_eq!(error.reason, Reason::Forbidden, "{error}");
    }
    assert_eq!(eve.create(configmaps(), &json!({"metadata": {"name": "a"}})).await.unwrap_err().code, 403);
    eve.merge(rbac("clusterroles").named("small"), &part).await.unwrap();
    let note = json!({"metadata": {"annotations": {"a": "b"}}});
    eve.merge(rbac("clusterroles").named("cluster-admin"), &note).await.unwrap();
}

#[tokio::test]
async fn default_roles_come_back_unless_somebody_said_otherwise() {
    let (world, _) = guarded().await;
    let basic = || rbac("clusterroles").named("system:basic-user");
    world.delete(rbac("clusterroles").named("view"), Default::default()).await.unwrap();
    world.merge(basic(), &json!({"rules": []})).await.unwrap();
    world.service.ensure_bootstrap_objects().await.unwrap();
    world.get(rbac("clusterroles").named("view")).await.unwrap();
    assert_eq!(world.get(basic()).await.unwrap()["rules"].as_array().unwrap().len(), 3);
    let kept = json!({"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}, "rules": []});
    world.merge(basic(), &kept).await.unwrap();
    world.service.ensure_bootstrap_objects().await.unwrap();
    assert!(world.get(basic()).await.unwrap()["rules"].as_array().is_none_or(Vec::is_empty));
}

fn may(verb: &str, resource: &str) -> Value {
    json!({"resourceAttributes": {"namespace": "default", "verb": verb, "resource": resource}})
}

#[tokio::test]
async fn everybody_may_ask_what_they_may() {
    let (world, _) = guarded().await;
    give(&world, "eve", &[rule(&["get"], &["pods"])]).await;
    let eve = as_user(&world, "eve", &[]);
    let ask = async |spec: Value| {
        let resource = reviews("authorization.k8s.io", "selfsubjectaccessreviews");
        eve.create(resource, &json!({"spec": spec})).await
    };
    let yes = ask(may("get", "pods")).await.unwrap();
    assert_eq!(yes["status"]["allowed"], true);
    let why = "RBAC: allowed by RoleBinding \"of-eve/default\" of Role \"of-eve\" to User \"eve\"";
    assert_eq!(yes["status"]["reason"], why);
    assert_eq!(ask(may("delete", "pods")).await.unwrap()["status"]["allowed"], false);
    let path = json!({"nonResourceAttributes": {"verb": "get", "path": "/apis/apps"}});
    assert_eq!(ask(path).await.unwrap()["status"]["allowed"], true);
    assert_eq!(ask(json!({})).await.unwrap_err().reason, Reason::Invalid);

    let rules = reviews("authorization.k8s.io", "selfsubjectrulesreviews");
    let listed = eve.create(rules.clone(), &json!({"spec": {"namespace": "default"}})).await.unwrap();
    let on_objects = listed["status"]["resourceRules"].as_array().unwrap();
    assert!(on_objects.contains(&rule(&["get"], &["pods"])), "{listed}");
    assert!(!listed["status"]["nonResourceRules"].as_array().unwrap().is_empty());
    assert_eq!(listed["status"]["incomplete"], false);
    assert_eq!(eve.create(rules, &json!({"spec": {}})).await.unwrap_err().code, 400);

    let me = reviews("authentication.k8s.io", "selfsubjectreviews");
    let me = eve.create(me, &json!({})).await.unwrap();
    assert_eq!(me["status"]["userInfo"], json!({"username": "eve", "groups": ["system:authenticated"]}));
}

#[tokio::test]
async fn asking_about_others_is_a_right_of_its_own() {
    let (world, _) = guarded().await;
    give(&world, "eve", &[rule(&["get"], &["pods"])]).await;
    let about = |user: &str| {
        let mut spec = may("get", "pods");
        spec["user"] = user.into();
        json!({ "spec": spec })
    };
    let all = || reviews("authorization.k8s.io", "subjectaccessreviews");
    assert_eq!(world.create(all(), &about("eve")).await.unwrap()["status"]["allowed"], true);
    assert_eq!(world.create(all(), &about("mallory")).await.unwrap()["status"]["allowed"], false);
    let nobody = json!({"spec": may("get", "pods")});
    assert_eq!(world.create(all(), &nobody).await.unwrap_err().reason, Reason::Invalid);
    let local = || reviews("authorization.k8s.io", "localsubjectaccessreviews");
    let here = world.create(local().in_namespace("default"), &about("eve")).await.unwrap();
    assert_eq!(here["status"]["allowed"], true);
    let elsewhere = world.create(local().in_namespace("kube-system"), &about("eve")).await;
    assert_eq!(elsewhere.unwrap_err().reason, Reason::Invalid);
    let eve = as_user(&world, "eve", &[]);
    assert_eq!(eve.create(all(), &about("eve")).await.unwrap_err().code, 403);
}

#[tokio::test]
async fn a_review_can_only_be_created() {
    let (world, _) = guarded().await;
    let all = reviews("authorization.k8s.io", "selfsubjectaccessreviews");
    assert_eq!(world.list(all.clone(), ListOptions::default()).await.unwrap_err().code, 405);
    assert_eq!(world.get(all.named("x")).await.unwrap_err().code, 405);
    let odd = reviews("authorization.k8s.io", "nothings");
    assert_eq!(world.create(odd, &json!({})).await.unwrap_err().code, 404);
}

async fn token(world: &World, name: &str, spec: Value) -> Result<Value, claw_schemas::ApiError> {
    let body = json!({ "spec": spec }).to_string().into();
    let verb = Verb::Create { body, options: WriteOptions::default() };
    world.ask(accounts().named(name).sub("token"), verb).await
}

async fn review(world: &World, token: &Value, audiences: Value) -> Value {
    let resource = reviews("authentication.k8s.io", "tokenreviews");
    let body = json!({"spec": {"token": token, "audiences": audiences}});
    world.create(resource, &body).await.unwrap()["status"].clone()
}

#[tokio::test]
async fn a_token_says_whose_it_is_until_its_account_goes() {
    let (world, _) = guarded().await;
    world.create(accounts(), &json!({"metadata": {"name": "bot"}})).await.unwrap();
    let made = token(&world, "bot", json!({"expirationSeconds": 600})).await.unwrap();
    assert_eq!(made["spec"]["expirationSeconds"], 600);
    let text = &made["status"]["token"];
    let status = review(&world, text, Value::Null).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:bot");
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]);
    assert_eq!(status["user"]["groups"], groups);
    assert_eq!(review(&world, text, json!(["vault"])).await["authenticated"], Value::Null);
    let for_vault = token(&world, "bot", json!({"audiences": ["vault"]})).await.unwrap();
    let status = review(&world, &for_vault["status"]["token"], json!(["vault", "other"])).await;
    assert_eq!(status["audiences"], json!(["vault"]));
    world.delete(accounts().named("bot"), Default::default()).await.unwrap();
    assert_eq!(review(&world, text, Value::Null).await["authenticated"], Value::Null);
}

#[tokio::test]
async fn a_token_request_is_checked() {
    let (world, _) = guarded().await;
    world.create(accounts(), &json!({"metadata": {"name": "bot"}})).await.unwrap();
    assert_eq!(token(&world, "none", json!({})).await.unwrap_err().reason, Reason::NotFound);
    let short = token(&world, "bot", json!({"expirationSeconds": 599})).await.unwrap_err();
    assert!(short.message.contains("may not specify a duration less than 10 minutes"), "{short}");
    let bound =
        |kind: &str, name: &str| json!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name}});
    assert_eq!(token(&world, "bot", bound("Pod", "none")).await.unwrap_err().reason, Reason::NotFound);
    assert_eq!(token(&world, "bot", bound("Deployment", "x")).await.unwrap_err().code, 400);
    world.create(pods(), &pod("web")).await.unwrap();
    let other = token(&world, "bot", bound("Pod", "web")).await.unwrap_err();
    assert!(other.message.contains("running with different serviceaccount name"), "{other}");
    let mut wrong = bound("Pod", "web");
    wrong["boundObjectRef"]["uid"] = json!("somebody else");
    assert_eq!(token(&world, "bot", wrong).await.unwrap_err().reason, Reason::Conflict);
}

#[tokio::test]
async fn a_pod_runs_as_an_account_and_is_given_its_token() {
    let (world, _) = guarded().await;
    let made = world.create(pods(), &pod("web")).await.unwrap();
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["serviceAccount"], "default");
    let mount = &made["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(mount["name"], made["spec"]["volumes"][0]["name"]);
    assert_eq!(made["spec"]["volumes"][0]["projected"]["sources"].as_array().unwrap().len(), 3);

    let mut stranger = pod("stranger");
    stranger["spec"]["serviceAccountName"] = json!("none");
    let error = world.create(pods(), &stranger).await.unwrap_err();
    assert_eq!(
        error.message,
        "pods \"stranger\" is forbidden: error looking up service account default/none: serviceaccount \"none\" not found"
    );
    let account = json!({"metadata": {"name": "quiet"}, "automountServiceAccountToken": false, "imagePullSecrets": [{"name": "pull"}]});
    world.create(accounts(), &account).await.unwrap();
    let mut quiet = pod("quiet");
    quiet["spec"]["serviceAccountName"] = json!("quiet");
    let made = world.create(pods(), &quiet).await.unwrap();
    assert!(made["spec"]["volumes"].is_null(), "{made}");
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
}

#[tokio::test]
async fn nobody_but_a_node_makes_a_pod_without_an_account_by_calling_it_a_mirror() {
    let (world, _) = guarded().await;
    let creates = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]});
    for user in ["eve", "system:node:n1"] {
        let name = user.replace(':', "-");
        give_cluster(&world, user, &name, &creates).await;
    }
    let (eve, n1) = (as_user(&world, "eve", &[]), as_user(&world, "system:node:n1", &["system:nodes"]));
    let mirror = |name: &str, spec: Value| {
        let mut pod = pod(name);
        pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("x");
        pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        pod
    };
    for user in [&world, &eve] {
        let made = user.create(pods(), &mirror(&user.who.user.replace(':', "-"), json!({}))).await.unwrap();
        assert_eq!(made["spec"]["serviceAccountName"], "default");
        let error =
            user.create(pods(), &mirror("x", json!({"serviceAccountName": "none"}))).await.unwrap_err();
        assert!(error.message.contains("serviceaccount \"none\" not found"), "{error}");
    }
    let made = n1.create(pods(), &mirror("own", json!({"nodeName": "n1"}))).await.unwrap();
    assert!(made["spec"]["serviceAccountName"].is_null() && made["spec"]["volumes"].is_null(), "{made}");
    for (spec, why) in [
        (json!({"serviceAccountName": "default"}), "a mirror pod may not reference service accounts"),
        (
            json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
            "a mirror pod may not reference secrets",
        ),
        (json!({"imagePullSecrets": [{"name": "s"}]}), "a mirror pod may not reference secrets"),
        (
            json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
            "a mirror pod may not use service account token projections",
        ),
    ] {
        let mut mirror = mirror("y", spec);
        mirror["spec"]["nodeName"] = json!("n1");
        let error = n1.create(pods(), &mirror).await.unwrap_err();
        assert!(error.code == 403 && error.message.ends_with(why), "{error}");
    }
}

/// The pods that the test bound.
struct Bound(Vec<Value>);

impl BoundPods for Bound {
    fn bound_pods(&self, node: &str, namespace: &str) -> Vec<bytes::Bytes> {
        let is_there =
            |pod: &&Value| pod["spec"]["nodeName"] == node && pod["metadata"]["namespace"] == namespace;
        self.0.iter().filter(is_there).map(|pod| pod.to_string().into()).collect()
    }
}

#[tokio::test]
async fn a_node_gets_tokens_for_its_own_pods_only() {
    let (world, access) = guarded().await;
    world.create(accounts(), &json!({"metadata": {"name": "default"}})).await.unwrap();
    let web = bound_pod(&world, "web").await;
    access.set_pods(Arc::new(Bound(vec![web.clone()])));
    let node = |name: &str| World { service: world.service.clone(), who: Identity::of_node(name) };
    let bound = json!({"boundObjectRef": {
        "kind": "Pod", "apiVersion": "v1", "name": "web", "uid": web["metadata"]["uid"],
    }});
    let made = token(&node("n1"), "default", bound.clone()).await.unwrap();
    let extra = &review(&world, &made["status"]["token"], Value::Null).await["user"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["web"]));
    assert_eq!(token(&node("n2"), "default", bound).await.unwrap_err().code, 403);
    let unbound = token(&node("n1"), "default", json!({})).await.unwrap_err();
    assert!(unbound.message.contains("not bound to a pod"), "{unbound}");
    world.create(pods(), &pod("free")).await.unwrap();
    let free = json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "free"}});
    assert_eq!(token(&node("n1"), "default", free).await.unwrap_err().code, 403);
}

#[tokio::test]
async fn a_node_cannot_choose_who_comes_to_it() {
    let (world, _) = guarded().await;
    let nodes = || ResourceRef::collection("", "v1", "nodes");
    for name in ["n1", "n2"] {
        world.create(nodes(), &json!({"metadata": {"name": name}})).await.unwrap();
    }
    let n1 = World { service: world.service.clone(), who: Identity::of_node("n1") };
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    n1.merge(nodes().named("n1"), &label("example.com/rack")).await.unwrap();
    let error =
        n1.merge(nodes().named("n1"), &label("node-restriction.kubernetes.io/tenant")).await.unwrap_err();
    assert!(
        error.message.contains("is not allowed to modify labels: node-restriction.kubernetes.io/tenant"),
        "{error}"
    );
    let taint = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    assert_eq!(n1.merge(nodes().named("n1"), &taint).await.unwrap_err().code, 403);
    world.merge(nodes().named("n1"), &taint).await.unwrap();
    assert_eq!(
        n1.merge(nodes().named("n1"), &json!({"spec": {"taints": null}})).await.unwrap_err().code,
        403
    );
    assert_eq!(n1.merge(nodes().named("n2"), &label("example.com/rack")).await.unwrap_err().code, 403);
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    n1.merge(nodes().named("n1").sub("status"), &ready).await.unwrap();
}

#[tokio::test]
async fn a_node_cannot_have_itself_collected() {
    let (world, _) = guarded().await;
    let nodes = || ResourceRef::collection("", "v1", "nodes");
    world.create(nodes(), &json!({"metadata": {"name": "n1"}})).await.unwrap();
    let n1 = World { service: world.service.clone(), who: Identity::of_node("n1") };
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "gone"});
    let owned = json!({"metadata": {"ownerReferences": [owner]}});
    let error = n1.merge(nodes().named("n1"), &owned).await.unwrap_err();
    assert_eq!(error.code, 403);
    assert!(error.message.contains("node \"n1\" is not allowed to modify ownerReferences"), "{error}");
    n1.merge(nodes().named("n1"), &json!({"metadata": {"ownerReferences": []}})).await.unwrap();
    world.merge(nodes().named("n1"), &owned).await.unwrap();
    let free = json!({"metadata": {"ownerReferences": null}});
    assert_eq!(n1.merge(nodes().named("n1"), &free).await.unwrap_err().code, 403);
}

#[tokio::test]
async fn a_node_creates_no_lease_but_its_own() {
    let (world, _) = guarded().await;
    let leases =
        || ResourceRef::collection("coordination.k8s.io", "v1", "leases").in_namespace("kube-node-lease");
    let n1 = World { service: world.service.clone(), who: Identity::of_node("n1") };
    let lease = |name: &str| json!({"metadata": {"name": name}});
    let error = n1.create(leases(), &lease("n2")).await.unwrap_err();
    assert_eq!(error.reason, Reason::Forbidden, "{error}");
    n1.create(leases(), &lease("n1")).await.unwrap();
}

#[tokio::test]
async fn a_node_speaks_for_its_own_devices() {
    let (world, _) = guarded().await;
    let slices = || ResourceRef::collection("resource.k8s.io", "v1", "resourceslices");
    let n1 = World { service: world.service.clone(), who: Identity::of_node("n1") };
    let slice = |of: &str, node: &str| {
        let pool = json!({"name": node, "generation": 1, "resourceSliceCount": 1});
        json!({
            "metadata": {"name": gpu::slice_name(of)},
            "spec": {"driver": gpu::DRIVER, "nodeName": node, "pool": pool},
        })
    };
    for (of, node) in [("n2", "n1"), ("n1", "n2"), ("n2", "n2")] {
        let error = n1.create(slices(), &slice(of, node)).await.unwrap_err();
        assert_eq!(error.reason, Reason::Forbidden, "{error}");
    }
    n1.create(slices(), &slice("n1", "n1")).await.unwrap();
    world.create(slices(), &slice("n2", "n2")).await.unwrap();
    let own = n1.get(slices().named(&gpu::slice_name("n1"))).await.unwrap();
    assert_eq!(own["spec"]["nodeName"], "n1");
    let error = n1.get(slices().named(&gpu::slice_name("n2"))).await.unwrap_err();
    assert_eq!(error.reason, Reason::Forbidden, "{error}");
}

#[tokio::test]
async fn a_node_says_of_a_claim_how_its_own_devices_are_and_nothing_else() {
    let (world, access) = guarded().await;
    let claims = ResourceRef::collection("resource.k8s.io", "v1", "resourceclaims").in_namespace("default");
    let claim = claims.clone().named("c");
    world.create(claims, &json!({"metadata": {"name": "c"}, "spec": {}})).await.unwrap();
    access.set_pods(Arc::new(Bound(vec![json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "n1", "resourceClaims": [{"name": "x", "resourceClaimName": "c"}]},
    })])));
    let device = |pool: &str| json!({"driver": gpu::DRIVER, "pool": pool, "device": "gpu-a"});
    let result = |pool: &str| json!({"request": "r", "driver": gpu::DRIVER, "pool": pool, "device": "gpu-a"});
    let results = [result("n1"), result("n2")];
    let allocated = json!({"status": {"allocation": {"devices": {"results": results}}}});
    let status = || claim.clone().sub("status");
    world.merge(status(), &allocated).await.unwrap();
    let n1 = World { service: world.service.clone(), who: Identity::of_node("n1") };
    let says = |devices: Value| json!({"status": {"devices": devices}});
    n1.merge(status(), &says(json!([device("n1")]))).await.unwrap();
    for change in [
        says(json!([device("n1"), device("n2")])),
        json!({"status": {"allocation": null}}),
        json!({"status": {"reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]}}),
    ] {
        let error = n1.merge(status(), &change).await.unwrap_err();
        assert_eq!(error.reason, Reason::Forbidden, "{change}: {error}");
    }
    let n2 = World { service: world.service.clone(), who: Identity::of_node("n2") };
    let error = n2.merge(status(), &says(json!([]))).await.unwrap_err();
    assert_eq!(error.reason, Reason::Forbidden, "no pod of its own uses it: {error}");
}

fn signing_requests() -> ResourceRef {
    ResourceRef::collection("certificates.k8s.io", "v1", "certificatesigningrequests")
}

/// A request for a certificate of somebody in an organisation.
fn signing_request(name: &str, signer: &str, organization: &str) -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    json!({"metadata": {"name": name}, "spec": {
        "signerName": signer, "usages": ["client auth"], "request": STANDARD.encode(request),
    }})
}

#[tokio::test]
async fn nobody_asks_for_the_certificate_of_an_administrator() {
    let (world, _) = guarded().await;
    let clients = "kubernetes.io/kube-apiserver-client";
    let error =
        world.create(signing_requests(), &signing_request("a", clients, "system:masters")).await.unwrap_err();
    assert_eq!(error.code, 403);
    assert!(error.message.contains("with system:masters group is not allowed"), "{error}");
    let mut junk = signing_request("b", clients, "dev");
    let text = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----";
    junk["spec"]["request"] = STANDARD.encode(text).into();
    assert_eq!(world.create(signing_requests(), &junk).await.unwrap_err().code, 403);
    world.create(signing_requests(), &signing_request("c", clients, "dev")).await.unwrap();
    world.create(signing_requests(), &signing_request("d", "example.com/s", "system:masters")).await.unwrap();
}

#[tokio::test]
async fn requests_are_approved_and_signed_by_those_who_may_for_their_signer() {
    let (world, _) = guarded().await;
    let signers = |verb: &str, name: &str| {
        json!({"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": [verb],
               "resourceNames": [name]})
    };
    let parts = ["certificatesigningrequests/approval", "certificatesigningrequests/status"];
    let writes =
        json!({"apiGroups": ["certificates.k8s.io"], "resources": parts, "verbs": ["patch", "update"]});
    give_cluster(&world, "eve", "writes", &writes).await;
    give_cluster(&world, "eve", "other", &signers("approve", "example.com/other")).await;
    let eve = as_user(&world, "eve", &[]);
    let request = || signing_requests().named("a");
    world.create(signing_requests(), &signing_request("a", "example.com/s", "dev")).await.unwrap();

    let approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}});
    let error = eve.merge(request().sub("approval"), &approved).await.unwrap_err();
    assert_eq!(error.code, 403);
    let why = "user not permitted to approve requests with signerName \"example.com/s\"";
    assert!(error.message.contains(why), "{error}");
    give_cluster(&world, "eve", "approve", &signers("approve", "example.com/s")).await;
    eve.merge(request().sub("approval"), &approved).await.unwrap();

    let signed = json!({"status": {"certificate": STANDARD.encode("-----BEGIN CERTIFICATE-----")}});
    let error = eve.merge(request().sub("status"), &signed).await.unwrap_err();
    assert!(error.code == 403 && error.message.contains("not permitted to sign"), "{error}");
    eve.merge(request().sub("status"), &json!({"metadata": {}})).await.unwrap();
    give_cluster(&world, "eve", "sign", &signers("sign", "example.com/*")).await;
    eve.merge(request().sub("status"), &signed).await.unwrap();
}

#[tokio::test]
async fn strangers_are_asked_for_credentials_and_not_told_what_they_lack() {
    let (world, _) = guarded().await;
    let nobody = World { service: world.service.clone(), who: Identity::anonymous() };
    let error = nobody.list(pods(), ListOptions::default()).await.unwrap_err();
    assert_eq!(error.code, 401);
    let may = |path: &str| world.service.authorize_path(&nobody.who, "get", path);
    assert!(may("/version").is_ok());
    assert_eq!(may("/apis").unwrap_err().code, 401);
}

#[tokio::test]
async fn to_reach_into_a_pod_is_to_create_whatever_the_method_says() {
    let (world, _access) = guarded().await;
    let eve = as_user(&world, "eve", &[]);
    bound_pod(&world, "x").await;
    let exec = || pods().named("x").sub("exec");
    let reach = async |verb: &str| {
        let query = [("command", "true"), ("stdout", "true")];
        let query = query.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        eve.service.reach(&eve.who, verb, exec(), query).await.err().unwrap()
    };
    let role = |verbs: &[&str]| role("reacher", &[rule(verbs, &["pods/exec"])]);
    world.create(rbac("roles").in_namespace("default"), &role(&["get"])).await.unwrap();
    let binding = json!({
        "metadata": {"name": "of-eve"},
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "reacher"},
        "subjects": [{"kind": "User", "name": "eve", "apiGroup": RBAC}],
    });
    world.create(rbac("rolebindings").in_namespace("default"), &binding).await.unwrap();
    for verb in ["get", "create"] {
        assert_eq!(reach(verb).await.reason, Reason::Forbidden, "reading is not enough to {verb}");
    }
    let roles = || rbac("roles").in_namespace("default").named("reacher");
    world.update(roles(), &role(&["create"])).await.unwrap();
    assert_eq!(reach("get").await.reason, Reason::Forbidden, "a WebSocket comes as reading");
    assert_eq!(reach("create").await.reason, Reason::ServiceUnavailable, "there are no nodes here");
    world.update(roles(), &role(&["create", "get"])).await.unwrap();
    assert_eq!(reach("get").await.reason, Reason::ServiceUnavailable);
}
