//! The sidecar container and its volumes, built from settings. Every field that a server would default and that carries
//! security is explicit.

use serde_json::{Value, json};
use tollgate_shared::contract::{
    AGENT_PATH, AGENT_VOLUME, BOOTSTRAP_PATH, BOOTSTRAP_TOKEN_SECONDS, BOOTSTRAP_VOLUME, CONTAINER,
    DOWNWARD, STATE_PATH, STATE_VOLUME, Settings, UID, variable,
};

use super::config::InjectConfig;

/// The sidecar's binary in its image, which holds nothing else.
pub(crate) const BINARY: &str = "/tollgate-sidecar";
/// The binary blocks in `probe` until it is ready, and it waits for its grant: a first failed startup probe wedges pods with
/// `restartPolicy: Never` (kubernetes/kubernetes#132826), so the probe must outlast a slow start.
const STARTUP_SECONDS: u32 = 600;
/// Room for the files of some hundred containers: four small files each, written twice (new, then renamed).
const AGENT_SIZE: &str = "8Mi";
/// Room for the CA, the head of the chain and the open calls.
const STATE_SIZE: &str = "16Mi";

/// The container.
pub(crate) fn container(config: &InjectConfig, settings: &Settings, resources: Value) -> Value {
    json!({
        "name": CONTAINER,
        "image": config.image,
        "imagePullPolicy": config.image_pull_policy.as_str(),
        "command": [BINARY],
        "args": ["run"],
        "restartPolicy": "Always",
        "env": environment(settings),
        "ports": [{"name": "tollgate-admin", "containerPort": settings.admin_port, "protocol": "TCP"}],
        "resources": resources,
        "securityContext": security_context(config.assign_uid),
        "startupProbe": {
            "exec": {"command": [BINARY, "probe"]},
            "timeoutSeconds": STARTUP_SECONDS,
            "periodSeconds": 1,
            "failureThreshold": 3,
        },
        // No readiness probe: it would count for the readiness of the agent's pod.
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": settings.admin_port, "scheme": "HTTP"},
            "timeoutSeconds": 5,
            "periodSeconds": 20,
            "failureThreshold": 3,
        },
        "volumeMounts": [
            {"name": BOOTSTRAP_VOLUME, "mountPath": BOOTSTRAP_PATH, "readOnly": true},
            {"name": AGENT_VOLUME, "mountPath": AGENT_PATH},
            {"name": STATE_VOLUME, "mountPath": STATE_PATH},
        ],
    })
}

fn environment(settings: &Settings) -> Vec<Value> {
    let downward = DOWNWARD.iter().map(|(knob, path)| {
        json!({
            "name": variable(knob),
            "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}},
        })
    });
    let knobs = settings.to_knobs().into_iter();
    let knobs = knobs.map(|(knob, value)| json!({"name": variable(knob), "value": value}));
    downward.chain(knobs).collect()
}

/// What Pod Security's `restricted` wants, and more. Without a uid of ours the platform assigns one.
fn security_context(assign_uid: bool) -> Value {
    let mut context = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    if let (true, Some(context)) = (assign_uid, context.as_object_mut()) {
        context.insert("runAsUser".to_owned(), json!(UID));
        context.insert("runAsGroup".to_owned(), json!(UID));
    }
    context
}

/// The volumes, by name.
pub(crate) fn volumes() -> [(&'static str, Value); 3] {
    let memory = |name: &str, size: &str| json!({"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}});
    [
        (
            BOOTSTRAP_VOLUME,
            json!({
                "name": BOOTSTRAP_VOLUME,
                "projected": {
                    // The sidecar has a uid of its own, so the kubelet does not narrow the mode; the mount protects the file.
                    "defaultMode": 0o644,
                    "sources": [
                        {"serviceAccountToken": {"path": "token", "expirationSeconds": BOOTSTRAP_TOKEN_SECONDS}},
                        {"configMap": {
                            "name": "kube-root-ca.crt",
                            "items": [{"key": "ca.crt", "path": "ca.crt"}],
                        }},
                        {"downwardAPI": {"items": [{
                            "path": "namespace",
                            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                        }]}},
                    ],
                },
            }),
        ),
        (AGENT_VOLUME, memory(AGENT_VOLUME, AGENT_SIZE)),
        (STATE_VOLUME, memory(STATE_VOLUME, STATE_SIZE)),
    ]
}
