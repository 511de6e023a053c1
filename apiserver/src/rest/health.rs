//! `/healthz`, `/livez`, `/readyz`, in the words of kube-apiserver, which people and scripts look for.

use axum::body::Body;
use claw_schemas::ApiError;
use futures::future;
use http::Response;

use super::{State, query::Query, respond};
use crate::service::Check;

const TEXT: &str = "text/plain; charset=utf-8";

/// Answers a path about health. `None` when it is not one.
pub(super) async fn answer(
    state: &State,
    path: &str,
    query: Option<&str>,
) -> Option<Result<Response<Body>, ApiError>> {
    let (root, name) = match path.strip_prefix('/')?.split_once('/') {
        Some((root, name)) => (root, name),
        None => (&path[1..], ""),
    };
    let checks = match root {
        "healthz" | "livez" => Check::LIVE,
        "readyz" => Check::READY,
        _ => return None,
    };
    if name.is_empty() {
        return Some(match Query::parse(query) {
            Ok(query) => Ok(all(state, root, checks, &query).await),
            Err(error) => Err(error),
        });
    }
    let check = checks.iter().find(|check| check.name() == name)?;
    Some(Ok(match state.service.check(*check).await {
        Ok(()) => respond::body(200, TEXT, "ok"),
        Err(why) => {
            tracing::warn!(check = name, %why, "a check of health failed");
            respond::body(500, TEXT, format!("internal server error: {name} failed: reason withheld\n"))
        }
    }))
}

/// All checks of a root, but for those that are excluded.
async fn all(state: &State, root: &str, checks: &[Check], query: &Query) -> Response<Body> {
    let excluded: Vec<&str> =
        query.0.iter().filter(|(name, _)| name == "exclude").map(|(_, value)| &**value).collect();
    let lines = checks.iter().map(|check| line(state, *check, excluded.contains(&check.name())));
    let lines = future::join_all(lines).await;
    let failed = lines.iter().any(|(ok, _)| !ok);
    let mut text: String = lines.into_iter().map(|(_, line)| line).collect();
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !checks.iter().any(|check| check.name() == **name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        let unknown = unknown.join(",");
        text += &format!("warn: some health checks cannot be excluded: no matches for {unknown}\n");
    }
    if failed {
        return respond::body(500, TEXT, format!("{text}{root} check failed\n"));
    }
    if !query.0.iter().any(|(name, _)| name == "verbose") {
        return respond::body(200, TEXT, "ok");
    }
    respond::body(200, TEXT, format!("{text}{root} check passed\n"))
}

/// Whether a check passes, and the line about it. Why it does not is for the log: anybody may ask.
async fn line(state: &State, check: Check, is_excluded: bool) -> (bool, String) {
    let name = check.name();
    if is_excluded {
        return (true, format!("[+]{name} excluded: ok\n"));
    }
    match state.service.check(check).await {
        Ok(()) => (true, format!("[+]{name} ok\n")),
        Err(why) => {
            tracing::warn!(check = name, %why, "a check of health failed");
            (false, format!("[-]{name} failed: reason withheld\n"))
        }
    }
}
