//! The records of a pod, read from the logs of its sidecar. Records (stdout) and the sidecar's own log lines (stderr) come
//! mixed; a line that is neither is an error, never skipped.

use std::path::Path;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use tollgate_shared::contract::CONTAINER;

use crate::audit::AuditEvent;
use crate::wait;

/// Everything a sidecar wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// The records, in the order written.
    pub lines: Vec<AuditEvent>,
    /// The raw text, log lines included: to look for what must not be in it.
    pub text: String,
}

impl Records {
    /// Reads the logs of the container `tollgate`, those of its previous run included.
    ///
    /// # Errors
    /// The logs cannot be read, or hold a line that is neither record nor log.
    pub async fn of_pod(pods: &Api<Pod>, name: &str) -> anyhow::Result<Self> {
        let pod = pods
            .get(name)
            .await
            .with_context(|| format!("no pod {name}"))?;
        let restarted =
            wait::container(&pod, CONTAINER).is_some_and(|status| status.restart_count > 0);
        let mut text = String::new();
        for previous in [true, false] {
            if previous && !restarted {
                continue;
            }
            let params = LogParams {
                container: Some(CONTAINER.to_owned()),
                previous,
                ..LogParams::default()
            };
            let log = pods.logs(name, &params).await;
            text.push_str(&log.with_context(|| format!("no logs of {name}/{CONTAINER}"))?);
        }
        Self::parse(text).with_context(|| format!("logs of {name}/{CONTAINER}"))
    }

    /// Reads a file of records, such as saved logs.
    ///
    /// # Errors
    /// The file cannot be read, or holds a line that is neither record nor log.
    pub fn of_file(path: &Path) -> anyhow::Result<Self> {
        let read = std::fs::read_to_string(path).map_err(anyhow::Error::from);
        read.and_then(Self::parse)
            .with_context(|| path.display().to_string())
    }

    /// Reads lines.
    ///
    /// # Errors
    /// A line is neither record nor log.
    pub fn parse(text: String) -> anyhow::Result<Self> {
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let record = read_line(line).with_context(|| format!("line {}: {line}", number + 1))?;
            lines.extend(record);
        }
        Ok(Self { lines, text })
    }
}

/// A record, or `None` for a line of the sidecar's own log.
fn read_line(line: &str) -> anyhow::Result<Option<AuditEvent>> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(line).context("neither record nor log")?;
    if object.contains_key("kind") {
        return AuditEvent::parse(line).map(Some);
    }
    // What shared::telemetry writes.
    if object.contains_key("timestamp") && object.contains_key("level") {
        return Ok(None);
    }
    bail!("neither record nor log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_records_from_logs() {
        let text = r#"{"timestamp":"2026-01-01T00:00:00Z","level":"INFO","message":"listening"}
{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a","stage":"RequestReceived"}
"#;
        let records = Records::parse(text.to_owned()).unwrap();
        let ids: Vec<_> = records
            .lines
            .iter()
            .map(|record| record.audit_id.as_str())
            .collect();
        assert_eq!(ids, ["a"]);
    }

    #[test]
    fn ignores_nothing() {
        for line in [
            "",
            "thread 'main' panicked",
            "{}",
            r#"{"kind":"Pod"}"#,
            "{\"kind\":\"Ev",
        ] {
            assert!(Records::parse(format!("{line}\n")).is_err(), "{line:?}");
        }
    }
}
