//! The plain shape, step by step. Every other shape is a golden case in `tests/`.

use serde_json::{Value, json};
use tollgate_shared::contract::Injection;

use super::*;
use crate::validate::{Operation, Verdict, validate};

/// A pod as the API server shows it to webhooks: with its own token.
fn pod() -> Value {
    let token = json!({"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
    json!({
        "metadata": {"generateName": "agent-"},
        "spec": {
            "containers": [{"name": "agent", "image": "a", "volumeMounts": [token]}],
            "volumes": [{"name": "kube-api-access-x", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
            ]}}],
        },
    })
}

fn apply(pod: &Value, decision: &Decision) -> Value {
    let Decision::Patch { operations, .. } = decision else {
        panic!("{decision:?}");
    };
    let patch: json_patch::Patch =
        serde_json::from_value(serde_json::to_value(operations).unwrap()).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

#[test]
fn a_plain_pod_is_injected_once_and_then_valid() {
    let config = InjectConfig::with_image("sidecar");
    let context = Context::unvouched(Injection::Enabled, "n", &config);
    let pod = pod();
    let first = inject(&pod, &context);
    assert_eq!(first.reason(), Reason::Injected, "{first:?}");
    let Verdict::Deny(denial) = validate(Operation::Create, &pod, None, &context) else {
        panic!("an untouched pod is no valid one");
    };
    assert_eq!(denial.reason, Reason::SidecarMissing);

    let injected = apply(&pod, &first);
    assert_eq!(injected["spec"]["initContainers"][0]["name"], "tollgate");
    assert_eq!(injected["spec"]["automountServiceAccountToken"], false);
    let again = inject(&injected, &context);
    assert_eq!(again.reason(), Reason::AlreadyInjected, "{again:?}");
    let verdict = validate(Operation::Create, &injected, None, &context);
    assert_eq!(verdict, Verdict::Allow(Reason::Valid));
}

#[test]
fn operations_serialise_as_rfc_6902_says() {
    for (op, text) in [
        (
            PatchOp::Add {
                path: "/a".to_owned(),
                value: json!(1).into(),
            },
            r#"{"op":"add","path":"/a","value":1}"#,
        ),
        (
            PatchOp::Move {
                from: "/a".to_owned(),
                path: "/b".to_owned(),
            },
            r#"{"op":"move","from":"/a","path":"/b"}"#,
        ),
        (
            PatchOp::Remove {
                path: "/a".to_owned(),
            },
            r#"{"op":"remove","path":"/a"}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&op).unwrap(), text);
    }
}

#[test]
fn a_pod_with_more_tokens_than_any_is_refused() {
    let config = InjectConfig::with_image("sidecar");
    let context = Context::unvouched(Injection::Enabled, "n", &config);
    for (count, reason) in [(8, Reason::Injected), (9, Reason::BadRequest)] {
        let mut pod = pod();
        let volume = pod["spec"]["volumes"][0].clone();
        let volumes = (0..count).map(|index| {
            let mut volume = volume.clone();
            volume["name"] = json!(format!("kube-api-access-{index}"));
            volume
        });
        pod["spec"]["volumes"] = volumes.collect();
        let decision = inject(&pod, &context);
        assert_eq!(decision.reason(), reason, "{count}: {decision:?}");
    }
}
