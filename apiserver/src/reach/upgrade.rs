//! Which protocol a client asks for, and the answer that begins it (pure).

use axum::body::Body;
use claw_schemas::{ApiError, status::Reason};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// In requests the protocols that a SPDY client speaks, in answers the one that was chosen.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

const SPDY: &str = "SPDY/3.1";

/// Of `exec` and `attach` by SPDY.
const SPDY_TERMINAL: &[&str] = &["v4.channel.k8s.io"];
/// Of `port-forward` by SPDY.
const SPDY_FORWARD: &[&str] = &["portforward.k8s.io"];
/// Of `exec` and `attach` by WebSocket, preferred first.
const WEBSOCKET_TERMINAL: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Of `port-forward` by WebSocket, preferred first.
const WEBSOCKET_FORWARD: &[&str] = &[TUNNEL, "v4.channel.k8s.io"];
/// SPDY within a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// What a connection speaks once it is upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// SPDY/3.1.
    Spdy,
    /// SPDY/3.1 in the messages of a WebSocket.
    Tunnel,
    /// The channels of a WebSocket.
    Channels,
}

/// An upgrade that can be made.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// What is spoken then.
    pub wire: Wire,
    protocol: &'static str,
    /// Of a WebSocket.
    accept: Option<String>,
}

impl Upgrade {
    /// The upgrade that a client asks for.
    ///
    /// # Errors
    /// When it asks for none, or for one to something that is not spoken here.
    pub fn asked(headers: &HeaderMap, is_forward: bool) -> Result<Self, ApiError> {
        let wanted = words(headers, &header::UPGRADE);
        let is_wanted =
            words(headers, &header::CONNECTION).iter().any(|word| word.eq_ignore_ascii_case("upgrade"));
        let wants = |name: &str| is_wanted && wanted.iter().any(|word| word.eq_ignore_ascii_case(name));
        if wants("websocket") {
            Self::websocket(headers, is_forward)
        } else if wants(SPDY) {
            let known = if is_forward { SPDY_FORWARD } else { SPDY_TERMINAL };
            let protocol = choose(&words(headers, &STREAM_PROTOCOL), known)?;
            Ok(Self { wire: Wire::Spdy, protocol, accept: None })
        } else {
            Err(required())
        }
    }

    fn websocket(headers: &HeaderMap, is_forward: bool) -> Result<Self, ApiError> {
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(ApiError::bad_request("only version 13 of WebSocket is spoken here"));
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY);
        let key = key.ok_or_else(|| ApiError::bad_request("the Sec-WebSocket-Key is missing"))?;
        let known = if is_forward { WEBSOCKET_FORWARD } else { WEBSOCKET_TERMINAL };
        let protocol = choose(&words(headers, &header::SEC_WEBSOCKET_PROTOCOL), known)?;
        let wire = if protocol == TUNNEL { Wire::Tunnel } else { Wire::Channels };
        Ok(Self { wire, protocol, accept: Some(derive_accept_key(key.as_bytes())) })
    }

    /// The answer with which the new protocol begins.
    pub fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        let (name, protocol_header) = match self.accept {
            Some(_) => ("websocket", header::SEC_WEBSOCKET_PROTOCOL),
            None => (SPDY, STREAM_PROTOCOL),
        };
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(name));
        headers.insert(protocol_header, HeaderValue::from_static(self.protocol));
        if let Some(accept) = self.accept.as_deref().and_then(|accept| HeaderValue::from_str(accept).ok()) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        response
    }
}

/// Said to who asks for a document.
pub fn required() -> ApiError {
    ApiError::bad_request("Upgrade request required")
}

/// The comma-separated words of a header that may come several times.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn choose(offered: &[&str], known: &[&'static str]) -> Result<&'static str, ApiError> {
    known.iter().find(|known| offered.contains(known)).copied().ok_or_else(|| {
        let (offered, known) = (offered.join(", "), known.join(", "));
        let why =
            format!("unable to negotiate a protocol: the client speaks [{offered}], the server [{known}]");
        ApiError::new(Reason::Forbidden, why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    const WEBSOCKET: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn websocket(protocol: &'static str, is_forward: bool) -> Result<Upgrade, ApiError> {
        let pairs = [&WEBSOCKET[..], &[("sec-websocket-protocol", protocol)]].concat();
        Upgrade::asked(&headers(&pairs), is_forward)
    }

    #[test]
    fn the_newest_protocol_that_both_speak_is_chosen() {
        let both = websocket("v4.channel.k8s.io, v5.channel.k8s.io", false).unwrap();
        assert_eq!((both.wire, both.protocol), (Wire::Channels, "v5.channel.k8s.io"));
        assert_eq!(websocket("v4.channel.k8s.io", false).unwrap().protocol, "v4.channel.k8s.io");
        assert_eq!(websocket(TUNNEL, true).unwrap().wire, Wire::Tunnel);
        assert_eq!(websocket("v4.channel.k8s.io", true).unwrap().wire, Wire::Channels);
    }

    #[test]
    fn the_answer_to_a_websocket_proves_that_the_key_was_read() {
        // The example of RFC 6455, section 1.3.
        let response = websocket("v5.channel.k8s.io", false).unwrap().response();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    }

    #[test]
    fn a_spdy_client_offers_its_protocols_in_a_header_for_each() {
        let asked = headers(&[
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "channel.k8s.io"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ]);
        let upgrade = Upgrade::asked(&asked, false).unwrap();
        assert_eq!(upgrade.wire, Wire::Spdy);
        assert_eq!(upgrade.response().headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
        assert_eq!(Upgrade::asked(&asked, true).unwrap_err().code, 403, "those are no ports");
    }

    #[test]
    fn a_plain_request_is_told_what_it_lacks() {
        for asked in [headers(&[]), headers(&[("connection", "Upgrade"), ("upgrade", "h2c")])] {
            let error = Upgrade::asked(&asked, false).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (400, "Upgrade request required"));
        }
        assert_eq!(websocket("v9.channel.k8s.io", false).unwrap_err().code, 403);
    }
}
