//! What those who run a server ask it: figures, and a copy of everything.

use axum::body::Body;
use claw_schemas::ApiError;
use futures::stream;
use http::Response;

use super::{State, respond};
use crate::{backup, metrics::Text};

const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers `/metrics` and the path of backups, for somebody who may ask. `None` when it is neither.
pub(super) async fn answer(state: &State, path: &str) -> Option<Result<Response<Body>, ApiError>> {
    match path {
        "/metrics" => Some(metrics(state).await),
        backup::PATH => Some(back_up(state).await),
        _ => None,
    }
}

async fn metrics(state: &State) -> Result<Response<Body>, ApiError> {
    let mut text = Text::default();
    state.service.write_metrics(&mut text).await?;
    Ok(respond::body(200, METRICS, text.into_string()))
}

/// One state of the store, sent as fast as it is read. It stays in memory until then, which takes room only for what is
/// changed meanwhile.
async fn back_up(state: &State) -> Result<Response<Body>, ApiError> {
    let pieces = state.service.backup().await?;
    let body = Body::from_stream(stream::iter(pieces.map(Ok::<_, std::convert::Infallible>)));
    Ok(respond::body(200, "application/octet-stream", body))
}
