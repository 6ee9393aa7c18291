//! The webhook configurations.

use serde_json::{Value, json};
use tollgate_shared::contract::{
    CONTAINER, GROUP, Injection, NAMESPACE_LABEL, POD_LABEL, RESERVED_VOLUMES, SYSTEM_NAMESPACE,
    WEBHOOK_NAME,
};

use crate::files::{base, list, text};

#[test]
fn webhooks_tell_the_label_by_the_path_and_never_match_system_namespaces() {
    for (kind, verb) in [
        ("MutatingWebhookConfiguration", "mutate"),
        ("ValidatingWebhookConfiguration", "validate"),
    ] {
        let configuration = base(kind, WEBHOOK_NAME);
        let webhooks = list(&configuration["webhooks"]);
        assert_eq!(webhooks.len(), Injection::WORDS.len());
        for (webhook, level) in webhooks.iter().zip(Injection::WORDS) {
            assert_eq!(webhook["name"], format!("{level}.{verb}.{GROUP}"));
            assert_eq!(
                webhook["clientConfig"],
                json!({"service": {
                    "name": WEBHOOK_NAME, "namespace": SYSTEM_NAMESPACE, "path": format!("/{verb}/{level}"), "port": 443,
                }}),
                "no caBundle: each apply would take it away"
            );
            assert_eq!(
                webhook["namespaceSelector"],
                json!({
                    "matchLabels": {NAMESPACE_LABEL: level},
                    "matchExpressions": [
                        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", SYSTEM_NAMESPACE]},
                        {"key": "control-plane", "operator": "DoesNotExist"},
                        {"key": "control-plane", "operator": "NotIn", "values": ["true"]},
                        {"key": "kubernetes.azure.com/managedby", "operator": "NotIn", "values": ["aks"]},
                    ],
                })
            );
            let opt_in = *level == Injection::OptIn.as_str();
            let only_asking = json!({"matchExpressions": [
                {"key": POD_LABEL, "operator": "Exists"},
                {"key": POD_LABEL, "operator": "NotIn", "values": ["false"]},
            ]});
            let all = json!({});
            let selector = if opt_in && verb == "mutate" {
                &only_asking
            } else {
                &all
            };
            assert_eq!(&webhook["objectSelector"], selector, "{level}");
            let conditions = webhook["matchConditions"].as_array();
            let conditions = conditions.map(Vec::as_slice).unwrap_or_default();
            if opt_in && verb == "validate" {
                only_asking_or_ours(conditions);
            } else {
                assert_eq!(conditions, [] as [Value; 0], "{level}");
            }
            for (key, value) in [
                ("failurePolicy", json!("Fail")),
                ("matchPolicy", json!("Equivalent")),
                ("sideEffects", json!("NoneOnDryRun")),
                ("timeoutSeconds", json!(5)),
                ("admissionReviewVersions", json!(["v1"])),
            ] {
                assert_eq!(webhook[key], value, "{key}");
            }
            rules(webhook, verb == "mutate");
        }
    }
}

/// In an opt-in namespace the final pod is judged that asks, or has a container or a volume of ours.
fn only_asking_or_ours(conditions: &[Value]) {
    let [condition] = conditions else {
        panic!("{conditions:?}")
    };
    let expression = text(&condition["expression"]);
    let names = [POD_LABEL, CONTAINER].into_iter().chain(RESERVED_VOLUMES);
    for name in names {
        assert!(
            expression.contains(&format!("'{name}'")),
            "{name}: {expression}"
        );
    }
}

/// Never plain UPDATE, never CONNECT: an outage of ours must not hold up finalizers, labels or exec.
fn rules(webhook: &Value, mutates: bool) {
    assert_eq!(webhook["reinvocationPolicy"] == "IfNeeded", mutates);
    let rules: Vec<Value> = list(&webhook["rules"])
        .iter()
        .map(|rule| json!([rule["operations"], rule["resources"]]))
        .collect();
    let created = json!([["CREATE"], ["pods"]]);
    let changed = json!([["UPDATE"], ["pods/ephemeralcontainers", "pods/resize"]]);
    let wanted = if mutates {
        vec![created]
    } else {
        vec![created, changed]
    };
    assert_eq!(rules, wanted);
}
