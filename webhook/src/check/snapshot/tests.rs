//! A namespace in which nothing is wrong, and one weakness after the other planted in it.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::check::finding::Level;
use crate::inject::{Context, Decision, inject};

const NS: &str = "team-a";

fn manifest(path: &str) -> Value {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    serde_saphyr::from_str(&fs::read_to_string(base.join(path)).unwrap()).unwrap()
}

fn webhooks(path: &str) -> Value {
    let mut object = manifest(path);
    for entry in object["webhooks"].as_array_mut().unwrap() {
        entry["clientConfig"]["caBundle"] = "AA==".into();
    }
    object
}

fn plain_pod(name: &str) -> Value {
    let token = json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}});
    let mut volume = token;
    volume["name"] = "kube-api-access-x".into();
    let mount = json!({"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
    json!({
        "metadata": {"name": name, "namespace": NS},
        "spec": {
            "serviceAccountName": "robot",
            "containers": [{"name": "agent", "image": "a", "volumeMounts": [mount]}],
            "volumes": [volume],
        },
        "status": {"phase": "Running"},
    })
}

fn injected_pod(name: &str, config: &InjectConfig) -> Value {
    let mut pod = plain_pod(name);
    let context = Context {
        injection: Some(Injection::Enabled),
        namespace: NS,
        from_node: false,
        config,
    };
    let Decision::Patch { operations, .. } = inject(&pod, &context) else {
        panic!("a plain pod is injected");
    };
    let patch: json_patch::Patch =
        serde_json::from_value(serde_json::to_value(operations).unwrap()).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn config() -> InjectConfig {
    let mut config = InjectConfig::with_image("sidecar:2");
    config.previous_images.push("sidecar:1".to_owned());
    config
}

fn healthy() -> Snapshot {
    let policies = |suffix: &str| {
        let names = install::POLICIES.iter();
        let path = |name: &&str| format!("base/policies/{}{suffix}", &name["tollgate-".len()..]);
        names.map(|name| manifest(&path(name))).collect()
    };
    let grant = json!({
        "metadata": {"name": "tollgate", "namespace": NS},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tollgate-agent"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": format!("system:serviceaccounts:{NS}")}],
    });
    let lists: Vec<(Kind, Vec<Value>)> = vec![
        (Kind::Pods, vec![injected_pod("agent", &config())]),
        (Kind::TokenSecrets, vec![]),
        (
            Kind::NetworkPolicies,
            vec![manifest("examples/network-policy.yaml")],
        ),
        (Kind::Roles, vec![]),
        (Kind::RoleBindings, vec![grant]),
        (
            Kind::ClusterRoles,
            vec![manifest("base/agent-cluster-role.yaml")],
        ),
        (Kind::ClusterRoleBindings, vec![]),
        (Kind::Policies, policies(".yaml")),
        (Kind::PolicyBindings, policies("-binding.yaml")),
        (
            Kind::MutatingWebhooks,
            vec![webhooks("base/mutating-webhook.yaml")],
        ),
        (
            Kind::ValidatingWebhooks,
            vec![webhooks("base/validating-webhook.yaml")],
        ),
    ];
    let mut snapshot = Snapshot {
        config: Some(Ok(config())),
        lists: lists
            .into_iter()
            .map(|(kind, list)| (kind, Ok(list)))
            .collect(),
        ..Snapshot::default()
    };
    snapshot.namespace.metadata.name = Some(NS.to_owned());
    label(&mut snapshot, NAMESPACE_LABEL, "enabled");
    snapshot
}

fn label(snapshot: &mut Snapshot, key: &str, value: &str) {
    let labels = snapshot.namespace.metadata.labels.get_or_insert_default();
    labels.insert(key.to_owned(), value.to_owned());
}

fn add(snapshot: &mut Snapshot, kind: Kind, object: Value) {
    snapshot
        .lists
        .get_mut(&kind)
        .unwrap()
        .as_mut()
        .unwrap()
        .push(object);
}

fn take(snapshot: &mut Snapshot, kind: Kind, wanted: &str) {
    let list = snapshot.lists.get_mut(&kind).unwrap().as_mut().unwrap();
    let before = list.len();
    list.retain(|object| name(object) != wanted);
    assert_ne!(list.len(), before, "{wanted}");
}

/// Gives a subject a ClusterRole with one rule, in the namespace or in the whole cluster.
fn give(snapshot: &mut Snapshot, subject: &Value, is_everywhere: bool, rule: &Value) {
    let role = json!({"metadata": {"name": "planted"}, "rules": [rule]});
    let binding = json!({
        "metadata": {"name": "planted-binding"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "planted"},
        "subjects": [subject],
    });
    add(snapshot, Kind::ClusterRoles, role);
    let kind = if is_everywhere {
        Kind::ClusterRoleBindings
    } else {
        Kind::RoleBindings
    };
    add(snapshot, kind, binding);
}

fn found(snapshot: &Snapshot) -> Vec<(&'static str, String)> {
    let findings = snapshot.judge(&Wanted::default());
    findings
        .into_iter()
        .map(|finding| (finding.code, finding.object))
        .collect()
}

#[test]
fn where_nothing_is_wrong_nothing_is_found() {
    assert_eq!(healthy().judge(&Wanted::default()), []);
}

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
            pod["spec"]["initContainers"][0]["image"] = "sidecar:0".into();
            pod["metadata"]["annotations"]["tollgate.dev/injected"] = "0.1.0-spoofed".into();
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

/// Principals; each way by itself is in [`WAYS`].
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

#[test]
fn what_has_ended_or_holds_nothing_is_left_alone() {
    let mut snapshot = healthy();
    for phase in ["Succeeded", "Failed"] {
        let mut ended = plain_pod(phase);
        ended["status"]["phase"] = phase.into();
        add(&mut snapshot, Kind::Pods, ended);
    }
    let mut free = plain_pod("free");
    free["metadata"]["labels"] = json!({"tollgate.dev/inject": "false"});
    free["spec"]["volumes"] = json!([]);
    free["spec"]["containers"][0]["volumeMounts"] = json!([]);
    add(&mut snapshot, Kind::Pods, free);
    let mut mirror = plain_pod("mirror");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    mirror["metadata"]["ownerReferences"] = json!([{"kind": "Node", "name": "n"}]);
    add(&mut snapshot, Kind::Pods, mirror);
    assert_eq!(found(&snapshot), []);
}

const ADMISSION: &str = "admissionregistration.k8s.io";

#[rustfmt::skip]
const WAYS: [(&str, &str, &str, &str, bool, bool); 13] = [
    // Whether a RoleBinding gives it, and whether it is open in an enforced namespace.
    ("can-mint", "create", "", "serviceaccounts/token", true, false),
    ("can-mint-for-others", "mint", "tollgate.dev", "serviceaccounts", true, true),
    ("can-unmanage", "unmanage", "tollgate.dev", "namespaces", true, true),
    ("can-impersonate", "impersonate", "", "serviceaccounts", true, true),
    ("can-impersonate", "impersonate", "", "groups", false, true),
    ("can-exec", "get", "", "pods/attach", true, true),
    ("can-debug", "patch", "", "pods/ephemeralcontainers", true, true),
    ("can-create-pods", "create", "", "pods", true, false),
    ("can-create-pods", "create", "apps", "deployments", true, false),
    ("can-create-pods", "create", "batch", "cronjobs", true, false),
    ("can-make-token-secrets", "create", "", "secrets", true, false),
    ("can-reach-kubelet", "get", "", "nodes/proxy", false, true),
    ("can-unguard", "delete", ADMISSION, "validatingadmissionpolicies", false, true),
];

#[test]
fn each_way_round_is_told_with_the_binding_that_gives_it() {
    for (code, verb, group, resource, in_namespace, in_enforced) in WAYS {
        for is_everywhere in [false, true] {
            for (injection, is_told) in [("enabled", true), ("enforced", in_enforced)] {
                let mut snapshot = healthy();
                label(&mut snapshot, NAMESPACE_LABEL, injection);
                let jane = json!({"kind": "User", "name": "jane"});
                let rule = json!({"verbs": [verb], "apiGroups": [group], "resources": [resource]});
                give(&mut snapshot, &jane, is_everywhere, &rule);
                let wanted = is_told && (is_everywhere || in_namespace);
                let findings = snapshot.judge(&Wanted::default());
                assert_eq!(
                    findings.len(),
                    usize::from(wanted),
                    "{resource} {injection} {is_everywhere}"
                );
                for finding in findings {
                    assert_eq!((finding.code, finding.object.as_str()), (code, "user/jane"));
                    let by = "binding/planted-binding -> clusterrole/planted";
                    assert!(finding.text.contains(by), "{}", finding.text);
                }
            }
        }
    }
}

#[test]
fn names_limit_what_is_told() {
    let jane = json!({"kind": "User", "name": "jane"});
    for (verb, group, resource, names, is_told) in [
        (
            "create",
            "",
            "serviceaccounts/token",
            json!(["robot"]),
            true,
        ),
        ("create", "", "pods", json!(["robot"]), false),
        ("unmanage", "tollgate.dev", "namespaces", json!([NS]), true),
        (
            "unmanage",
            "tollgate.dev",
            "namespaces",
            json!(["other"]),
            false,
        ),
        (
            "patch",
            "admissionregistration.k8s.io",
            "validatingadmissionpolicies",
            json!(["tollgate-token-guard"]),
            true,
        ),
        (
            "patch",
            "admissionregistration.k8s.io",
            "validatingadmissionpolicies",
            json!(["other"]),
            false,
        ),
    ] {
        let mut snapshot = healthy();
        let rule = json!({"verbs": [verb], "apiGroups": [group], "resources": [resource], "resourceNames": names});
        give(&mut snapshot, &jane, true, &rule);
        assert_eq!(!found(&snapshot).is_empty(), is_told, "{rule}");
    }
}

#[test]
fn whom_to_leave_out_can_be_said() {
    let mut snapshot = healthy();
    let everything = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
    give(
        &mut snapshot,
        &json!({"kind": "Group", "name": "system:masters"}),
        true,
        &everything,
    );
    assert_eq!(found(&snapshot), []);
    let all = Wanted {
        all: true,
        ..Wanted::default()
    };
    let findings = snapshot.judge(&all);
    let [finding] = findings.as_slice() else {
        panic!("{findings:?}");
    };
    assert_eq!(
        (finding.code, finding.level),
        ("can-do-everything", Level::Info)
    );

    let mut snapshot = healthy();
    let robot = json!({"kind": "ServiceAccount", "name": "robot", "namespace": "ops"});
    give(&mut snapshot, &robot, true, &everything);
    let trusting = Wanted {
        trust: vec!["serviceaccount/ops/robot".to_owned()],
        ..Wanted::default()
    };
    assert_eq!(snapshot.judge(&trusting), []);
}

#[test]
fn without_the_guard_of_exec_the_sidecar_is_named() {
    let mut snapshot = healthy();
    take(&mut snapshot, Kind::Policies, "tollgate-exec-guard");
    let rule = json!({"verbs": ["create"], "apiGroups": [""], "resources": ["pods/exec"]});
    give(
        &mut snapshot,
        &json!({"kind": "User", "name": "jane"}),
        false,
        &rule,
    );
    let findings = snapshot.judge(&Wanted::default());
    let exec = findings
        .iter()
        .find(|finding| finding.code == "can-exec")
        .unwrap();
    assert!(exec.text.contains("enter the sidecar"), "{exec}");
}

#[test]
fn a_line_is_a_line() {
    let mut snapshot = healthy();
    let annotations = json!({"kubernetes.io/service-account.name": "a\n\u{1b}[31mb"});
    add(
        &mut snapshot,
        Kind::TokenSecrets,
        json!({"metadata": {"name": "legacy", "annotations": annotations}}),
    );
    let findings = snapshot.judge(&Wanted::default());
    assert!(
        findings
            .iter()
            .all(|finding| !finding.to_string().contains(char::is_control)),
        "{findings:?}"
    );
}
