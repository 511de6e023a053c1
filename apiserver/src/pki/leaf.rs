//! Certificates with their keys on disk, issued again when they no longer fit.

use std::{collections::BTreeSet, path::Path, time::SystemTime};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::{
    RENEW_BEFORE,
    authority::{Authority, Purpose},
    facts::Facts,
    files,
};
use crate::error::Error;

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// The server's certificate, good for `names`.
pub(super) fn server(
    folder: &Path,
    authority: &Authority,
    names: &BTreeSet<String>,
    now: SystemTime,
) -> Result<Leaf, Error> {
    let fits = |facts: &Facts| facts.names == *names;
    open(folder, "server", authority, now, fits, |key| {
        let names = names.iter().cloned().collect();
        authority.issue(key, ("clawbernetes-apiserver", None), names, Purpose::Server, now)
    })
}

/// A client's certificate.
pub(super) fn client(
    folder: &Path,
    file: &str,
    authority: &Authority,
    user: &str,
    group: &str,
    now: SystemTime,
) -> Result<Leaf, Error> {
    let fits = |facts: &Facts| facts.common_name == user && facts.organizations == [group];
    open(folder, file, authority, now, fits, |key| {
        authority.issue(key, (user, Some(group)), Vec::new(), Purpose::Client, now)
    })
}

/// A key without a certificate, PEM. It is never made again by itself: what it signed would be worth nothing.
pub(super) fn bare_key(folder: &Path, file: &str) -> Result<String, Error> {
    let path = folder.join(file).with_extension("key");
    if let Some(pem) = files::read_if_there(&path)? {
        return Ok(pem);
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| Error::Issue { subject: file.to_owned(), source })?
        .serialize_pem();
    files::write(&path, key.as_bytes(), files::PRIVATE)?;
    Ok(key)
}

fn open(
    folder: &Path,
    file: &str,
    authority: &Authority,
    now: SystemTime,
    fits: impl FnOnce(&Facts) -> bool,
    issue: impl FnOnce(&KeyPair) -> Result<String, Error>,
) -> Result<Leaf, Error> {
    let (certificate_path, key_path) =
        (folder.join(file).with_extension("crt"), folder.join(file).with_extension("key"));
    let stored = (files::read_if_there(&certificate_path)?, files::read_if_there(&key_path)?);
    if let (Some(certificate), Some(key)) = stored {
        let leaf = Leaf { certificate, key };
        if leaf.is_usable(authority, now, fits) {
            return Ok(leaf);
        }
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| Error::Issue { subject: file.to_owned(), source })?;
    let leaf = Leaf { certificate: issue(&key)?, key: key.serialize_pem() };
    files::write(&key_path, leaf.key.as_bytes(), files::PRIVATE)?;
    files::write(&certificate_path, leaf.certificate.as_bytes(), files::PUBLIC)?;
    Ok(leaf)
}

impl Leaf {
    /// The certificate, DER.
    pub fn certificate_der(&self) -> Option<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()
    }

    /// Whether key and certificate belong together and to this authority, live long enough, and fit. A crash
    /// between the writes of key and certificate shows here too.
    fn is_usable(&self, authority: &Authority, now: SystemTime, fits: impl FnOnce(&Facts) -> bool) -> bool {
        let Some(der) = self.certificate_der() else { return false };
        let (Ok(facts), Ok(key)) = (Facts::read(&der), KeyPair::from_pem(&self.key)) else { return false };
        facts.public_key == key.subject_public_key_info()
            && facts.outlives(now, RENEW_BEFORE)
            && authority.claims(&facts)
            && fits(&facts)
    }
}
