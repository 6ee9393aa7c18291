//! Each weakness by itself.

use super::*;

/// Code and object of the one finding, and how to plant what leads to it.
type Planted = (&'static str, &'static str, fn(&mut Snapshot));

/// What Tollgate needs.
fn in_the_installation() -> Vec<Planted> {
    vec![
        ("not-managed", "namespace/team-a", |s| {
            s.namespace.metadata.labels = None
        }),
        ("bad-label", "namespace/team-a", |s| {
            label(s, NAMESPACE_LABEL, "Enabled")
        }),
        ("webhooks-skip", "namespace/team-a", |s| {
            label(s, "control-plane", "x")
        }),
        ("grant-missing", "rolebinding/tollgate", |s| {
            take(s, Kind::RoleBindings, "tollgate")
        }),
        (
            "webhook-missing",
            "mutatingwebhookconfiguration/tollgate-webhook",
            |s| {
                take(s, Kind::MutatingWebhooks, "tollgate-webhook");
            },
        ),
        (
            "webhook-missing",
            "validatingwebhookconfiguration/tollgate-webhook",
            |s| {
                s.lists.insert(
                    Kind::ValidatingWebhooks,
                    Ok(vec![manifest("base/validating-webhook.yaml")]),
                );
            },
        ),
    ]
}

/// What the API server holds by itself.
fn in_the_policies() -> Vec<Planted> {
    vec![
        (
            "policy-missing",
            "validatingadmissionpolicy/tollgate-debug-guard",
            |s| {
                take(s, Kind::Policies, "tollgate-debug-guard");
            },
        ),
        (
            "policy-missing",
            "validatingadmissionpolicy/tollgate-own-objects",
            |s| {
                take(s, Kind::PolicyBindings, "tollgate-own-objects");
            },
        ),
        (
            "policy-missing",
            "validatingadmissionpolicy/tollgate-label-guard",
            |s| {
                take(s, Kind::PolicyBindings, "tollgate-label-guard");
                let mut binding = manifest("base/policies/label-guard-binding.yaml");
                binding["spec"]["validationActions"] = json!(["Audit"]);
                add(s, Kind::PolicyBindings, binding);
            },
        ),
        (
            "policy-drift",
            "validatingadmissionpolicy/tollgate-token-guard",
            |s| {
                take(s, Kind::Policies, "tollgate-token-guard");
                let mut policy = manifest("base/policies/token-guard.yaml");
                policy["spec"]["validations"][0]["expression"] = "true".into();
                add(s, Kind::Policies, policy);
            },
        ),
    ]
}

/// Pods that are not as new ones would be.
fn in_pods() -> Vec<Planted> {
    vec![
        ("sidecar-missing", "pod/old", |s| {
            add(s, Kind::Pods, plain_pod("old"))
        }),
        ("sidecar-outdated", "pod/old", |s| {
            let mut pod = injected_pod("old", &config());
            pod["spec"]["initContainers"][0]["image"] = "sidecar:1".into();
            add(s, Kind::Pods, pod);
        }),
        ("sidecar-drift", "pod/old", |s| {
            let mut pod = injected_pod("old", &config());
            pod["spec"]["initContainers"][0]["image"] = "sidecar:1".into();
            pod["spec"]["initContainers"][0]["args"] = json!(["run", "--mint=ahead"]);
            pod["metadata"]["annotations"]["tollgate.dev/injected"] = "0.1.0-spoofed".into();
            add(s, Kind::Pods, pod);
        }),
        ("not-selected", "pod/out", |s| {
            let mut pod = injected_pod("out", &config());
            pod["metadata"]["labels"] = json!({"tollgate.dev/inject": "false"});
            add(s, Kind::Pods, pod);
        }),
        ("sidecar-drift", "pod/out", |s| {
            let mut pod = injected_pod("out", &config());
            pod["metadata"]["labels"] = json!({"tollgate.dev/inject": "false"});
            pod["spec"]["initContainers"][0]["command"] = json!(["sh"]);
            add(s, Kind::Pods, pod);
        }),
        ("reserved-name", "pod/own", |s| {
            let mut pod = plain_pod("own");
            pod["metadata"]["labels"] = json!({"tollgate.dev/inject": "false"});
            pod["spec"]["initContainers"] = json!([{"name": "tollgate"}]);
            add(s, Kind::Pods, pod);
        }),
        ("not-injected", "pod/out", |s| {
            let mut pod = plain_pod("out");
            pod["metadata"]["labels"] = json!({"tollgate.dev/inject": "false"});
            add(s, Kind::Pods, pod);
        }),
        ("host-network", "pod/host", |s| {
            let mut pod = plain_pod("host");
            pod["spec"]["hostNetwork"] = true.into();
            add(s, Kind::Pods, pod);
        }),
    ]
}

/// What a namespace has besides.
fn around_them() -> Vec<Planted> {
    vec![
        ("token-secret", "secret/legacy", |s| {
            let annotations = json!({"kubernetes.io/service-account.name": "robot"});
            add(
                s,
                Kind::TokenSecrets,
                json!({"metadata": {"name": "legacy", "annotations": annotations}}),
            );
        }),
        ("metadata-reachable", "namespace/team-a", |s| {
            take(s, Kind::NetworkPolicies, "agent")
        }),
        ("could-not-look", "clusterroles", |s| {
            s.lists
                .insert(Kind::ClusterRoles, Err("403 Forbidden".to_owned()));
        }),
        ("could-not-look", "configmap/tollgate-webhook", |s| {
            s.config = Some(Err("403".to_owned()))
        }),
    ]
}

/// Principals; each way by itself is in `rights`.
fn in_rbac() -> Vec<Planted> {
    vec![
        ("can-do-everything", "serviceaccount/ops/robot", |s| {
            let robot = json!({"kind": "ServiceAccount", "name": "robot", "namespace": "ops"});
            give(
                s,
                &robot,
                true,
                &json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
            );
        }),
        ("can-exec", "group/system:authenticated", |s| {
            let all = json!({"kind": "Group", "name": "system:authenticated"});
            give(
                s,
                &all,
                false,
                &json!({"verbs": ["create"], "apiGroups": [""], "resources": ["pods/exec"]}),
            );
        }),
        ("can-exec", "user/jane", |s| {
            // By a role that the controller of aggregation has yet to fill.
            let selector = json!([{"matchLabels": {"to": "sum"}}]);
            add(
                s,
                Kind::ClusterRoles,
                json!({"metadata": {"name": "sum"}, "aggregationRule": {"clusterRoleSelectors": selector}}),
            );
            let rule = json!({"verbs": ["create"], "apiGroups": [""], "resources": ["pods/exec"]});
            add(
                s,
                Kind::ClusterRoles,
                json!({"metadata": {"name": "part", "labels": {"to": "sum"}}, "rules": [rule]}),
            );
            add(
                s,
                Kind::RoleBindings,
                json!({
                    "metadata": {"name": "b"},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "sum"},
                    "subjects": [{"kind": "User", "name": "jane"}],
                }),
            );
        }),
    ]
}

#[test]
fn each_weakness_is_named() {
    let plants = [
        in_the_installation(),
        in_the_policies(),
        in_pods(),
        around_them(),
        in_rbac(),
    ];
    for (code, object, plant) in plants.concat() {
        let mut snapshot = healthy();
        plant(&mut snapshot);
        assert_eq!(
            found(&snapshot),
            [(code, object.to_owned())],
            "{code} {object}"
        );
        let findings = snapshot.judge(&Wanted::default());
        assert!(findings.iter().all(|finding| finding.level < Level::Info));
    }
}
