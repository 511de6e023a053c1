//! Names for requests, by which an answer is found again in the log, and the log of answers.
//!
//! Must never know: what requests mean.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use uuid::Uuid;

/// The header that names a request and its answer, as in Kubernetes.
pub const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// What a client may call a request: a UUID, or something of its own that is not longer than it needs to be.
const GIVEN_BYTES_MAX: usize = 64;

/// Makes names.
pub struct Ids {
    /// Tells this process from all others.
    process: u64,
    next: AtomicU64,
}

impl Ids {
    /// Names that no other process makes.
    pub fn new() -> Self {
        Self { process: Uuid::new_v4().as_u64_pair().0, next: AtomicU64::new(1) }
    }

    /// The name of a request: what the client calls it, else a new one.
    pub fn of(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(AUDIT_ID).filter(|id| is_sane(id)) {
            Some(id) => id.clone(),
            None => self.make(),
        }
    }

    /// A UUID without asking the system for random bytes every time: a part is this process, the rest counts.
    fn make(&self) -> HeaderValue {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let bytes = (u128::from(self.process) << 64 | u128::from(number)).to_be_bytes();
        let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        let mut text = Uuid::encode_buffer();
        HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).expect("digits and hyphens")
    }
}

fn is_sane(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    let is_sane = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    (1..=GIVEN_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(is_sane)
}

/// What is remembered of a request until it is answered.
pub struct Asked {
    /// Its name.
    pub id: HeaderValue,
    /// What was to be done.
    pub method: Method,
    /// Where.
    pub uri: Uri,
    /// When it came.
    pub at: Instant,
}

impl Asked {
    /// Says how it was answered: always to those who look closely, and to everybody when the server failed. Parameters
    /// are left out, because some are secret.
    pub fn log(&self, user: Option<&str>, code: u16, failed: bool) {
        let (id, user) = (self.id.to_str().unwrap_or_default(), user.unwrap_or_default());
        let (method, path, ms) = (&self.method, self.uri.path(), self.at.elapsed().as_millis());
        if failed {
            tracing::warn!(audit_id = id, %method, path, user, code, ms, "a request failed");
        } else {
            tracing::debug!(audit_id = id, %method, path, user, code, ms, "answered");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn given(id: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUDIT_ID, HeaderValue::from_bytes(id.as_bytes()).unwrap())])
    }

    #[test]
    fn a_sane_name_is_taken_over_and_another_is_replaced() {
        let ids = Ids::new();
        assert_eq!(ids.of(&given("deploy-42_a.b")), "deploy-42_a.b");
        let long = "x".repeat(GIVEN_BYTES_MAX + 1);
        for id in ["", "a b", "a\"b", "größe", &long] {
            let made = ids.of(&given(id));
            assert!(Uuid::parse_str(made.to_str().unwrap()).is_ok(), "{id}: {made:?}");
        }
    }

    #[test]
    fn no_name_is_given_twice() {
        let (one, other) = (Ids::new(), Ids::new());
        let names: HashSet<_> = (0..1000).flat_map(|_| [one.make(), other.make()]).collect();
        assert_eq!(names.len(), 2000);
    }
}
