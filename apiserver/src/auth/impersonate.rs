//! Acting as somebody else: `Impersonate-User` and its kin, for those who have the verb `impersonate` on every part of
//! what they ask to be.

use std::collections::BTreeMap;

use claw_schemas::ApiError;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    ANONYMOUS, AUTHENTICATED, Action, Authorizer, Identity, UNAUTHENTICATED, What,
    rbac::SERVICE_ACCOUNT_PREFIX, service_accounts,
};

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// Group of the resources that stand for a uid and for extras.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Whom a request asks to be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    user: String,
    groups: Vec<String>,
    uid: String,
    extra: BTreeMap<String, Vec<String>>,
}

/// Who a request is by, once its wish to be somebody else is granted.
///
/// # Errors
/// `Forbidden` for a part that may not be impersonated, `BadRequest` for headers that make no user.
pub fn apply(who: Identity, headers: &HeaderMap, authorizer: &dyn Authorizer) -> Result<Identity, ApiError> {
    let Some(wanted) = wanted(headers)? else { return Ok(who) };
    for action in wanted.actions() {
        if !authorizer.allows(&who, &action) {
            return Err(action.forbidden(&who, &authorizer.explain(&who, &action)));
        }
    }
    Ok(wanted.identity())
}

fn wanted(headers: &HeaderMap) -> Result<Option<Wanted>, ApiError> {
    let bad = |what: &str| ApiError::bad_request(format!("impersonation: {what}"));
    let text = |value: &HeaderValue| {
        value.to_str().map(str::to_owned).map_err(|_| bad("a header is not plain text"))
    };
    let mut wanted = Wanted::default();
    let mut asked = false;
    for (name, value) in headers {
        if !name.as_str().starts_with("impersonate-") {
            continue;
        }
        asked = true;
        match name.as_str().strip_prefix(EXTRA_PREFIX) {
            Some(key) => {
                let key = decode(key).ok_or_else(|| bad("the key of an extra is not valid"))?;
                wanted.extra.entry(key).or_default().push(text(value)?);
            }
            None if name == USER => wanted.user = text(value)?,
            None if name == GROUP => wanted.groups.push(text(value)?),
            None if name == UID => wanted.uid = text(value)?,
            None => {}
        }
    }
    match (asked, wanted.user.is_empty()) {
        (false, _) => Ok(None),
        (true, false) => Ok(Some(wanted)),
        (true, true) => Err(bad("groups, uid and extras need a user: send Impersonate-User, too")),
    }
}

impl Wanted {
    /// Namespace and name, if the user is a service account.
    fn account(&self) -> Option<(&str, &str)> {
        self.user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')
    }

    /// What must be allowed.
    fn actions(&self) -> Vec<Action<'_>> {
        let on = |group, plural, subresource, namespace, name| Action {
            verb: "impersonate",
            what: What::Objects { group, plural, subresource, namespace, name },
            fields: None,
        };
        let mut actions = vec![match self.account() {
            Some((namespace, name)) => on("", "serviceaccounts", "", namespace, name),
            None => on("", "users", "", "", self.user.as_str()),
        }];
        actions.extend(self.groups.iter().map(|group| on("", "groups", "", "", group.as_str())));
        if !self.uid.is_empty() {
            actions.push(on(AUTHENTICATION, "uids", "", "", &self.uid));
        }
        for (key, values) in &self.extra {
            actions
                .extend(values.iter().map(|value| on(AUTHENTICATION, "userextras", key, "", value.as_str())));
        }
        actions
    }

    /// The user, in the groups that it would have had by itself.
    fn identity(self) -> Identity {
        let mut groups = self.groups.clone();
        let implied = match self.account() {
            Some((namespace, _)) if groups.is_empty() => service_accounts::groups(namespace),
            _ if self.user == ANONYMOUS => vec![UNAUTHENTICATED.to_owned()],
            _ => vec![AUTHENTICATED.to_owned()],
        };
        for group in implied {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        Identity::new(self.user, groups).with(self.uid, self.extra)
    }
}

/// Keys of extras are percent-encoded, since header names cannot hold a slash.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => u8::from_str_radix(std::str::from_utf8(&[rest.next()?, rest.next()?]).ok()?, 16).ok()?,
            other => other,
        });
    }
    String::from_utf8(bytes).ok().filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Allows exactly these resources and names.
    struct Only(&'static [&'static str]);

    impl Authorizer for Only {
        fn allows(&self, _: &Identity, action: &Action<'_>) -> bool {
            let What::Objects { plural, subresource, namespace, name, .. } = action.what else {
                return false;
            };
            let what = [plural, subresource, namespace, name].into_iter().filter(|part| !part.is_empty());
            action.verb == "impersonate" && self.0.contains(&what.collect::<Vec<_>>().join("/").as_str())
        }
    }

    fn ask(allowed: &'static [&'static str], headers: &[(&str, &str)]) -> Result<Identity, ApiError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        apply(Identity::of("root", &[]), &map, &Only(allowed))
    }

    #[test]
    fn without_headers_everybody_is_who_they_are() {
        assert_eq!(ask(&[], &[("accept", "x")]).unwrap().user, "root");
    }

    #[test]
    fn every_part_of_the_other_must_be_allowed() {
        let headers = [
            ("Impersonate-User", "eve"),
            ("Impersonate-Group", "devs"),
            ("Impersonate-Group", "ops"),
            ("Impersonate-Uid", "u1"),
            ("Impersonate-Extra-acme.com%2Fproject", "moon"),
        ];
        let all = &["users/eve", "groups/devs", "groups/ops", "uids/u1", "userextras/acme.com/project/moon"];
        let eve = ask(all, &headers).unwrap();
        assert_eq!((eve.user.as_str(), eve.uid.as_str()), ("eve", "u1"));
        assert_eq!(eve.groups, ["devs", "ops", AUTHENTICATED]);
        assert_eq!(eve.extra["acme.com/project"], ["moon"]);
        let error = ask(&["users/eve", "groups/devs"], &headers).unwrap_err();
        assert!(
            error.message.starts_with("groups \"ops\" is forbidden: User \"root\" cannot impersonate"),
            "{error}"
        );
    }

    #[test]
    fn a_service_account_brings_its_groups() {
        let user = [("Impersonate-User", "system:serviceaccount:team:bot")];
        let bot = ask(&["serviceaccounts/team/bot"], &user).unwrap();
        assert_eq!(bot.groups, service_accounts::groups("team"));
        assert_eq!(ask(&["users/system:serviceaccount:team:bot"], &user).unwrap_err().code, 403);
        let nobody = ask(&["users/system:anonymous"], &[("Impersonate-User", ANONYMOUS)]).unwrap();
        assert_eq!(nobody, Identity::anonymous());
    }

    #[test]
    fn parts_without_a_user_are_refused() {
        assert_eq!(ask(&["groups/devs"], &[("Impersonate-Group", "devs")]).unwrap_err().code, 400);
        let extra = [("Impersonate-User", "eve"), ("Impersonate-Extra-a%f", "x")];
        assert_eq!(ask(&["users/eve"], &extra).unwrap_err().code, 400);
    }
}
