//! The records of a pod, read from the logs of its sidecar. Records (stdout) and the sidecar's own log lines (stderr) come
//! mixed; a line that is neither is an error, never skipped.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use tollgate_shared::contract::CONTAINER;
use tollgate_shared::record::{self, Digest, MAX_REPEATED, key};

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
    /// A line is neither record nor log, or is not what its hash says.
    pub fn parse(text: String) -> anyhow::Result<Self> {
        let mut lines = Vec::new();
        let mut scratch = Vec::new();
        let mut raw = text.lines().enumerate().peekable();
        while let Some((number, line)) = raw.next() {
            // A restarted sidecar begins with an empty line, because its predecessor may have been killed within one; it
            // repeats that one whole.
            let cut_off = raw.peek().is_some_and(|(_, next)| next.is_empty());
            if line.is_empty() {
                continue;
            }
            match read_line(line, &mut scratch) {
                Ok(record) => lines.extend(record),
                Err(_) if cut_off && line.starts_with('{') && !line.ends_with('}') => {}
                Err(error) => return Err(error.context(format!("line {}: {line}", number + 1))),
            }
        }
        Ok(Self { lines, text })
    }

    /// Checks that the records are one unbroken chain from its first line on; lines that a restarted sidecar repeats count once.
    ///
    /// # Errors
    /// A line is missing, out of order or of another chain.
    pub fn check_chain(&self) -> anyhow::Result<()> {
        let mut seen: Vec<&AuditEvent> = Vec::new();
        let (mut sequence, mut previous) = (0, Digest::ZERO.to_string());
        for record in &self.lines {
            if seen
                .iter()
                .rev()
                .take(MAX_REPEATED)
                .any(|line| *line == record)
            {
                continue;
            }
            let annotation = |key| record.annotations.get(key).map(String::as_str);
            ensure!(
                annotation(key::SEQUENCE) == Some(&(sequence + 1).to_string())
                    && annotation(key::PREVIOUS_HASH) == Some(&previous),
                "line {} does not follow line {sequence}",
                annotation(key::SEQUENCE).unwrap_or("without a number"),
            );
            sequence += 1;
            annotation(key::HASH)
                .unwrap_or_default()
                .clone_into(&mut previous);
            seen.push(record);
        }
        Ok(())
    }
}

/// A record, or `None` for a line of the sidecar's own log.
fn read_line(line: &str, scratch: &mut Vec<u8>) -> anyhow::Result<Option<AuditEvent>> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(line).context("neither record nor log")?;
    if object.contains_key("kind") {
        let mut event = record::parse(line)?;
        record::check(line, &mut event, scratch)?;
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
    use std::time::SystemTime;

    use tollgate_shared::record::{
        Annotations, ApiVersion, Chain, Count, Decision, Event, Extra, Kind, Level, Stage, User,
    };

    use super::*;

    /// An opening line.
    fn event() -> Event<'static> {
        let now = SystemTime::UNIX_EPOCH.into();
        Event {
            annotations: Annotations {
                container: None,
                credential_id: None,
                decision: Decision::Allow,
                hash: None,
                mint_audit_id: None,
                mint_seconds: None,
                namespace: "n".into(),
                outcome: None,
                pod: "p".into(),
                pod_uid: "u".into(),
                policy: None,
                previous_hash: Digest::ZERO,
                reason: "r".into(),
                request_bytes: None,
                response_bytes: None,
                rule: None,
                sequence: Count(0),
                tier: "t".into(),
                truncated: None,
                upstream_seconds: None,
            },
            api_version: ApiVersion::V1,
            audit_id: None,
            kind: Kind::Event,
            level: Level::Metadata,
            object_ref: None,
            request_received_timestamp: now,
            request_uri: "/version".into(),
            response_status: None,
            source_ips: Vec::new(),
            stage: Stage::RequestReceived,
            stage_timestamp: now,
            user: User {
                extra: Extra::default(),
                username: "x".into(),
            },
            user_agent: None,
            verb: "get".into(),
        }
    }

    /// Three lines of one chain.
    fn lines() -> Vec<String> {
        let mut chain = Chain::default();
        let mut lines = Vec::new();
        for _ in 0..3 {
            let mut line = Vec::new();
            chain = chain.seal(&mut event(), &mut line).unwrap();
            lines.push(String::from_utf8(line).unwrap());
        }
        lines
    }

    const LOG: &str =
        "{\"timestamp\":\"2026-01-01T00:00:00Z\",\"level\":\"INFO\",\"message\":\"listening\"}\n";

    #[test]
    fn tells_records_from_logs() {
        let records = Records::parse(format!("{LOG}{}{LOG}", lines().concat())).unwrap();
        assert_eq!(records.lines.len(), 3);
        assert!(
            records
                .lines
                .iter()
                .all(|record| record.request_uri == "/version")
        );
    }

    #[test]
    fn ignores_nothing() {
        let changed = lines()[0].replace("/version", "/versions");
        for line in [
            "thread 'main' panicked",
            "{}",
            r#"{"kind":"Pod"}"#,
            "{\"kind\":\"Ev",
            &changed,
        ] {
            assert!(Records::parse(format!("{line}\n")).is_err(), "{line:?}");
        }
    }

    #[test]
    fn takes_the_half_line_of_a_killed_sidecar() {
        let lines = lines();
        let (half, _) = lines[1].split_at(40);
        for (text, read) in [
            (
                format!("{}{half}\n\n{}{}", lines[0], lines[1], lines[2]),
                Some(3),
            ),
            (format!("{}\n{}", lines[0], lines[1]), Some(2)),
            (format!("{}{half}\n{}", lines[0], lines[1]), None),
        ] {
            let records = Records::parse(text.clone()).ok();
            assert_eq!(records.map(|records| records.lines.len()), read, "{text}");
        }
    }

    #[test]
    fn knows_a_broken_chain() {
        let lines = lines();
        for (order, whole) in [
            (vec![0, 1, 2], true),
            (vec![0, 1, 1, 2], true),
            (vec![0, 1, 0, 1, 2], true),
            (vec![], true),
            (vec![0, 2], false),
            (vec![1, 2], false),
            (vec![1, 0], false),
        ] {
            let text = order.iter().map(|&at| lines[at].as_str()).collect();
            let records = Records::parse(text).unwrap();
            assert_eq!(records.check_chain().is_ok(), whole, "{order:?}");
        }
    }
}
