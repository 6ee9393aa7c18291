//! A namespace in which nothing is wrong, and one weakness after the other planted in it.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::check::finding::Level;
use crate::inject::{Context, Decision, inject};

mod planted;
mod rights;

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
    let context = Context::unvouched(Injection::Enabled, NS, config);
    let Decision::Patch { operations, .. } = inject(&pod, &context) else {
        panic!("a plain pod is injected");
    };
    let patch: json_patch::Patch =
        serde_json::from_value(serde_json::to_value(operations).unwrap()).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn config() -> InjectConfig {
    InjectConfig::with_image("sidecar:2")
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

/// A pod of a controller.
fn controlled(mut pod: Value, kind: &str, owner: &str) -> Value {
    pod["metadata"]["ownerReferences"] = json!([{"kind": kind, "name": owner, "controller": true}]);
    pod
}

#[test]
fn an_outdated_sidecar_is_told_by_both_images() {
    let mut snapshot = healthy();
    let mut pod = injected_pod("old", &config());
    pod["spec"]["initContainers"][0]["image"] = "sidecar:1".into();
    add(&mut snapshot, Kind::Pods, pod);
    let findings = snapshot.judge(&Wanted::default());
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].level, Level::Warn);
    for image in ["sidecar:1", "sidecar:2"] {
        assert!(findings[0].text.contains(image), "{findings:?}");
    }
}

#[test]
fn a_sidecar_that_is_no_longer_asked_for_is_not_called_anybody_elses() {
    let mut snapshot = healthy();
    label(&mut snapshot, NAMESPACE_LABEL, "opt-in");
    let findings = snapshot.judge(&Wanted::default());
    let [finding] = findings.as_slice() else {
        panic!("{findings:?}")
    };
    assert_eq!(
        (finding.level, finding.code, finding.object.as_str()),
        (Level::Warn, "not-selected", "pod/agent")
    );
    assert!(!finding.text.contains("rename"), "{finding}");
    assert!(
        finding.text.contains("tollgate.dev/inject=\"true\""),
        "{finding}"
    );
}

#[test]
fn pods_of_one_workload_are_one_line() {
    let mut snapshot = healthy();
    for minute in 0..13 {
        let job = format!("nightly-{}", 29_000_000 + minute);
        let pod = controlled(plain_pod(&format!("{job}-x")), "Job", &job);
        add(&mut snapshot, Kind::Pods, pod);
    }
    for (hash, pod) in [
        ("5d4", "web-5d4-a"),
        ("5d4", "web-5d4-b"),
        ("77c", "web-77c-a"),
    ] {
        let mut pod = controlled(plain_pod(pod), "ReplicaSet", &format!("web-{hash}"));
        pod["metadata"]["labels"] = json!({"pod-template-hash": hash});
        add(&mut snapshot, Kind::Pods, pod);
    }
    // Of the same workload with another trouble, of another one, and of none.
    let mut host = controlled(plain_pod("web-5d4-host"), "ReplicaSet", "web-5d4");
    host["metadata"]["labels"] = json!({"pod-template-hash": "5d4"});
    host["spec"]["hostNetwork"] = true.into();
    add(&mut snapshot, Kind::Pods, host);
    add(
        &mut snapshot,
        Kind::Pods,
        controlled(plain_pod("db-0"), "StatefulSet", "db"),
    );
    add(&mut snapshot, Kind::Pods, plain_pod("bare-1"));
    add(&mut snapshot, Kind::Pods, plain_pod("bare-2"));
    let wanted = [
        ("host-network", "pod/web-5d4-host"),
        ("sidecar-missing", "pod/bare-1"),
        ("sidecar-missing", "pod/bare-2"),
        ("sidecar-missing", "pod/db-0"),
        ("sidecar-missing", "pod/nightly-29000000-x"),
        ("sidecar-missing", "pod/web-5d4-a"),
    ];
    assert_eq!(found(&snapshot), wanted.map(|(c, o)| (c, o.to_owned())));
    let findings = snapshot.judge(&Wanted::default());
    let text = |of: &str| {
        let finding = findings.iter().find(|finding| finding.object == of);
        finding.unwrap().text.clone()
    };
    assert!(
        text("pod/nightly-29000000-x").ends_with(
            "; so nightly-29000001-x, nightly-29000002-x, nightly-29000003-x, nightly-29000004-x, nightly-29000005-x and 7 more"
        ),
        "{findings:?}"
    );
    assert!(
        text("pod/web-5d4-a").ends_with("; so web-5d4-b, web-77c-a"),
        "{findings:?}"
    );
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
