//! Where a list starts and which state it reads: `limit`, `continue`, `resourceVersion`, `resourceVersionMatch`.
//!
//! The rules are those of the Kubernetes API concepts page, "Semantics for get and list".

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use claw_client::request::ListOptions;
use claw_schemas::ApiError;
use serde::{Deserialize, Serialize};

use super::errors::{ahead, bad_option, parse_revision};
use crate::store::{Key, Revision};

/// Where a list starts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Start {
    /// Read exactly this state; the current one otherwise.
    pub at: Option<Revision>,
    /// Skip up to and including this key.
    pub after: Option<Key>,
    /// Whether a `continue` token led here.
    pub continued: bool,
    /// How many objects the pages before gave.
    pub given: usize,
}

/// The content of a `continue` token. Clients must not look into it.
#[derive(Serialize, Deserialize)]
struct Token {
    v: u8,
    /// 0: whatever is current, consistent with no page before.
    rv: Revision,
    /// The last key given, without the prefix of the collection.
    after: String,
    /// How many objects were given up to there.
    #[serde(default)]
    given: usize,
}

const TOKEN_VERSION: u8 = 1;

/// A token for what follows `last`, before and with which so many objects were given.
pub(super) fn token(prefix: &Key, last: &Key, at: Revision, given: usize) -> String {
    let after = last.as_str().strip_prefix(prefix.as_str()).unwrap_or_default().to_owned();
    let token = serde_json::to_vec(&Token { v: TOKEN_VERSION, rv: at, after, given });
    BASE64_URL_SAFE_NO_PAD.encode(token.expect("a token holds only numbers and text"))
}

fn parse_token(prefix: &Key, text: &str) -> Result<Start, ApiError> {
    let invalid = || ApiError::bad_request("continue key is not valid: start the list again without it");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    if token.v != TOKEN_VERSION || token.after.is_empty() {
        return Err(invalid());
    }
    Ok(Start {
        at: Some(token.rv).filter(|at| *at > 0),
        after: Some(Key::from_text(&format!("{}{}", prefix.as_str(), token.after))),
        continued: true,
        given: token.given,
    })
}

/// Reads the options of a list; `current` is the store's revision.
pub(super) fn start(prefix: &Key, options: &ListOptions, current: Revision) -> Result<Start, ApiError> {
    let revision = options.resource_version.as_deref().filter(|text| !text.is_empty());
    let matching = options.resource_version_match.as_deref().filter(|text| !text.is_empty());
    let refuse = |why: &str| Err(bad_option("ListOptions", "resourceVersionMatch", why));
    if let Some(text) = options.continue_token.as_deref().filter(|text| !text.is_empty()) {
        if matching.is_some() {
            return refuse("resourceVersionMatch is forbidden for continue");
        }
        if revision.is_some_and(|revision| revision != "0") {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        return parse_token(prefix, text);
    }
    let Some(revision) = revision else {
        return match matching {
            Some(_) => refuse("resourceVersionMatch is forbidden unless resourceVersion is provided"),
            None => Ok(Start::default()),
        };
    };
    let asked = parse_revision(revision)?;
    let exact = match matching {
        Some("Exact") if asked == 0 => {
            return refuse("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
        Some("Exact") => true,
        Some("NotOlderThan") => false,
        Some(_) => return refuse("use Exact or NotOlderThan"),
        // Without a match, a page limit has always meant exactly this revision.
        None => asked > 0 && options.limit > 0,
    };
    if asked > current {
        return Err(ahead(asked, current));
    }
    Ok(Start { at: Some(asked).filter(|_| exact), ..Start::default() })
}

#[cfg(test)]
mod tests {
    use claw_schemas::status::Reason;

    use super::*;

    fn options(limit: u64, revision: &str, matching: &str, token: &str) -> ListOptions {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        ListOptions {
            limit,
            resource_version: some(revision),
            resource_version_match: some(matching),
            continue_token: some(token),
            ..ListOptions::default()
        }
    }

    #[test]
    fn the_table_of_list_semantics_holds() {
        let prefix = Key::collection("", "pods", None);
        let at = |limit, revision: &str, matching: &str| {
            start(&prefix, &options(limit, revision, matching, ""), 100).map(|start| start.at)
        };
        for (limit, revision, matching, expected) in [
            (0, "", "", None),
            (5, "", "", None),
            (0, "0", "", None),
            (5, "0", "", None),
            (0, "7", "", None),
            (5, "7", "", Some(7)),
            (0, "7", "NotOlderThan", None),
            (5, "7", "NotOlderThan", None),
            (0, "7", "Exact", Some(7)),
            (0, "100", "Exact", Some(100)),
        ] {
            assert_eq!(at(limit, revision, matching), Ok(expected), "{limit} {revision} {matching}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let prefix = Key::collection("", "pods", None);
        let token = token(&prefix, &Key::object("", "pods", "a", "b"), 7, 1);
        for (revision, matching, token, reason) in [
            ("", "Exact", "", Reason::Invalid),
            ("0", "Exact", "", Reason::Invalid),
            ("5", "Sometimes", "", Reason::Invalid),
            ("5", "", &*token, Reason::BadRequest),
            ("", "Exact", &*token, Reason::Invalid),
            ("abc", "", "", Reason::BadRequest),
            ("-1", "", "", Reason::BadRequest),
            ("", "", "nonsense", Reason::BadRequest),
            ("101", "", "", Reason::Timeout),
        ] {
            let error = start(&prefix, &options(0, revision, matching, token), 100).unwrap_err();
            assert_eq!(error.reason, reason, "{revision} {matching} {token}");
        }
    }

    #[test]
    fn a_token_leads_back_to_its_place() {
        let prefix = Key::collection("", "pods", Some("ns"));
        let last = Key::object("", "pods", "ns", "x");
        let found = start(&prefix, &options(5, "", "", &token(&prefix, &last, 42, 5)), 100).unwrap();
        assert_eq!(found, Start { at: Some(42), after: Some(last), continued: true, given: 5 });
    }
}
