//! What must hold of the files in `DIR/pki` over starts, crashes and years.

//! Certificates as they are made, kept and renewed, on a real folder.

use std::{fs, os::unix::fs::PermissionsExt as _};

use rcgen::{CertificateParams, KeyPair};

use super::*;

fn names() -> BTreeSet<String> {
    server_names("127.0.0.1:6443".parse().unwrap(), Some("gpu.example.com:6443"))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_second_start_finds_the_certificates_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::open(dir.path(), &names()).unwrap();
    let second = Pki::open(dir.path(), &names()).unwrap();
    assert_eq!(first.authority().certificate(), second.authority().certificate());
    assert_eq!(first.server().certificate, second.server().certificate);
    assert_eq!(first.admin().certificate, second.admin().certificate);
    assert_eq!(first.admin_token(), second.admin_token());
}

#[test]
fn keys_and_tokens_are_readable_by_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), &names()).unwrap();
    pki.write_kubeconfig(&dir.path().join("admin.kubeconfig"), "https://127.0.0.1:6443").unwrap();
    for file in ["pki/ca.key", "pki/server.key", "pki/admin.key", "admin.token", "admin.kubeconfig"] {
        assert_eq!(mode(&dir.path().join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(&dir.path().join("pki")), 0o700);
}

#[test]
fn a_certificate_says_who_and_for_which_names() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), &names()).unwrap();
    let server = Facts::read(&pki.server().certificate_der().unwrap()).unwrap();
    assert_eq!(server.names, names());
    assert!(server.names.contains("gpu.example.com"));
    let admin = Facts::read(&pki.admin().certificate_der().unwrap()).unwrap();
    assert_eq!(admin.common_name, ADMIN_USER);
    assert_eq!(admin.organizations, [ADMIN_GROUP]);
}

#[test]
fn a_new_name_gets_a_new_server_certificate_from_the_same_authority() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::open(dir.path(), &names()).unwrap();
    let mut more = names();
    more.insert("10.1.2.3".to_owned());
    let second = Pki::open(dir.path(), &more).unwrap();
    assert_eq!(first.authority().certificate(), second.authority().certificate());
    assert_eq!(first.admin().certificate, second.admin().certificate);
    assert_eq!(Facts::read(&second.server().certificate_der().unwrap()).unwrap().names, more);
}

#[test]
fn certificates_are_renewed_in_their_last_month() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let day = Duration::from_secs(24 * 3600);
    let first = Pki::open_at(dir.path(), &names(), now).unwrap();
    let kept = Pki::open_at(dir.path(), &names(), now + 334 * day).unwrap();
    assert_eq!(first.server().certificate, kept.server().certificate);
    let renewed = Pki::open_at(dir.path(), &names(), now + 336 * day).unwrap();
    assert_ne!(first.server().certificate, renewed.server().certificate);
    assert_ne!(first.admin().certificate, renewed.admin().certificate);
}

#[test]
fn a_leaf_whose_key_was_swapped_or_whose_authority_is_gone_is_issued_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::open(dir.path(), &names()).unwrap();
    let folder = dir.path().join("pki");
    fs::copy(folder.join("admin.key"), folder.join("server.key")).unwrap();
    let second = Pki::open(dir.path(), &names()).unwrap();
    assert_ne!(first.server().certificate, second.server().certificate);

    let other = tempfile::tempdir().unwrap();
    drop(Pki::open(other.path(), &names()).unwrap());
    for file in ["ca.crt", "ca.key"] {
        fs::copy(other.path().join("pki").join(file), folder.join(file)).unwrap();
    }
    let third = Pki::open(dir.path(), &names()).unwrap();
    assert_ne!(second.admin().certificate, third.admin().certificate);
}

#[test]
fn an_authority_without_its_key_is_an_error_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    drop(Pki::open(dir.path(), &names()).unwrap());
    fs::remove_file(dir.path().join("pki/ca.key")).unwrap();
    let error = Pki::open(dir.path(), &names()).err().unwrap().to_string();
    assert!(error.contains("ca.key") && error.contains("restore"), "{error}");

    fs::write(dir.path().join("pki/ca.key"), "garbage").unwrap();
    assert!(Pki::open(dir.path(), &names()).is_err());
}

#[test]
fn a_crash_between_key_and_certificate_of_the_authority_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    drop(Pki::open(dir.path(), &names()).unwrap());
    for file in ["ca.crt", "server.crt", "admin.crt"] {
        fs::remove_file(dir.path().join("pki").join(file)).unwrap();
    }
    fs::write(dir.path().join("pki/server.new"), "half").unwrap();
    Pki::open(dir.path(), &names()).unwrap();
}

#[test]
fn an_authority_that_is_gone_beside_what_it_signed_is_not_made_again() {
    for gone in [&["ca.crt"][..], &["ca.crt", "ca.key"]] {
        let dir = tempfile::tempdir().unwrap();
        drop(Pki::open(dir.path(), &names()).unwrap());
        gone.iter().for_each(|file| fs::remove_file(dir.path().join("pki").join(file)).unwrap());
        let error = Pki::open(dir.path(), &names()).err().unwrap().to_string();
        assert!(error.contains("ca.crt: is missing") && error.contains("restore"), "{error}");
        assert!(!dir.path().join("pki/ca.crt").exists());
    }
}

#[test]
fn a_node_request_is_signed_for_the_name_we_say_not_the_one_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), &names()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["evil.example.com".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, ADMIN_USER);
    params.distinguished_name.push(rcgen::DnType::OrganizationName, ADMIN_GROUP);
    let request = params.serialize_request(&key).unwrap();

    let pem = pki.authority().sign_node(request.der(), "gpu-02", LEAF_LIFE).unwrap();
    let leaf = Leaf { certificate: pem, key: String::new() };
    let facts = Facts::read(&leaf.certificate_der().unwrap()).unwrap();
    assert_eq!(facts.common_name, "system:node:gpu-02");
    assert_eq!(facts.organizations, ["system:nodes"]);
    assert!(facts.names.is_empty());
}

#[test]
fn a_request_signed_with_another_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), &names()).unwrap();
    let request =
        CertificateParams::new(Vec::new()).unwrap().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let mut forged = request.der().to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert!(pki.authority().sign_node(&forged, "gpu-02", LEAF_LIFE).is_err());
    assert!(pki.authority().sign_node(b"garbage", "gpu-02", LEAF_LIFE).is_err());
}

#[test]
fn hosts_are_cut_out_of_addresses() {
    assert_eq!(host_of("gpu.example.com:6443"), "gpu.example.com");
    assert_eq!(host_of("gpu.example.com"), "gpu.example.com");
    assert_eq!(host_of("[::1]:6443"), "::1");
    assert_eq!(host_of("::1"), "::1");
    assert_eq!(host_of("10.0.0.1:80"), "10.0.0.1");
}
