//! JSON web tokens signed with ES256 (RFC 7515, RFC 7518): P-256 and SHA-256, which every client library verifies.
//!
//! Must never know: what the claims mean, where the key is kept.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    },
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::auth::digest;

const ALGORITHM: &str = "ES256";

/// Longest token that is looked at: ours have under 2 KiB, most of it names.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// A key that signs, and recognises what it signed.
pub struct Key {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    id: String,
}

#[derive(Deserialize, Serialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

impl Key {
    /// From a PKCS#8 document in PEM.
    ///
    /// # Errors
    /// What is wrong with it, for a message that names the file.
    pub fn from_pem(pem: &str) -> Result<Self, String> {
        let random = SystemRandom::new();
        let document = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| format!("is no private key ({error})"))?;
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.secret_pkcs8_der(), &random)
                .map_err(|error| format!("is no P-256 key ({error})"))?;
        let id = BASE64URL.encode(digest(pair.public_key().as_ref()));
        Ok(Self { pair, random, id })
    }

    /// Signs claims. `None` when the machine gives no random numbers.
    pub fn sign(&self, claims: &impl Serialize) -> Option<String> {
        let header = Header { alg: ALGORITHM.to_owned(), kid: self.id.clone() };
        let part = |json: Vec<u8>| BASE64URL.encode(json);
        let signed =
            format!("{}.{}", part(serde_json::to_vec(&header).ok()?), part(serde_json::to_vec(claims).ok()?));
        let signature = self.pair.sign(&self.random, signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", BASE64URL.encode(signature)))
    }

    /// The claims of a token that this key signed; `None` for every other text.
    pub fn verify<T: DeserializeOwned>(&self, token: &str) -> Option<T> {
        let (signed, signature) = token.rsplit_once('.').filter(|_| token.len() <= TOKEN_BYTES_MAX)?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&BASE64URL.decode(header).ok()?).ok()?;
        if header.alg != ALGORITHM || header.kid != self.id {
            return None;
        }
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref());
        public.verify(signed.as_bytes(), &BASE64URL.decode(signature).ok()?).ok()?;
        serde_json::from_slice(&BASE64URL.decode(claims).ok()?).ok()
    }

    /// The public key as a JSON web key set (RFC 7517), for those who verify tokens themselves.
    pub fn public_set(&self) -> Value {
        // An uncompressed point: a 4, then both coordinates of 32 bytes.
        let point = self.pair.public_key().as_ref();
        let (x, y) = (BASE64URL.encode(&point[1..33]), BASE64URL.encode(&point[33..]));
        let key = json!({
            "kty": "EC", "crv": "P-256", "alg": ALGORITHM, "use": "sig", "kid": self.id, "x": x, "y": y,
        });
        json!({ "keys": [key] })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn key() -> Key {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Key::from_pem(&pair.serialize_pem()).unwrap()
    }

    #[test]
    fn a_token_is_read_by_its_own_key_only() {
        let (ours, theirs) = (key(), key());
        let token = ours.sign(&json!({"sub": "x"})).unwrap();
        assert_eq!(ours.verify::<Value>(&token), Some(json!({"sub": "x"})));
        assert_eq!(theirs.verify::<Value>(&token), None);
    }

    #[test]
    fn a_token_that_was_touched_is_none() {
        let key = key();
        let token = key.sign(&json!({"sub": "x"})).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let claims = BASE64URL.encode(json!({"sub": "y"}).to_string());
        let none = BASE64URL.encode(json!({"alg": "none", "kid": key.id}).to_string());
        for forged in [
            format!("{}.{claims}.{}", parts[0], parts[2]),
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{token}x"),
            String::new(),
            "..".to_owned(),
            "x".repeat(TOKEN_BYTES_MAX + 1),
        ] {
            assert_eq!(key.verify::<Value>(&forged), None, "{forged}");
        }
    }

    #[test]
    fn the_public_set_verifies_what_the_key_signed() {
        let key = key();
        let set = key.public_set();
        let bytes = |name: &str| BASE64URL.decode(set["keys"][0][name].as_str().unwrap()).unwrap();
        let point = [vec![4], bytes("x"), bytes("y")].concat();
        let token = key.sign(&json!({})).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(signed.as_bytes(), &BASE64URL.decode(signature).unwrap())
            .unwrap();
    }
}
