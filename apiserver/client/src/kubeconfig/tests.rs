//! Kubeconfig files as they occur, good and bad.

use super::*;

fn parse(text: &str) -> Kubeconfig {
    serde_yaml::from_str(text).unwrap()
}

const TWO: &str = "
apiVersion: v1
kind: Config
current-context: b
clusters:
- {name: one, cluster: {server: 'https://one:6443', insecure-skip-tls-verify: true}}
- {name: two, cluster: {server: 'https://two:6443', certificate-authority-data: aGk=, tls-server-name: kubernetes}}
contexts:
- {name: a, context: {cluster: one, user: '', namespace: team}}
- {name: b, context: {cluster: two, user: admin}}
- {name: c, context: {cluster: three, user: admin}}
users:
- {name: admin, user: {token: t, client-certificate-data: Y2VydA==, client-key-data: a2V5}}
preferences: {}
";

#[test]
fn a_context_leads_to_a_server_a_user_and_a_namespace() {
    let config = parse(TWO);
    let b = config.select(None).unwrap();
    assert_eq!((b.endpoint.server.as_str(), b.namespace), ("https://two:6443", None));
    assert_eq!(b.endpoint.trust, Trust::Roots(b"hi".to_vec()));
    assert_eq!(b.endpoint.server_name.as_deref(), Some("kubernetes"));
    assert_eq!(b.endpoint.token, Some(Token::Text("t".to_owned())));
    assert_eq!(b.endpoint.certificate.unwrap().key_pem, b"key");
    let a = config.select(Some("a")).unwrap();
    assert_eq!((a.endpoint.trust, a.namespace.as_deref()), (Trust::Anything, Some("team")));
}

#[test]
fn what_leads_nowhere_is_named_with_what_there_is() {
    let config = parse(TWO);
    let error = config.select(Some("x")).unwrap_err().to_string();
    assert_eq!(error, "the kubeconfig has no context \"x\"; it has: a, b, c");
    let error = config.select(Some("c")).unwrap_err().to_string();
    assert_eq!(error, "the kubeconfig has no cluster \"three\"; it has: one, two");
}

#[test]
fn a_wrong_field_is_named_in_full() {
    let cases = [
        ("certificate-authority-data: '%%'", "", "clusters[k].certificate-authority-data: is not base64"),
        ("proxy-url: 'http://p'", "", "clusters[k].proxy-url: is not supported"),
        (
            "certificate-authority: /nonexistent/ca",
            "",
            "cannot read the certificate authority /nonexistent/ca",
        ),
        ("certificate-authority-data: aGk=, insecure-skip-tls-verify: true", "", "contradicts"),
        ("", "exec: {command: x}", "users[u].exec: is not supported"),
        ("", "token: t, as: nobody", "users[u].as: is not supported"),
        ("", "client-certificate-data: aGk=", "users[u].client-key: is not set"),
        ("", "client-key-data: aGk=", "users[u].client-certificate: is not set"),
    ];
    for (cluster, user, expected) in cases {
        let config = parse(&format!(
            "clusters: [{{name: k, cluster: {{server: 'https://k', {cluster}}}}}]\n\
             users: [{{name: u, user: {{{user}}}}}]\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\ncurrent-context: c"
        ));
        let error = config.select(None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_first_of_several_files_wins_and_missing_ones_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    std::fs::write(folder.path().join("ca.pem"), "authority").unwrap();
    let first = write(
        "first",
        "clusters: [{name: k, cluster: {server: 'https://first', certificate-authority: ca.pem}}]\ncontexts:\n",
    );
    let second = write(
        "second",
        "clusters: [{name: k, cluster: {server: 'https://second'}}]\n\
         contexts: [{name: c, context: {cluster: k}}]\ncurrent-context: c\n",
    );
    let merged = Kubeconfig::load(&[folder.path().join("none"), first, second]).unwrap();
    let selected = merged.select(None).unwrap();
    assert_eq!(selected.endpoint.server, "https://first");
    assert_eq!(selected.endpoint.trust, Trust::Roots(b"authority".to_vec()));
}

#[test]
fn no_file_at_all_says_where_it_looked_and_what_to_do() {
    let error = Kubeconfig::load(&["/nonexistent/config".into()]).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/config") && error.contains("clawbernetes up"), "{error}");
    let error = Kubeconfig::load(&[]).unwrap_err().to_string();
    assert!(error.contains("HOME is not set"), "{error}");
}

#[test]
fn what_is_no_kubeconfig_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    for (text, expected) in [
        ("kind: Pod", "its kind is \"Pod\""),
        ("clusters: 7", "invalid type"),
        ("clusters: [{name: x, cluster: {server: [}}]", "line 1"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Kubeconfig::read(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("is not a kubeconfig"), "{error}");
    }
}

#[test]
fn a_file_for_one_cluster_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.kubeconfig");
    let certificate = ClientCertificate { chain_pem: b"chain".to_vec(), key_pem: b"key".to_vec() };
    let config = Kubeconfig::single(&Single {
        name: "clawbernetes",
        server: "https://127.0.0.1:6443",
        ca_pem: "authority",
        user: "kubernetes-admin",
        certificate: &certificate,
    });
    std::fs::write(&path, config.to_yaml()).unwrap();
    assert_eq!(Kubeconfig::read(&path).unwrap(), config);
    let endpoint = Kubeconfig::read(&path).unwrap().select(None).unwrap().endpoint;
    assert_eq!(endpoint.certificate, Some(certificate));
}

#[test]
fn the_search_order_is_kubectls() {
    let home = Path::new("/home/x");
    let paths = |list: &str| Kubeconfig::search_paths(Some(OsStr::new(list)), Some(home));
    assert_eq!(paths("/a::/b"), [PathBuf::from("/a"), PathBuf::from("/b")]);
    assert_eq!(paths(""), [PathBuf::from("/home/x/.kube/config")]);
    assert!(Kubeconfig::search_paths(None, None).is_empty());
}
