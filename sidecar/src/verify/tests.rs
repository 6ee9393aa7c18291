//! Verification of records that were left alone, and of those that were not.

use std::fs;

use serde_json::{Value, json};
use tollgate_shared::record::{AuditId, Chain, Digest, MAX_REPEATED};

use super::*;

mod alone;
mod attacks;
mod input;
mod joined;
mod log;

const POD: &str = "0c6f7a51-0000-4000-8000-000000000001";
const OTHER_POD: &str = "0c6f7a51-0000-4000-8000-000000000002";

/// Writes the record of one pod, as a sidecar does.
struct Pod {
    uid: &'static str,
    chain: Chain,
    lines: Vec<String>,
}

/// A recorded call.
#[derive(Clone, Copy)]
struct Call {
    id: AuditId,
    jti: Option<u32>,
}

impl Pod {
    fn new(uid: &'static str) -> Self {
        Self {
            uid,
            chain: Chain::default(),
            lines: Vec::new(),
        }
    }

    fn line(
        &mut self,
        id: Option<AuditId>,
        stage: &str,
        change: impl FnOnce(&mut Value),
    ) -> AuditId {
        let time = format!("2026-08-01T10:00:{:02}.000000Z", self.lines.len() % 60);
        let mut value = json!({
            "annotations": {
                "tollgate.dev/decision": "allow", "tollgate.dev/namespace": "demo", "tollgate.dev/pod": "agent-0",
                "tollgate.dev/pod-uid": self.uid, "tollgate.dev/previous-hash": Digest::ZERO, "tollgate.dev/reason": "no-policy",
                "tollgate.dev/sequence": "0", "tollgate.dev/tier": "none",
            },
            "apiVersion": "audit.k8s.io/v1", "kind": "Event", "level": "Metadata",
            "objectRef": {"resource": "pods", "namespace": "demo", "name": "p"},
            "requestReceivedTimestamp": "2026-08-01T10:00:00.000000Z", "requestURI": "/api/v1/namespaces/demo/pods/p",
            "stage": stage, "stageTimestamp": time, "user": {"username": "system:serviceaccount:demo:agent"}, "verb": "get",
        });
        change(&mut value);
        let text = value.to_string();
        let mut event = parse(&text).unwrap();
        event.audit_id = id;
        let mut line = Vec::new();
        self.chain = self.chain.seal(&mut event, &mut line).unwrap();
        self.lines
            .push(String::from_utf8(line).unwrap().trim_end().to_owned());
        event.audit_id.unwrap()
    }

    fn open(&mut self, jti: Option<u32>) -> Call {
        self.open_as(jti, |_| {})
    }

    fn open_as(&mut self, jti: Option<u32>, change: impl FnOnce(&mut Value)) -> Call {
        let id = self.line(None, "RequestReceived", change);
        Call { id, jti }
    }

    fn close(&mut self, call: Call, outcome: &str, code: Option<u16>) {
        self.close_as(call, outcome, code, |_| {});
    }

    /// An answer of the API server has a code; without one the call got none.
    fn close_as(
        &mut self,
        call: Call,
        outcome: &str,
        code: Option<u16>,
        change: impl FnOnce(&mut Value),
    ) {
        self.line(Some(call.id), "ResponseComplete", |line| {
            line["annotations"]["tollgate.dev/outcome"] = outcome.into();
            if let Some(jti) = call.jti {
                line["annotations"]["tollgate.dev/credential-id"] = credential(jti).into();
            }
            if let Some(code) = code {
                line["annotations"]["tollgate.dev/upstream-seconds"] = "0.001000".into();
                line["responseStatus"] = json!({ "code": code });
            }
            change(line);
        });
    }

    /// A call that went well.
    fn call(&mut self, jti: u32) -> Call {
        let call = self.open(Some(jti));
        self.close(call, "completed", Some(200));
        call
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

fn credential(jti: u32) -> String {
    format!("JTI=aaaaaaaa-bbbb-4ccc-8ddd-{jti:012x}")
}

/// Verifies files with these contents; they are named by their numbers.
fn verify(files: &[&str], cluster: Option<&str>, partial: bool) -> Result<Summary, VerifyError> {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: String, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    run(&Args {
        files: files
            .iter()
            .enumerate()
            .map(|(number, text)| write(format!("record.{number}"), text))
            .collect(),
        cluster_audit: cluster
            .map(|text| write("audit.log".to_owned(), text))
            .into_iter()
            .collect(),
        partial,
    })
}
