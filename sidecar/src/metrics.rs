//! What the sidecar counts, for Prometheus. Labels have few values, all of them ours: nothing that an agent sends becomes one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::mint::Mint;
use crate::record::Recorder;

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
}

/// A token counts as held for a call until this is dropped.
#[derive(Debug)]
pub struct SpareToken(Arc<Metrics>);

/// A stream counts as open until this is dropped.
#[derive(Debug)]
pub struct OpenStream(Arc<Metrics>);

/// What others count or know, asked for when the metrics are.
pub struct Asked {
    /// Counts records.
    pub recorder: Recorder,
    /// Knows the credential that mints.
    pub mint: Arc<Mint>,
}

impl Asked {
    /// Registers it under `tollgate_`.
    pub fn register(self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tollgate");
        registry.register_collector(Box::new(self));
    }
}

impl Collector for Asked {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stats = self.recorder.stats();
        let counters = [
            (
                "records_written",
                "Lines of the record written",
                stats.written,
            ),
            (
                "records_refused",
                "Calls and mints refused because their record could not be written",
                stats.refused,
            ),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        if let Some(age) = self.mint.credential_age() {
            let gauge = ConstGauge::new(age);
            let help =
                "Time since the API server issued the bootstrap token, by the clocks of both";
            let (unit, kind) = (Some(&Unit::Seconds), gauge.metric_type());
            gauge.encode(encoder.encode_descriptor("bootstrap_token_age", help, unit, kind)?)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asked")
    }
}

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
