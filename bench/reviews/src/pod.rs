//! Reviews as an API server sends them: a pod as a Deployment makes it, after the ServiceAccount plugin, with the token volume that
//! injection removes.

use bytes::Bytes;
use serde_json::{Value, json};

/// Where the first container is.
const AGENT: &str = "/spec/containers/0";

/// A review whose pod has about `size` bytes, in environment variables of `each` bytes.
pub(crate) fn of_variables(size: usize, each: usize) -> Bytes {
    let value = "v".repeat(each);
    let variable = |n| json!({"name": format!("SETTING_{n:06}"), "value": value});
    with(AGENT, "env", items(size, variable))
}

/// Reviews whose pods have about `size` bytes, each of another sort.
pub(crate) fn of_every_sort(size: usize) -> Vec<(&'static str, Bytes)> {
    let name = |n| json!({"name": format!("V{n:06}")});
    let mount = |n| json!({"name": "work", "mountPath": format!("/work/{n:06}")});
    // As many smaller ones would be too many.
    let agent = |n| container(&format!("agent-{n}"), &"a".repeat(600));
    let argument = |n| json!(format!("{n:08}"));
    let nested = |_| (0..100).fold(json!({}), |inner, _| json!({ "nested": inner }));
    let annotation = |n| (format!("example.com/{n:07}"), json!("v".repeat(20)));
    let annotations = (0..size / 45).map(annotation).collect();
    let text = |part: &str| json!({"text": part.repeat(size / part.len())});
    vec![
        ("variables of 1000 bytes", of_variables(size, 1000)),
        ("variables of 60 bytes", of_variables(size, 60)),
        ("names", with(AGENT, "env", items(size, name))),
        ("annotations", with("/metadata", "annotations", annotations)),
        ("mounts", with(AGENT, "volumeMounts", items(size, mount))),
        (
            "containers",
            with("/spec", "containers", items(size, agent)),
        ),
        ("arguments", with(AGENT, "args", items(size, argument))),
        ("nested objects", with(AGENT, "new", items(size, nested))),
        ("one text", with("/metadata", "annotations", text("text"))),
        ("escapes", with("/metadata", "annotations", text("\n"))),
    ]
}

/// As many items as `size` allows, beside the rest of a pod.
fn items(size: usize, make: impl Fn(usize) -> Value) -> Value {
    let room = size.saturating_sub(pod().to_string().len());
    let count = room / (make(0).to_string().len() + 1);
    (0..count).map(make).collect()
}

/// A review of a pod with this member of the object at `pointer`.
fn with(pointer: &str, key: &str, value: Value) -> Bytes {
    let mut pod = pod();
    if let Some(Value::Object(members)) = pod.pointer_mut(pointer) {
        members.insert(key.to_owned(), value);
    }
    review(&pod)
}

fn review(pod: &Value) -> Bytes {
    let review = json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "my-agents",
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "uid": "7c4ddc63-2b33-4dfe-9cb7-3a4ae9bf3a7b",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
            },
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    });
    review.to_string().into()
}

fn container(name: &str, argument: &str) -> Value {
    let mount = json!({"name": "kube-api-access-x7k2p", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
    json!({
        "name": name,
        "image": "registry.example/agents/planner@sha256:0e1fc0c9a4ec7b0f8ec0c2dd0a3d3ac43f4f1f2f04bdc1d2a9e4a4a3d8f3f7aa",
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "args": [argument],
        "env": [],
        "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}},
        "volumeMounts": [{"name": "work", "mountPath": "/work"}, mount],
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
            "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {"capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true, "allowPrivilegeEscalation": false},
    })
}

fn pod() -> Value {
    json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "generateName": "planner-6d4cf56db6-",
            "namespace": "my-agents",
            "labels": {"app": "planner", "pod-template-hash": "6d4cf56db6"},
            "annotations": {"prometheus.io/scrape": "true", "checksum/config": "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "planner-6d4cf56db6",
                "uid": "f2c1b1b0-0d64-4b1c-8f0f-4f6d1c7d2a11", "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "volumes": [
                {"name": "work", "emptyDir": {}},
                {"name": "kube-api-access-x7k2p", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
                ]}},
            ],
            "initContainers": [container("prepare", "--port=8080")],
            "containers": [container("planner", "--port=8080"), container("tools", "--port=8080")],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "planner",
            "serviceAccount": "planner",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "schedulerName": "default-scheduler",
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            ],
            "priority": 0,
            "enableServiceLinks": true,
            "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": {},
    })
}
