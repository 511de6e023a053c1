//! How a machine becomes a node: a key that never leaves it, a certificate request, and a one-time token.
//!
//! The identity lies in one record, so that key and certificate cannot get out of step. Must never know: pods.

use std::{
    fs::DirBuilder,
    ops::RangeInclusive,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use claw_client::{
    endpoint::{Endpoint, Trust},
    grpc::GrpcNodeLink,
};
use claw_schemas::proto::JoinResponse;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use x509_cert::{Certificate, der::Decode as _};

use crate::{Error, runtime::records};

/// A certificate is renewed when so much of its life is over, somewhere in between: nodes that joined together do not come
/// back together, and what is left is for a server that is away.
const RENEW_AFTER: RangeInclusive<f64> = 0.7..=0.9;

/// A failed renewal is tried again after so much of the certificate's life, at most after ten minutes. What is left holds tens
/// of tries; of a year, thousands.
const RENEW_RETRIES_A_LIFE: u32 = 500;
const RENEW_RETRY_MAX: Duration = Duration::from_secs(600);
const RENEW_RETRY_MIN: Duration = Duration::from_secs(1);

/// The longest sleep until the clock is read again: clocks of machines jump, above all after a suspension.
const CLOCK_CHECK: Duration = Duration::from_secs(3600);

/// How to reach a cluster for the first time.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// `https://HOST:PORT`
    pub server: String,
    /// How to know that it is the right one, before its authorities are known here.
    pub trust: Trust,
    /// The one-time token. Not needed once this machine has joined.
    pub token: Option<String>,
    /// Name that this machine wants.
    pub node_name: String,
}

/// Who this machine is to its cluster.
#[derive(Clone)]
pub struct Membership {
    record: Record,
    path: PathBuf,
    server: String,
    /// When it is time for a new certificate, and when it is too late for one.
    renew_at: SystemTime,
    retry: Duration,
    not_after: SystemTime,
}

/// What is kept on disk.
#[derive(Clone, Serialize, Deserialize)]
struct Record {
    node_name: String,
    key_pem: String,
    certificate_chain_pem: String,
    ca_bundle_pem: String,
}

/// Reads the identity that an earlier run left in `folder`, or joins with the token and leaves one there.
///
/// # Errors
/// When the machine has joined under another name, its certificate has expired, or the server refuses the token.
pub async fn membership(folder: &Path, invitation: &Invitation) -> Result<Membership, Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(Error::io("creating", folder))?;
    let path = folder.join("identity.json");
    if let Some(record) = records::read::<Record>(&path)? {
        let found = Membership::new(record, path.clone(), &invitation.server)?;
        found.check(invitation)?;
        return Ok(found);
    }
    let Some(token) = &invitation.token else {
        return Err(Error::Certificate(format!(
            "this machine has not joined a cluster yet (nothing in {}): give it a --token, which `clawbernetes token \
             create` makes",
            folder.display()
        )));
    };
    let endpoint = Endpoint::new(&invitation.server).trust(invitation.trust.clone()).token(token);
    let (key_pem, request) = new_key()?;
    let link = GrpcNodeLink::new(&endpoint).map_err(|error| Error::Certificate(error.to_string()))?;
    let issued = link.join(&invitation.node_name, request).await?;
    let record = Record::new(invitation.node_name.clone(), key_pem, issued);
    records::write_durably(&path, &record)?;
    tracing::info!(node = %invitation.node_name, server = %invitation.server, "this machine joined");
    Membership::new(record, path, &invitation.server)
}

impl Record {
    fn new(node_name: String, key_pem: String, issued: JoinResponse) -> Self {
        Self {
            node_name,
            key_pem,
            certificate_chain_pem: issued.certificate_chain,
            ca_bundle_pem: issued.ca_bundle,
        }
    }
}

impl Membership {
    fn new(record: Record, path: PathBuf, server: &str) -> Result<Self, Error> {
        let (not_before, not_after) = validity(&record.certificate_chain_pem)?;
        let life = not_after.duration_since(not_before).unwrap_or_default();
        let renew_at = not_before + life.mul_f64(drawn(&RENEW_AFTER));
        let retry = (life / RENEW_RETRIES_A_LIFE).clamp(RENEW_RETRY_MIN, RENEW_RETRY_MAX);
        Ok(Self { record, path, server: server.to_owned(), renew_at, retry, not_after })
    }

    fn check(&self, invitation: &Invitation) -> Result<(), Error> {
        let folder = self.path.parent().unwrap_or(&self.path).display();
        if self.record.node_name != invitation.node_name {
            return Err(Error::Certificate(format!(
                "this machine joined as \"{}\", not as \"{}\"; to give it another name, remove {folder} and join again",
                self.record.node_name, invitation.node_name
            )));
        }
        if self.not_after < SystemTime::now() {
            return Err(Error::Certificate(format!(
                "the certificate of \"{}\" has expired; remove {folder} and join again with a new token",
                self.record.node_name
            )));
        }
        Ok(())
    }

    /// The name that the cluster knows this machine by.
    pub fn node_name(&self) -> &str {
        &self.record.node_name
    }

    /// How to reach the server as this node.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::new(&self.server)
            .trust(Trust::Roots(self.record.ca_bundle_pem.clone().into_bytes()))
            .certificate(self.record.certificate_chain_pem.clone(), self.record.key_pem.clone())
    }

    /// Waits until the certificate should be renewed, renews it, and gives the new membership. Connections made with
    /// the old one stay good until it expires.
    pub async fn renewed(&self) -> Self {
        while let Ok(left) = self.renew_at.duration_since(SystemTime::now()) {
            tokio::time::sleep(left.min(CLOCK_CHECK)).await;
        }
        loop {
            match self.renew().await {
                Ok(renewed) => return renewed,
                Err(error) => {
                    tracing::warn!(error = %error.full(), "the node's certificate is not renewed yet")
                }
            }
            tokio::time::sleep(self.retry).await;
        }
    }

    async fn renew(&self) -> Result<Self, Error> {
        let (key_pem, request) = new_key()?;
        let link =
            GrpcNodeLink::new(&self.endpoint()).map_err(|error| Error::Certificate(error.to_string()))?;
        let issued = link.renew(request).await?;
        let record = Record::new(self.record.node_name.clone(), key_pem, issued);
        records::write_durably(&self.path, &record)?;
        tracing::info!(node = %record.node_name, "the node's certificate is renewed");
        Self::new(record, self.path.clone(), &self.server)
    }
}

/// Somewhere in a range.
fn drawn(range: &RangeInclusive<f64>) -> f64 {
    let mut random = [0_u8; 2];
    let _ = getrandom::fill(&mut random);
    let share = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
    range.start() + (range.end() - range.start()) * share
}

/// A new key, PEM, and the request for its certificate, DER. The server ignores the request's subject.
fn new_key() -> Result<(String, Vec<u8>), Error> {
    let failed = |error: rcgen::Error| Error::Certificate(error.to_string());
    let key = KeyPair::generate().map_err(failed)?;
    let request = CertificateParams::default().serialize_request(&key).map_err(failed)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

/// From when until when the first certificate of a chain is good.
fn validity(chain_pem: &str) -> Result<(SystemTime, SystemTime), Error> {
    let unreadable =
        |error: &dyn std::fmt::Display| Error::Certificate(format!("it cannot be read: {error}"));
    let der = CertificateDer::from_pem_slice(chain_pem.as_bytes()).map_err(|error| unreadable(&error))?;
    let certificate = Certificate::from_der(&der).map_err(|error| unreadable(&error))?;
    let validity = certificate.tbs_certificate().validity();
    Ok((validity.not_before.to_system_time(), validity.not_after.to_system_time()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn record(life: Duration) -> Record {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
        params.not_after = (SystemTime::now() - Duration::from_secs(60) + life).into();
        let certificate = params.self_signed(&key).unwrap();
        Record {
            node_name: "gpu-02".to_owned(),
            key_pem: key.serialize_pem(),
            certificate_chain_pem: certificate.pem(),
            ca_bundle_pem: certificate.pem(),
        }
    }

    fn invitation(node_name: &str) -> Invitation {
        Invitation {
            server: "https://127.0.0.1:1".to_owned(),
            trust: Trust::System,
            token: None,
            node_name: node_name.to_owned(),
        }
    }

    #[tokio::test]
    async fn a_machine_that_joined_needs_no_token_again() {
        let folder = tempfile::tempdir().unwrap();
        records::write_durably(&folder.path().join("identity.json"), &record(Duration::from_secs(900)))
            .unwrap();
        let found = membership(folder.path(), &invitation("gpu-02")).await.unwrap();
        assert_eq!(found.node_name(), "gpu-02");
        assert!((RENEW_RETRY_MIN..RENEW_RETRY_MAX).contains(&found.retry), "{:?}", found.retry);
        let mut drawn = BTreeSet::new();
        for _ in 0..50 {
            let again = membership(folder.path(), &invitation("gpu-02")).await.unwrap();
            let over = again.renew_at.duration_since(again.not_after - Duration::from_secs(900)).unwrap();
            assert!((629..=811).contains(&over.as_secs()), "70 to 90 % of 900 s: {over:?}");
            drawn.insert(over);
        }
        assert!(drawn.len() > 1, "not all at once");
    }

    #[tokio::test]
    async fn what_stands_in_the_way_is_said_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let message = |result: Result<Membership, Error>| result.err().expect("refused").to_string();
        let fresh = message(membership(folder.path(), &invitation("gpu-02")).await);
        assert!(fresh.contains("--token"), "{fresh}");

        records::write_durably(&folder.path().join("identity.json"), &record(Duration::from_secs(900)))
            .unwrap();
        let renamed = message(membership(folder.path(), &invitation("other")).await);
        assert!(renamed.contains("gpu-02") && renamed.contains("remove"), "{renamed}");

        records::write_durably(&folder.path().join("identity.json"), &record(Duration::from_secs(30)))
            .unwrap();
        let expired = message(membership(folder.path(), &invitation("gpu-02")).await);
        assert!(expired.contains("expired"), "{expired}");
    }
}
