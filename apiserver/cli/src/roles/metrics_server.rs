//! Figures and health of a process that is no API server, over plain HTTP: `/metrics`, `/healthz`, `/livez`, `/readyz`.
//!
//! Nobody is asked who they are. So it listens only where it is told to, and tells no secrets.

use std::{fmt::Write as _, net::SocketAddr};

use anyhow::Context as _;
use axum::{
    Router,
    http::{StatusCode, header},
    routing::get,
};
use claw_apiserver::metrics::{self, Text};
use claw_runtime::{Figures, Readiness, readiness::Waiting};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// What Prometheus expects.
const TEXT: [(header::HeaderName, &str); 1] =
    [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];

/// Serves until the handle is dropped. When this returns, it listens, and says where.
pub async fn start(
    listen: SocketAddr,
    figures: Figures,
    readiness: Readiness,
) -> anyhow::Result<(SocketAddr, AbortOnDropHandle<()>)> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("--metrics-listen {listen}"))?;
    let address = listener.local_addr()?;
    let waiting = readiness.clone();
    let routes = Router::new()
        .route("/metrics", get(async move || (TEXT, written(&figures, &readiness))))
        .route("/healthz", get(async || "ok"))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(async move || ready(&waiting.waiting())));
    let serving = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::warn!(%error, "figures are no longer served");
        }
    });
    Ok((address, AbortOnDropHandle::new(serving)))
}

fn written(figures: &Figures, readiness: &Readiness) -> String {
    let mut text = Text::default();
    super::figures::write(figures, readiness, &mut text);
    metrics::write_process(&mut text);
    text.into_string()
}

/// Whether all controllers have begun that are to run here; else which have not, and why. One that stands by has none.
fn ready(waiting: &[Waiting]) -> (StatusCode, String) {
    let mut text = String::new();
    for Waiting { controller, kind, error } in waiting {
        let why = error.as_ref().map_or("it is being listed".to_owned(), ToString::to_string);
        let _ = writeln!(text, "[-]{controller} waits for {kind}: {why}");
    }
    match text.is_empty() {
        true => (StatusCode::OK, "ok".to_owned()),
        false => (StatusCode::INTERNAL_SERVER_ERROR, text),
    }
}

#[cfg(test)]
mod tests {
    use claw_schemas::{ApiError, status::Reason};

    use super::*;

    #[test]
    fn controllers_that_have_not_begun_are_named_with_what_they_wait_for() {
        let error = Some(ApiError::new(Reason::Forbidden, "pods is forbidden"));
        let waiting = [
            Waiting { controller: "deployment", kind: "replicasets.apps".to_owned(), error: None },
            Waiting { controller: "pod-gc", kind: "pods".to_owned(), error },
        ];
        let (code, text) = ready(&waiting);
        assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(
            text,
            "[-]deployment waits for replicasets.apps: it is being listed\n[-]pod-gc waits for pods: pods is forbidden\n"
        );
        assert_eq!(ready(&[]), (StatusCode::OK, "ok".to_owned()));
    }
}
