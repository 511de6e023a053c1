//! The certificate authority: made once, signs everything.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject as _};

use super::{facts::Facts, files};
use crate::error::Error;

/// How long the authority lives: 10 years. Nothing renews it, so it must outlive any installation.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a certificate issued by it lives: 1 year.
pub const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Certificates are valid from a little before now, for machines whose clocks are behind.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// Random bytes of a serial number; RFC 5280 allows 20, and 16 never meet by chance.
const SERIAL_BYTES: usize = 16;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A server that clients verify by name.
    Server,
    /// A client that the server knows by its subject.
    Client,
}

/// The certificate authority.
pub struct Authority {
    certificate: String,
    certificate_der: CertificateDer<'static>,
    key_id: Option<Vec<u8>>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Reads the authority of a folder, or makes it.
    pub(super) fn open(folder: &Path, now: SystemTime) -> Result<Self, Error> {
        let (certificate_path, key_path) = (folder.join("ca.crt"), folder.join("ca.key"));
        let broken = |path: &Path, problem: &str| Error::Certificate {
            path: path.to_owned(),
            problem: format!(
                "{problem}; restore ca.crt and ca.key from a backup, or delete the whole pki folder to begin with a new authority (all nodes must join again)"
            ),
        };
        let certificate = match (files::read_if_there(&certificate_path)?, files::read_if_there(&key_path)?) {
            (Some(certificate), Some(key)) => {
                return Self::from_pem(certificate, &key)
                    .map_err(|problem| broken(&certificate_path, &problem));
            }
            (Some(_), None) => return Err(broken(&key_path, "is missing beside ca.crt")),
            (None, _) if has_signed(folder)? => {
                return Err(broken(&certificate_path, "is missing beside certificates that it signed"));
            }
            // A key alone is what a crash leaves between the two writes below: nothing was issued with it.
            (None, _) => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(issue("the authority"))?;
                let certificate = authority_params(now)
                    .and_then(|params| params.self_signed(&key))
                    .map_err(issue("the authority"))?;
                files::write(&key_path, key.serialize_pem().as_bytes(), files::PRIVATE)?;
                files::write(&certificate_path, certificate.pem().as_bytes(), files::PUBLIC)?;
                (certificate.pem(), key.serialize_pem())
            }
        };
        Self::from_pem(certificate.0, &certificate.1).map_err(|problem| broken(&certificate_path, &problem))
    }

    fn from_pem(certificate: String, key: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(key).map_err(|error| format!("ca.key is no private key ({error})"))?;
        let certificate_der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| format!("is no certificate ({error})"))?;
        let facts = Facts::read(&certificate_der).map_err(|error| format!("does not parse ({error})"))?;
        if facts.public_key != key.subject_public_key_info() {
            return Err("does not belong to ca.key".to_owned());
        }
        if !facts.outlives(SystemTime::now(), Duration::ZERO) {
            return Err("has expired".to_owned());
        }
        let issuer = Issuer::from_ca_cert_der(&certificate_der, key)
            .map_err(|error| format!("cannot sign ({error})"))?;
        Ok(Self { certificate, certificate_der, key_id: facts.key_id, issuer })
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The authority's certificate, DER.
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate_der
    }

    /// `sha256:` and the hex digest of the authority's certificate (DER): a short thing that a joining machine can
    /// check the whole certificate by.
    pub fn hash(&self) -> String {
        format!("sha256:{}", crate::auth::sha256_hex(&self.certificate_der))
    }

    /// Whether a certificate says that this authority signed it. Not a check against forgery: it tells files of
    /// one installation from those of another.
    pub(super) fn claims(&self, facts: &Facts) -> bool {
        self.key_id.is_some() && facts.signer_key_id == self.key_id
    }

    /// Issues a certificate for a key, as PEM.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub(super) fn issue(
        &self,
        key: &impl PublicKeyData,
        subject: (&str, Option<&str>),
        names: Vec<String>,
        purpose: Purpose,
        now: SystemTime,
    ) -> Result<String, Error> {
        self.issue_for(LEAF_LIFE, key, subject, names, purpose, now)
    }

    fn issue_for(
        &self,
        life: Duration,
        key: &impl PublicKeyData,
        (common_name, organization): (&str, Option<&str>),
        names: Vec<String>,
        purpose: Purpose,
        now: SystemTime,
    ) -> Result<String, Error> {
        leaf_params(common_name, organization, names, purpose)
            .and_then(|mut params| set_life(&mut params, now, life).map(|()| params))
            .and_then(|params| params.signed_by(key, &self.issuer))
            .map(|certificate| certificate.pem())
            .map_err(issue(common_name))
    }

    /// Issues a node's client certificate for a PKCS#10 request. Only the key is taken from the request: its
    /// subject and extensions say nothing here.
    ///
    /// # Errors
    /// A sentence for the caller, when the request does not parse or is not signed with its own key.
    pub fn sign_node(&self, request: &[u8], node: &str, life: Duration) -> Result<String, String> {
        let request = CertificateSigningRequestDer::from(request);
        let request = CertificateSigningRequestParams::from_der(&request)
            .map_err(|error| format!("the certificate request cannot be used: {error}"))?;
        let user = format!("system:node:{node}");
        self.issue_for(
            life,
            &request.public_key,
            (&user, Some("system:nodes")),
            Vec::new(),
            Purpose::Client,
            SystemTime::now(),
        )
        .map_err(|error| error.to_string())
    }
}

/// Whether a folder holds certificates: an authority that was here once signed them.
fn has_signed(folder: &Path) -> Result<bool, Error> {
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = entries.map_err(Error::file("read", folder))?;
    Ok(entries.iter().any(|entry| entry.path().extension().is_some_and(|extension| extension == "crt")))
}

fn issue(subject: &str) -> impl FnOnce(rcgen::Error) -> Error {
    let subject = subject.to_owned();
    move |source| Error::Issue { subject, source }
}

fn authority_params(now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "clawbernetes");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    set_life(&mut params, now, AUTHORITY_LIFE)?;
    Ok(params)
}

fn leaf_params(
    common_name: &str,
    organization: Option<&str>,
    names: Vec<String>,
    purpose: Purpose,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match purpose {
        Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    Ok(params)
}

/// It begins a little before it is made, for clocks that are behind: not by more than a tenth of its life, which its holder
/// reckons with.
fn set_life(params: &mut CertificateParams, now: SystemTime, life: Duration) -> Result<(), rcgen::Error> {
    params.not_before = (now - CLOCK_SKEW.min(life / 10)).into();
    params.not_after = (now + life).into();
    let mut serial = [0; SERIAL_BYTES];
    getrandom::fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    // A serial number is a positive integer.
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(())
}
