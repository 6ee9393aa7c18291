//! What the webhook counts. One struct, registered once, handed to whoever counts.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use time::OffsetDateTime;

/// What every name begins with.
pub const PREFIX: &str = "tollgate_webhook";

/// Upper bounds of the buckets of a review's duration, in seconds. The API server waits 5 s.
const SECONDS: [f64; 10] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.5, 5.0,
];

/// All metrics of the webhook.
#[derive(Clone, Debug)]
pub struct Metrics {
    admissions: Family<Admission, Counter>,
    seconds: Histogram,
    panics: Counter,
    reloads: Family<Reload, Counter>,
    config_good: Gauge,
    certificates_good: Gauge,
    leaf_ends: Gauge,
    guard_stands: Gauge,
    grants: Gauge,
    grant_errors: Counter,
    events: Family<EventLabels, Counter>,
}

/// Labels of one decision. Every value is one of a fixed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Admission {
    /// `mutate` or `validate`.
    pub(crate) stage: &'static str,
    /// The namespace's label.
    pub(crate) injection: &'static str,
    /// `true` where the request was a dry run.
    pub(crate) dry_run: &'static str,
    /// `allowed`, `patched`, `denied` or `refused` (no AdmissionReview that we could answer).
    pub(crate) decision: &'static str,
    /// The reason's code.
    pub(crate) reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    outcome: &'static str,
}

/// What became of something to tell a workload's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventOutcome {
    /// The event was written.
    Written,
    /// It was told a short time ago.
    Known,
    /// The workload, looked at, gave no reason for an event.
    Unconfirmed,
    /// There was too much to tell.
    Dropped,
    /// The API server did not take or did not answer it.
    Failed,
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            admissions: Family::default(),
            seconds: Histogram::new(SECONDS),
            panics: Counter::default(),
            reloads: Family::default(),
            config_good: Gauge::default(),
            certificates_good: Gauge::default(),
            leaf_ends: Gauge::default(),
            guard_stands: Gauge::default(),
            grants: Gauge::default(),
            grant_errors: Counter::default(),
            events: Family::default(),
        };
        metrics.config_good.set(1);
        metrics.register_counters(registry);
        metrics.register_gauges(registry);
        metrics
    }

    fn register_counters(&self, registry: &mut Registry) {
        let help = "Admissions, by decision and reason";
        registry.register("admissions", help, self.admissions.clone());
        let help = "Time to decide an admission";
        registry.register("admission_seconds", help, self.seconds.clone());
        let help = "Panics while an admission was decided";
        registry.register("panics", help, self.panics.clone());
        let help = "Changes of the configuration file";
        registry.register("config_reloads", help, self.reloads.clone());
        let help = "Attempts to grant or revoke that failed";
        registry.register("grant_errors", help, self.grant_errors.clone());
        let help = "Reasons to tell a workload's owner something, by what became of them";
        registry.register("events", help, self.events.clone());
    }

    fn register_gauges(&self, registry: &mut Registry) {
        for (name, help, gauge) in [
            (
                "config_good",
                "1 while the configuration file is the one in use, 0 while it is refused",
                &self.config_good,
            ),
            (
                "certificates_good",
                "1 while the authority, the certificate and the caBundle are as they must be",
                &self.certificates_good,
            ),
            (
                "certificate_not_after_seconds",
                "When the served certificate ends, in Unix time",
                &self.leaf_ends,
            ),
            (
                "guard_stands",
                "1 while the token guard is as shipped, 0 while grants are withheld",
                &self.guard_stands,
            ),
            (
                "grants",
                "Managed namespaces that hold a grant",
                &self.grants,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
    }

    pub(crate) fn admitted(&self, admission: &Admission, took: Duration) {
        self.admissions.get_or_create(admission).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn event(&self, outcome: EventOutcome) {
        let outcome = match outcome {
            EventOutcome::Written => "written",
            EventOutcome::Known => "known",
            EventOutcome::Unconfirmed => "unconfirmed",
            EventOutcome::Dropped => "dropped",
            EventOutcome::Failed => "failed",
        };
        self.events.get_or_create(&EventLabels { outcome }).inc();
    }

    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }

    pub(crate) fn reloaded(&self, good: bool) {
        let outcome = if good { "taken" } else { "refused" };
        self.reloads.get_or_create(&Reload { outcome }).inc();
        self.config_good.set(i64::from(good));
    }

    pub(crate) fn certificates(&self, good: bool) {
        self.certificates_good.set(i64::from(good));
    }

    pub(crate) fn leaf_ends(&self, ends: OffsetDateTime) {
        self.leaf_ends.set(ends.unix_timestamp());
    }

    pub(crate) fn guard(&self, stands: bool, grants: usize) {
        self.guard_stands.set(i64::from(stands));
        self.grants.set(i64::try_from(grants).unwrap_or(i64::MAX));
    }

    pub(crate) fn grant_failed(&self) {
        self.grant_errors.inc();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// A misspelt name in an alert is an alert that never comes.
    #[test]
    fn alerts_and_docs_name_metrics_that_exist() {
        let mut registry = Registry::with_prefix(PREFIX);
        let metrics = Metrics::register(&mut registry);
        metrics.reloaded(true);
        metrics.event(EventOutcome::Written);
        let admission = Admission {
            stage: "mutate",
            injection: "enabled",
            dry_run: "false",
            decision: "allowed",
            reason: "injected",
        };
        metrics.admitted(&admission, Duration::ZERO);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        let known: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut named = 0;
        for file in [
            "manifests/components/prometheus/alerts.yaml",
            "docs/operations.md",
        ] {
            let text = fs::read_to_string(repository.join(file)).unwrap();
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for word in words.filter(|word| word.starts_with("tollgate_")) {
                let name = word.strip_suffix("_total").unwrap_or(word);
                assert!(known.contains(&name), "{file}: {word}");
                named += 1;
            }
        }
        assert!(named > 5, "{named}");
    }
}
