//! Tables of workloads and what is told of them.

use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::*;

fn replica_set(spec: Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": "agent-1",
            "namespace": "team-a",
            "uid": "rs",
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "o"},
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": "agent", "uid": "d", "controller": true},
            ],
        },
        "spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}},
    })
}

fn about(workload: &Value) -> Option<Note> {
    let config = InjectConfig::with_image("i");
    Note::about(workload, "team-a", Injection::Enabled, &config)
}

fn event(workload: &Value) -> Event {
    let now = MicroTime(Timestamp::UNIX_EPOCH);
    about(workload)
        .unwrap()
        .event(workload, "team-a", now)
        .unwrap()
}

#[test]
fn a_denial_is_a_warning_on_what_the_user_made() {
    let denied = replica_set(json!({"hostNetwork": true, "containers": [{"name": "a"}]}));
    let event = event(&denied);
    let regarding = event.regarding.unwrap();
    assert_eq!(
        (
            regarding.kind.as_deref(),
            regarding.name.as_deref(),
            regarding.uid.as_deref()
        ),
        (Some("Deployment"), Some("agent"), Some("d"))
    );
    assert_eq!(event.related.unwrap().uid.as_deref(), Some("rs"));
    assert_eq!(
        (event.type_.as_deref(), event.reason.as_deref()),
        (Some("Warning"), Some("HostNetwork"))
    );
    assert!(event.note.unwrap().starts_with("host-network: "));
    for namespace in [event.metadata.namespace, regarding.namespace] {
        assert_eq!(namespace.as_deref(), Some("team-a"));
    }
    let name = event.metadata.name.unwrap();
    assert!(
        name.starts_with("agent.") && name.len() == "agent.".len() + 16,
        "{name}"
    );
}

/// The template lacks what the API server puts into the pod before the webhook sees it.
#[test]
fn the_token_that_a_pod_would_get_is_seen() {
    let config = InjectConfig::with_image("i");
    let about = |automount: Option<bool>| {
        let mut workload = replica_set(json!({"containers": [{"name": "a"}]}));
        workload["spec"]["template"]["metadata"]["labels"] =
            json!({"tollgate.dev/inject": "false"});
        if let Some(automount) = automount {
            workload["spec"]["template"]["spec"]["automountServiceAccountToken"] = automount.into();
        }
        let note = Note::about(&workload, "team-a", Injection::Enforced, &config);
        note.map(|note| note.reason)
    };
    assert_eq!(about(None), Some(Reason::NotTokenFree));
    assert_eq!(about(Some(true)), Some(Reason::NotTokenFree));
    assert_eq!(about(Some(false)), None);
}

#[test]
fn a_warning_is_normal_and_what_is_well_is_not_told() {
    let own = json!([{"name": "KUBERNETES_SERVICE_HOST", "value": "other"}]);
    let warned = replica_set(json!({"containers": [{"name": "a", "env": own}]}));
    let event = event(&warned);
    assert_eq!(
        (event.type_.as_deref(), event.reason.as_deref()),
        (Some("Normal"), Some("Injected"))
    );
    assert!(event.note.unwrap().contains("KUBERNETES_SERVICE_HOST"));
    assert_eq!(
        about(&replica_set(json!({"containers": [{"name": "a"}]}))),
        None
    );
    assert_eq!(about(&json!({"kind": "Service"})), None);
}

#[test]
fn another_trouble_has_another_name() {
    let workloads = [
        json!({"hostNetwork": true, "containers": [{"name": "a"}]}),
        json!({"hostPID": true, "containers": [{"name": "a"}]}),
        json!({"hostIPC": true, "containers": [{"name": "a"}]}),
    ]
    .map(replica_set);
    let name = |workload| event(workload).metadata.name.unwrap();
    let names: std::collections::BTreeSet<String> = workloads.iter().map(name).collect();
    assert_eq!(names.len(), 3);
    assert_eq!(name(&workloads[0]), name(&workloads[0]));
}

#[test]
fn a_note_fits_and_is_one_line() {
    let path = format!("/a\n\u{1b}[31m{}", "ä".repeat(2000));
    let volume = json!([{"name": "v", "hostPath": {"path": path}}]);
    let mut workload = replica_set(json!({"containers": [{"name": "a"}], "volumes": volume}));
    workload["metadata"] = json!({"name": "a.".repeat(120), "uid": "u"});
    let event = event(&workload);
    let note = event.note.unwrap();
    assert!(
        note.len() <= NOTE && !note.contains(char::is_control),
        "{note}"
    );
    assert_eq!(event.regarding.unwrap().uid.as_deref(), Some("u"));
    let name = event.metadata.name.unwrap();
    assert!(name.len() <= 253 && !name.contains(".."), "{name}");
}
