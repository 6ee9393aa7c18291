//! What the API server does to a pod between and after webhooks, as far as it matters here: the second run of the
//! ServiceAccount and LimitRanger plugins, and defaults.

use serde_json::{Value, json};

const PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The whole in-tree chain once more, after a webhook changed the pod.
pub(crate) fn second_pass(pod: Value) -> Value {
    let mut pod = with_defaults(pod);
    limit_ranger(&mut pod);
    service_account(&mut pod);
    pod
}

/// Defaults as `pkg/apis/core/v1/defaults.go` sets them in containers and volumes.
pub(crate) fn with_defaults(mut pod: Value) -> Value {
    for container in containers(&mut pod) {
        default(
            container,
            "terminationMessagePath",
            json!("/dev/termination-log"),
        );
        default(container, "terminationMessagePolicy", json!("File"));
        default(container, "imagePullPolicy", json!("IfNotPresent"));
        let limits = container
            .pointer("/resources/limits")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        for (name, limit) in limits {
            default(&mut container["resources"], "requests", json!({}));
            default(&mut container["resources"]["requests"], &name, limit);
        }
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            if let Some(probe) = container.get_mut(probe) {
                default(probe, "timeoutSeconds", json!(1));
                default(probe, "periodSeconds", json!(10));
                default(probe, "successThreshold", json!(1));
                default(probe, "failureThreshold", json!(3));
            }
        }
    }
    let spec = pod["spec"].as_object_mut().unwrap();
    for (key, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("securityContext", json!({})),
        ("schedulerName", json!("default-scheduler")),
        ("terminationGracePeriodSeconds", json!(30)),
    ] {
        spec.entry(key).or_insert(value);
    }
    pod
}

/// `plugin/pkg/admission/limitranger`: defaults where a container has none, our container included.
fn limit_ranger(pod: &mut Value) {
    for container in containers(pod) {
        default(container, "resources", json!({}));
        let resources = &mut container["resources"];
        for (kind, values) in [
            ("limits", json!({"cpu": "500m", "memory": "512Mi"})),
            ("requests", json!({"cpu": "5m", "memory": "16Mi"})),
        ] {
            default(resources, kind, json!({}));
            for (name, value) in values.as_object().unwrap() {
                default(&mut resources[kind], name, value.clone());
            }
        }
    }
}

/// `plugin/pkg/admission/serviceaccount/admission.go`, `mountServiceAccountToken`.
fn service_account(pod: &mut Value) {
    if pod["spec"]["automountServiceAccountToken"] == json!(false) {
        return;
    }
    let prefix = "kube-api-access-";
    let volumes = pod["spec"]["volumes"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut names = volumes.iter().filter_map(|volume| volume["name"].as_str());
    let found = names
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned);
    let name = found.clone().unwrap_or_else(|| format!("{prefix}again"));
    let mut needed = false;
    for container in containers(pod) {
        default(container, "volumeMounts", json!([]));
        let mounts = container["volumeMounts"].as_array_mut().unwrap();
        if mounts.iter().all(|mount| mount["mountPath"] != PATH) {
            mounts.push(json!({"name": name, "mountPath": PATH, "readOnly": true}));
            needed = true;
        }
    }
    if needed && found.is_none() {
        default(&mut pod["spec"], "volumes", json!([]));
        let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
        volumes.push(token_volume(&name));
    }
}

/// The volume that the plugin adds.
pub(crate) fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
        {"downwardAPI": {"items": [{
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
            "path": "namespace",
        }]}},
    ]}})
}

fn containers(pod: &mut Value) -> Vec<&mut Value> {
    let spec = pod["spec"].as_object_mut().unwrap();
    let lists = spec
        .iter_mut()
        .filter(|(key, _)| ["initContainers", "containers"].contains(&key.as_str()));
    lists
        .filter_map(|(_, list)| list.as_array_mut())
        .flatten()
        .collect()
}

fn default(object: &mut Value, key: &str, value: Value) {
    let object = object.as_object_mut().unwrap();
    let slot = object.entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = value;
    }
}
