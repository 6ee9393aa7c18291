//! What the API server logs of a call and of its mint.

use std::io::{self, Write};

use serde_json::json;

use crate::pod::Call;

const BOOTSTRAP: &str = "JTI=b0070000-0000-4000-8000-000000000000";

/// Writes the event of the mint and that of the call.
pub(crate) fn write(call: &Call, out: &mut impl Write) -> io::Result<()> {
    let minted = format!("JTI={}", call.jti);
    let mint = json!({
        "auditID": call.id.for_mint().to_string(),
        "verb": "create",
        "requestURI": "/api/v1/namespaces/demo/serviceaccounts/agent/token",
        "objectRef": {"resource": "serviceaccounts", "namespace": "demo", "name": "agent", "uid": "d5b8ee5b-2f0d-4e7a-9b0f-0d6f0c1f7e11", "apiVersion": "v1", "subresource": "token"},
        "responseStatus": {"metadata": {}, "code": 201},
        "annotations": {
            "authentication.kubernetes.io/issued-credential-id": minted,
            "authorization.k8s.io/decision": "allow",
            "authorization.k8s.io/reason": "RBAC: allowed by RoleBinding \"tollgate/demo\" of ClusterRole \"tollgate-agent\" to Group \"system:serviceaccounts:demo\"",
        },
    });
    let made = json!({
        "auditID": call.id.to_string(),
        "verb": "get",
        "requestURI": format!("/api/v1/namespaces/demo/pods/{}", call.name),
        "objectRef": {"resource": "pods", "namespace": "demo", "name": call.name, "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 200},
        "annotations": {
            "authorization.k8s.io/decision": "allow",
            "authorization.k8s.io/reason": "RBAC: allowed by RoleBinding \"agent/demo\" of Role \"agent\" to Group \"system:serviceaccounts:demo\"",
        },
    });
    for (mut event, credential) in [(mint, BOOTSTRAP), (made, minted.as_str())] {
        if let Some(event) = event.as_object_mut() {
            for (field, value) in [
                ("kind", json!("Event")),
                ("apiVersion", json!("audit.k8s.io/v1")),
                ("level", json!("Metadata")),
                ("stage", json!("ResponseComplete")),
                ("sourceIPs", json!(["10.244.0.17"])),
                (
                    "userAgent",
                    json!("kubectl/v1.37.2 (linux/amd64) kubernetes/e6123b8"),
                ),
                ("requestReceivedTimestamp", json!(call.time)),
                ("stageTimestamp", json!(call.time)),
                ("user", user(call, credential)),
            ] {
                event.insert(field.to_owned(), value);
            }
        }
        serde_json::to_writer(&mut *out, &event)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn user(call: &Call, credential: &str) -> serde_json::Value {
    json!({
        "username": "system:serviceaccount:demo:agent",
        "uid": "1b0f6a5e-6f4b-4b7c-8a44-2f1a5d1e6c33",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:demo", "system:authenticated"],
        "extra": {
            "authentication.kubernetes.io/credential-id": [credential],
            "authentication.kubernetes.io/node-name": ["node-1"],
            "authentication.kubernetes.io/node-uid": ["6a9e5a0a-52e9-4a0c-9a8a-5b9d1a4d4f55"],
            "authentication.kubernetes.io/pod-name": ["agent-0"],
            "authentication.kubernetes.io/pod-uid": [call.pod_uid],
        },
    })
}
