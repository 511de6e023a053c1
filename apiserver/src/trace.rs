//! The trace of a request that came over the wire: a span of its own, below the one that the client names in
//! `traceparent`.
//!
//! Must never know: where traces go, or what requests mean.

use std::str::FromStr as _;

use axum::body::Body;
use claw_client::{ResourceRef, trace::SPANS};
use http::{HeaderMap, HeaderValue, Request, Response};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::{Span, field::Empty, level_filters::LevelFilter, trace_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Begins the span of a request. It is none when nobody traces.
pub fn begin<B>(request: &Request<B>, id: &HeaderValue) -> Span {
    let span = trace_span!(
        target: SPANS,
        parent: None,
        "request",
        otel.kind = "server",
        otel.name = %format_args!("{} {}", request.method(), first_segment(request.uri().path())),
        otel.status_code = Empty,
        http.request.method = %request.method(),
        url.path = request.uri().path(),
        http.response.status_code = Empty,
        rpc.grpc.status_code = Empty,
        k8s.verb = Empty,
        k8s.group = Empty,
        k8s.resource = Empty,
        k8s.namespace = Empty,
        k8s.name = Empty,
        enduser.id = Empty,
        audit_id = id.to_str().unwrap_or_default(),
    );
    if !span.is_disabled()
        && let Some(parent) = parent(request.headers())
    {
        // It fails when nobody listens to this span, and then there is nothing to do.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent));
    }
    span
}

/// Says what a request is about, once that is known.
pub fn about(verb: &str, resource: &ResourceRef) {
    if LevelFilter::current() < LevelFilter::TRACE {
        return;
    }
    let span = Span::current();
    let slash = if resource.subresource.is_some() { "/" } else { "" };
    let what = format!("{}{slash}{}", resource.plural, resource.subresource.as_deref().unwrap_or_default());
    // The field with the name counts only before the span begins.
    span.context().span().update_name(format!("{verb} {what}"));
    span.record("k8s.verb", verb).record("k8s.group", &*resource.group).record("k8s.resource", what);
    for (field, value) in [("k8s.namespace", &resource.namespace), ("k8s.name", &resource.name)] {
        if let Some(value) = value {
            span.record(field, value.as_str());
        }
    }
}

/// Says how a request was answered: what HTTP calls an error of the server is one of its span.
pub fn answered(span: &Span, user: Option<&str>, response: &Response<Body>, grpc_code: Option<u16>) {
    if span.is_disabled() {
        return;
    }
    span.record("enduser.id", user.unwrap_or_default());
    match grpc_code {
        Some(code) => span.record("rpc.grpc.status_code", code),
        None => span.record("http.response.status_code", response.status().as_u16()),
    };
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// The beginning of a path, which takes one of few values.
fn first_segment(path: &str) -> &str {
    let end = path.get(1..).and_then(|rest| rest.find('/')).map_or(path.len(), |end| end + 1);
    &path[..end]
}

/// The client's span, by the headers of W3C's Trace Context: `00-TRACE-SPAN-FLAGS`. A version to come may say more after
/// that.
fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    let text = headers.get("traceparent")?.to_str().ok()?.trim();
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_sound = [(version, 2), (trace, 32), (span, 16), (flags, 2)].iter().all(|(part, length)| {
        part.len() == *length
            && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    });
    if !is_sound || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let state = headers.get("tracestate").and_then(|state| state.to_str().ok());
    let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, state);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, String, bool)> {
        let headers = HeaderMap::from_iter([("traceparent".parse().unwrap(), text.parse().unwrap())]);
        let parent = parent(&headers)?;
        Some((parent.trace_id().to_string(), parent.span_id().to_string(), parent.is_sampled()))
    }

    #[test]
    fn a_parent_is_read_as_w3c_writes_it() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let known = |sampled| Some((trace.to_owned(), span.to_owned(), sampled));
        assert_eq!(read(&format!("00-{trace}-{span}-01")), known(true));
        assert_eq!(read(&format!("00-{trace}-{span}-00")), known(false));
        assert_eq!(read(&format!("01-{trace}-{span}-03-more")), known(true), "of a version to come");
    }

    #[test]
    fn what_is_no_parent_is_passed_over() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        for wrong in [
            String::new(),
            "00".to_owned(),
            format!("00-{trace}-{span}"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{trace}-{span}-01-more"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{trace}é-{span}-01"),
        ] {
            let value = HeaderValue::from_bytes(wrong.as_bytes()).unwrap();
            let headers = HeaderMap::from_iter([("traceparent".parse().unwrap(), value)]);
            assert!(parent(&headers).is_none(), "{wrong}");
        }
    }

    #[test]
    fn names_of_spans_are_few() {
        for (path, first) in
            [("/api/v1/pods", "/api"), ("/livez", "/livez"), ("/", "/"), ("", ""), ("*", "*")]
        {
            assert_eq!(first_segment(path), first);
        }
    }
}
