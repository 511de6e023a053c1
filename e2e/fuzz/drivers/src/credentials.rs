//! What people and machines prove themselves with: tokens, certificates, requests for them, kubeconfig files.

use std::{cell::OnceCell, collections::BTreeSet};

use claw_apiserver::{
    auth::service_accounts::SigningKey,
    pki::{Facts, LEAF_LIFE, Pki},
};
use claw_client::Kubeconfig;
use serde_json::{Value, json};

use crate::{json, tape::Tape};

struct Keys {
    pki: Pki,
    key: SigningKey,
    _folder: tempfile::TempDir,
}

thread_local! {
    static KEYS: OnceCell<Keys> = const { OnceCell::new() };
}

impl Keys {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path(), &BTreeSet::from(["localhost".to_owned()])).unwrap();
        let key = SigningKey::from_pem(pki.token_key()).unwrap();
        Self { pki, key, _folder: folder }
    }
}

/// One of each, damaged.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    KEYS.with(|keys| {
        let keys = keys.get_or_init(Keys::make);
        match tape.below(3) {
            0 => token(&mut tape, keys),
            1 => certificate(&mut tape, keys),
            _ => kubeconfig(&mut tape),
        }
    });
}

/// Changes some bytes. Says whether they are different now.
fn damaged(tape: &mut Tape<'_>, sound: &[u8]) -> (Vec<u8>, bool) {
    let mut bytes = sound.to_vec();
    for _ in 0..tape.below(4) {
        let at = tape.below(bytes.len());
        match tape.below(3) {
            0 => bytes[at] = tape.byte(),
            1 => bytes.truncate(at + 1),
            _ => bytes.insert(at, tape.byte()),
        }
    }
    let differs = bytes != sound;
    (bytes, differs)
}

/// A token is read as what was signed, and only as it was signed.
fn token(tape: &mut Tape<'_>, keys: &Keys) {
    let claims = json::object(tape, &["sub", "exp", "aud"]);
    let token = keys.key.sign(&claims).expect("the machine has random numbers");
    assert_eq!(keys.key.verify::<Value>(&token), Some(claims));
    let (bytes, differs) = damaged(tape, token.as_bytes());
    if let (Ok(text), true) = (std::str::from_utf8(&bytes), differs) {
        assert_eq!(keys.key.verify::<Value>(text), None, "{text}");
    }
    if let Ok(text) = std::str::from_utf8(tape.rest()) {
        assert_eq!(keys.key.verify::<Value>(text), None, "{text}");
    }
}

/// What is read of a certificate that may be damaged, and of a request that is none.
fn certificate(tape: &mut Tape<'_>, keys: &Keys) {
    let authority = keys.pki.authority();
    let (bytes, differs) = damaged(tape, authority.certificate_der());
    match Facts::read(&bytes) {
        Ok(facts) => assert!(differs || facts.common_name == "clawbernetes"),
        Err(error) => assert!(differs && !error.to_string().is_empty()),
    }
    for request in [&bytes, tape.rest()] {
        assert!(
            authority.sign_node(request, "n1", LEAF_LIFE).is_err(),
            "a certificate is no request for one"
        );
    }
}

/// What is read of a kubeconfig is written and read again.
fn kubeconfig(tape: &mut Tape<'_>) {
    let mut file = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{"name": "c", "cluster": {"server": tape.text(&["https://127.0.0.1:6443", "http://[::1]", "x"]), "insecure-skip-tls-verify": true}}],
        "users": [{"name": "u", "user": {"token": "t", "client-certificate-data": "aGk=", "client-key-data": "aGk="}}],
        "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u", "namespace": "n"}}],
    });
    json::damage(tape, &mut file);
    for text in [file.to_string(), String::from_utf8_lossy(tape.rest()).into_owned()] {
        let Ok(read) = serde_yaml::from_str::<Kubeconfig>(&text) else { continue };
        let again = serde_yaml::from_str::<Kubeconfig>(&read.to_yaml());
        assert_eq!(again.ok().as_ref(), Some(&read), "{text}");
        for context in read.contexts().map(Some).chain([None]) {
            if let Err(error) = read.select(context) {
                assert!(!error.to_string().is_empty(), "{text}");
            }
        }
    }
}
