//! The stand-in's view as a cluster's audit log, and what `verify` makes of it.

use std::path::PathBuf;

use serde_json::{Value, json};
use tollgate_sidecar::verify::{VerifyError, verify};

use super::api_server::{ApiServer, decode};

/// What the API server would have logged.
pub(crate) fn cluster_log(api: &ApiServer) -> String {
    let claim = |token: &str| {
        let payload = token.split('.').nth(1).unwrap();
        let claims: Value = serde_json::from_slice(&decode(payload)).unwrap();
        format!("JTI={}", claims["jti"].as_str().unwrap())
    };
    let uid = "11111111-2222-3333-4444-555555555555";
    let event = |id: &str, verb: &str, object: Value, credential: &str| {
        json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "stage": "ResponseComplete", "auditID": id, "verb": verb,
            "user": {"username": "system:serviceaccount:agents:default", "extra": {
                "authentication.kubernetes.io/pod-uid": [uid],
                "authentication.kubernetes.io/credential-id": [credential],
            }},
            "objectRef": object, "responseStatus": {"code": 200},
        })
    };
    let mut lines = Vec::new();
    for mint in api.seen_mints() {
        let object = json!({"resource": "serviceaccounts", "subresource": "token", "namespace": "agents", "name": "default"});
        let mut line = event(mint.header("audit-id"), "create", object, "JTI=bootstrap");
        if let Some(token) = &mint.minted {
            line["annotations"] =
                json!({"authentication.kubernetes.io/issued-credential-id": claim(token)});
        }
        lines.push(line.to_string());
    }
    for call in api.seen_calls() {
        let token = claim(call.header("authorization"));
        let object = json!({"resource": "pods", "namespace": "agents"});
        lines.push(event(call.header("audit-id"), "list", object, &token).to_string());
    }
    lines.join("\n")
}

/// What `verify --cluster-audit` says; some lines may be gone, so the chain is not judged.
pub(crate) fn counters(records: &[Value], log: &str) -> String {
    let records: Vec<String> = records.iter().map(Value::to_string).collect();
    let file =
        |text: String| Ok::<_, VerifyError>((PathBuf::from("f"), std::io::Cursor::new(text)));
    let summary = verify(
        std::iter::once(file(records.join("\n"))),
        Some(std::iter::once(file(log.to_owned()))),
        true,
    );
    summary.unwrap().to_string()
}
