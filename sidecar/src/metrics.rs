//! What the sidecar counts, for Prometheus. Labels have few values, all of them ours: nothing that an agent sends becomes one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Labels of a call that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    verb: &'static str,
    outcome: &'static str,
    reason: &'static str,
}

/// Seconds: a mint takes some milliseconds, an API server in trouble takes many seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// The sidecar's metrics; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: Family<CallLabels, Counter>,
    mint: Histogram,
    upstream: Histogram,
    streams: Gauge<i64, AtomicI64>,
    spares: Gauge<i64, AtomicI64>,
    unused: Counter<u64, AtomicU64>,
    records_refused: Counter<u64, AtomicU64>,
}

/// A token counts as held for a call until this is dropped.
#[derive(Debug)]
pub struct SpareToken(Arc<Metrics>);

/// A stream counts as open until this is dropped.
#[derive(Debug)]
pub struct OpenStream(Arc<Metrics>);

impl Metrics {
    /// Registers everything under `tollgate_`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            calls: Family::default(),
            mint: Histogram::new(BUCKETS),
            upstream: Histogram::new(BUCKETS),
            streams: Gauge::default(),
            spares: Gauge::default(),
            unused: Counter::default(),
            records_refused: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("tollgate");
        registry.register(
            "calls",
            "Calls that ended, by verb, outcome and reason code",
            metrics.calls.clone(),
        );
        registry.register_with_unit(
            "mint",
            "Time to mint a token",
            Unit::Seconds,
            metrics.mint.clone(),
        );
        let help = "Time from the request to the head of the API server's answer";
        registry.register_with_unit("upstream", help, Unit::Seconds, metrics.upstream.clone());
        let help = "Watches, logs, execs, attaches and port-forwards that are open";
        registry.register("open_streams", help, metrics.streams.clone());
        let help = "Unused tokens that are held for calls to come";
        registry.register("stock_tokens", help, metrics.spares.clone());
        let help = "Tokens minted outside of a call that no call used";
        registry.register("unused_tokens", help, metrics.unused.clone());
        let help = "Calls refused because their record could not be written";
        registry.register("records_refused", help, metrics.records_refused.clone());
        metrics
    }

    /// A call has ended.
    pub fn ended(&self, verb: &'static str, outcome: &'static str, reason: &'static str) {
        self.calls
            .get_or_create(&CallLabels {
                verb,
                outcome,
                reason,
            })
            .inc();
    }

    /// A token was minted.
    pub fn minted(&self, took: Duration) {
        self.mint.observe(took.as_secs_f64());
    }

    /// The API server answered.
    pub fn answered(&self, took: Duration) {
        self.upstream.observe(took.as_secs_f64());
    }

    /// A call was refused because its record could not be written.
    pub fn record_refused(&self) {
        self.records_refused.inc();
    }

    /// A token was minted for no call yet.
    pub fn spare(self: &Arc<Self>) -> SpareToken {
        self.spares.inc();
        SpareToken(Arc::clone(self))
    }

    /// A stream begins.
    pub fn stream(self: &Arc<Self>) -> OpenStream {
        self.streams.inc();
        OpenStream(Arc::clone(self))
    }
}

impl SpareToken {
    /// No call used it.
    pub fn unused(&self) {
        self.0.unused.inc();
    }
}

impl Drop for SpareToken {
    fn drop(&mut self) {
        self.0.spares.dec();
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.dec();
    }
}
