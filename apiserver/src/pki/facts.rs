//! What a certificate says, read with `x509-cert`.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use der::{Decode as _, Encode as _, oid::ObjectIdentifier};
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use x509_cert::{
    Certificate,
    attr::AttributeTypeAndValue,
    ext::pkix::{
        AuthorityKeyIdentifier, SubjectAltName, SubjectKeyIdentifier,
        name::{DirectoryString, GeneralName},
    },
    request::CertReq,
};

/// `id-at-commonName`, X.520.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// `id-at-organizationName`, X.520.
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The subject's common name: the user.
    pub common_name: String,
    /// The subject's organizations: the groups.
    pub organizations: Vec<String>,
    /// DNS names and addresses it is valid for.
    pub names: BTreeSet<String>,
    /// When it expires.
    pub not_after: SystemTime,
    /// The subject's public key, DER of `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
    /// Identifier of that key, on certificates of authorities.
    pub key_id: Option<Vec<u8>>,
    /// Identifier of the key that signed it.
    pub signer_key_id: Option<Vec<u8>>,
}

impl Facts {
    /// Reads a certificate.
    ///
    /// # Errors
    /// When it is not one, or its subject has no readable common name.
    pub fn read(der: &[u8]) -> Result<Self, der::Error> {
        let certificate = Certificate::from_der(der)?;
        let body = certificate.tbs_certificate();
        let attributes = |wanted: ObjectIdentifier| {
            body.subject().iter().filter(move |one| one.oid == wanted).map(text_of)
        };
        let common_name = attributes(COMMON_NAME)
            .next()
            .transpose()?
            .ok_or_else(|| der::Error::from(der::ErrorKind::OidUnknown { oid: COMMON_NAME }))?;
        let organizations = attributes(ORGANIZATION).collect::<Result<_, _>>()?;
        let names = match body.get_extension::<SubjectAltName>()? {
            Some((_, SubjectAltName(names))) => names.iter().filter_map(alternative_name).collect(),
            None => BTreeSet::new(),
        };
        Ok(Self {
            common_name,
            organizations,
            names,
            not_after: body.validity().not_after.to_system_time(),
            public_key: body.subject_public_key_info().to_der()?,
            key_id: body.get_extension::<SubjectKeyIdentifier>()?.map(|(_, id)| id.0.as_bytes().to_vec()),
            signer_key_id: body
                .get_extension::<AuthorityKeyIdentifier>()?
                .and_then(|(_, id)| id.key_identifier)
                .map(|id| id.as_bytes().to_vec()),
        })
    }

    /// Whether it is good for at least `margin` after `now`.
    pub fn outlives(&self, now: SystemTime, margin: Duration) -> bool {
        self.not_after.duration_since(now).is_ok_and(|left| left > margin)
    }
}

/// The subject's organizations in a request for a certificate, PEM.
///
/// # Errors
/// When it is none.
pub fn organizations_of_request(pem: &[u8]) -> Result<Vec<String>, String> {
    let request = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
    let request = CertReq::from_der(&request).map_err(|error| error.to_string())?;
    let organizations = request.info.subject.iter().filter(|one| one.oid == ORGANIZATION);
    organizations.map(text_of).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

fn text_of(attribute: &AttributeTypeAndValue) -> Result<String, der::Error> {
    let text = DirectoryString::try_from(&attribute.value)?;
    Ok(text.value().to_string())
}

fn alternative_name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
            v4.or(v6).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}
