//! Who we are to a server, by token: the `Authorization` header, from a text or from a file that may change.
//!
//! Must never know: which wire the header goes over.

use std::{path::Path, time::Duration};

use claw_schemas::{ApiError, status::Reason};
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use crate::{
    endpoint::{Endpoint, Token},
    error::ConfigError,
};

/// How long what was read from a file is used; rotation leaves minutes of overlap.
pub(crate) const FILE_SECONDS: Duration = Duration::from_secs(60);

/// The `Authorization` header of every request.
pub(crate) struct Credentials {
    token: Option<Token>,
    read: Mutex<Option<Read>>,
}

/// What a token file held.
struct Read {
    value: HeaderValue,
    /// When it is to be read again.
    until: Instant,
}

impl Credentials {
    pub fn new(endpoint: &Endpoint) -> Result<Self, ConfigError> {
        // Over plain HTTP anybody on the way could take the token.
        let token = if endpoint.base()?.tls { endpoint.token.clone() } else { None };
        if let Some(Token::Text(text)) = &token {
            bearer(text).map_err(|why| ConfigError::field("token", why))?;
        }
        Ok(Self { token, read: Mutex::new(None) })
    }

    /// The header's value, if there is a token.
    pub fn header(&self) -> Result<Option<HeaderValue>, ApiError> {
        match &self.token {
            None => Ok(None),
            Some(Token::Text(text)) => bearer(text).map(Some).map_err(|why| unauthorized(why.to_owned())),
            Some(Token::File(path)) => self.of_file(path).map(Some),
        }
    }

    /// The server does not know the token: what is in the file may be newer.
    pub fn doubt(&self) {
        if let Some(read) = &mut *self.read.lock() {
            read.until = Instant::now();
        }
    }

    fn of_file(&self, path: &Path) -> Result<HeaderValue, ApiError> {
        let mut read = self.read.lock();
        let now = Instant::now();
        if let Some(read) = &*read
            && now < read.until
        {
            return Ok(read.value.clone());
        }
        let value = match (read_token(path), &*read) {
            (Ok(value), _) => value,
            // It is being replaced, perhaps; the one we have may be good for a while yet.
            (Err(error), Some(read)) => {
                warn!(%error, "a token cannot be read again; going on with the one before");
                read.value.clone()
            }
            (Err(error), None) => return Err(error),
        };
        *read = Some(Read { value: value.clone(), until: now + FILE_SECONDS });
        Ok(value)
    }
}

fn read_token(path: &Path) -> Result<HeaderValue, ApiError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| unauthorized(format!("cannot read tokenFile {}: {error}", path.display())))?;
    bearer(text.trim()).map_err(|why| unauthorized(format!("tokenFile {} {why}", path.display())))
}

fn unauthorized(why: String) -> ApiError {
    ApiError::new(Reason::Unauthorized, why)
}

fn bearer(token: &str) -> Result<HeaderValue, &'static str> {
    if token.is_empty() {
        return Err("is empty");
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| "holds characters that no header may, such as a line end")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(path: &Path) -> Credentials {
        let mut endpoint = Endpoint::new("a");
        endpoint.token = Some(Token::File(path.to_owned()));
        Credentials::new(&endpoint).unwrap()
    }

    #[test]
    fn a_token_is_never_sent_in_the_clear() {
        let header =
            |server| Credentials::new(&Endpoint::new(server).token("secret")).unwrap().header().unwrap();
        assert_eq!(header("https://a").unwrap(), "Bearer secret");
        assert_eq!(header("http://a"), None);
    }

    #[test]
    fn a_token_that_cannot_be_a_header_is_refused_by_name() {
        let error = Credentials::new(&Endpoint::new("a").token("two\nlines")).err().unwrap();
        assert!(error.to_string().starts_with("token: "), "{error}");
    }

    #[test]
    fn a_missing_token_file_is_named() {
        let error = of_file(Path::new("/nonexistent/token")).header().unwrap_err();
        assert_eq!(error.code, 401);
        assert!(error.message.contains("/nonexistent/token"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_in_a_file_is_read_again_after_a_while_and_kept_while_the_file_is_unusable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let credentials = of_file(&path);
        let header = || credentials.header().unwrap().unwrap();
        std::fs::write(&path, "first\n").unwrap();
        assert_eq!(header(), "Bearer first");
        std::fs::write(&path, "").unwrap();
        tokio::time::advance(FILE_SECONDS).await;
        assert_eq!(header(), "Bearer first");
        std::fs::write(&path, "second").unwrap();
        assert_eq!(header(), "Bearer first");
        tokio::time::advance(FILE_SECONDS).await;
        assert_eq!(header(), "Bearer second");
    }

    #[test]
    fn a_token_that_was_refused_is_read_again_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let credentials = of_file(&path);
        std::fs::write(&path, "old").unwrap();
        credentials.header().unwrap();
        std::fs::write(&path, "new").unwrap();
        credentials.doubt();
        assert_eq!(credentials.header().unwrap().unwrap(), "Bearer new");
    }
}
