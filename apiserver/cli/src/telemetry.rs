//! Where a process writes what it does: its log, and its traces for a collector that speaks OTLP, if there is one.
//!
//! Spans are made by everybody else (`claw_client::trace`). A collector that is away costs nothing but the spans: they wait
//! in a queue of bounded length beside all work, and are dropped when it is full.

use std::{
    io::{self, IsTerminal as _},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use claw_client::trace::SPANS;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter},
};
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, filter::Targets, fmt, layer::SubscriberExt as _, registry::LookupSpan,
    util::SubscriberInitExt as _,
};

/// What to call ourselves where `OTEL_SERVICE_NAME` does not.
const SERVICE: &str = "clawbernetes";

/// How long the collector may take for a batch.
const EXPORT_LIMIT: Duration = Duration::from_secs(5);

/// How long a process that stops waits for its last spans to be taken.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// Where to send traces; the same for every role.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(id = "telemetry")]
pub struct Options {
    /// Send traces to the collector there, by OTLP over gRPC: http://127.0.0.1:4317 (default: $OTEL_EXPORTER_OTLP_ENDPOINT,
    /// else nowhere)
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Share of traces to send, from 0 to 1; a client that says in `traceparent` whether it is traced decides for its own
    /// (default: what $OTEL_TRACES_SAMPLER says, else all)
    #[arg(long, value_name = "RATIO")]
    otlp_sample_ratio: Option<f64>,
}

/// The collector's side of a process. Ask it to [`Self::flush`] at the end.
pub struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Begins to log, by `RUST_LOG` or else `level`, and to trace if the options or the environment say where to. Within the
    /// runtime that sends traces.
    pub fn start(level: &str, options: Option<&Options>) -> anyhow::Result<Self> {
        let provider = match options.and_then(|options| Some((options, options.endpoint()?))) {
            Some((options, endpoint)) => Some(options.provider(&endpoint).context("--otlp-endpoint")?),
            None => None,
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        match &provider {
            // One filter for all: what it does not let through is not even made.
            None => tracing_subscriber::registry().with(log()).with(filter).init(),
            Some(provider) => {
                let spans = tracing_opentelemetry::layer()
                    .with_tracer(provider.tracer(SERVICE))
                    .with_location(false)
                    .with_threads(false)
                    .with_target(false)
                    .with_level(false);
                let only_ours = Targets::new().with_target(SPANS, LevelFilter::TRACE);
                let layers = tracing_subscriber::registry().with(spans.with_filter(only_ours));
                layers.with(log().with_filter(filter)).init();
            }
        }
        Ok(Self(provider))
    }

    /// Sends what is still to be sent, for a few seconds at most.
    pub fn flush(self) {
        if let Some(provider) = self.0
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_LIMIT)
        {
            tracing::debug!(%error, "the last spans were not taken");
        }
    }
}

/// Lines on standard error.
fn log<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal())
}

impl Options {
    fn endpoint(&self) -> Option<String> {
        let standard = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let standard = standard.into_iter().find_map(|name| std::env::var(name).ok());
        self.otlp_endpoint.clone().or(standard).filter(|endpoint| !endpoint.is_empty())
    }

    fn provider(&self, endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
        let exporter =
            Otlp::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_LIMIT).build()?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(SERVICE);
        }
        let exporter = Told { exporter, endpoint: endpoint.to_owned(), is_away: AtomicBool::new(false) };
        let mut provider =
            SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter);
        if let Some(ratio) = self.otlp_sample_ratio {
            ensure!((0.0..=1.0).contains(&ratio), "--otlp-sample-ratio {ratio}: use a number from 0 to 1");
            provider =
                provider.with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))));
        }
        Ok(provider.build())
    }
}

/// Says once that the collector is away, and once that it is back.
#[derive(Debug)]
struct Told {
    exporter: Otlp,
    endpoint: String,
    is_away: AtomicBool,
}

impl SpanExporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        let was_away = self.is_away.swap(result.is_err(), Ordering::Relaxed);
        let collector = &self.endpoint;
        match &result {
            Err(error) if !was_away => {
                tracing::warn!(collector, %error, "traces are lost: the collector does not take them")
            }
            Ok(()) if was_away => tracing::info!(collector, "the collector takes traces again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
