//! Judges pods without the webhook's code: which tokens agents can reach, what a patch left alone, Pod Security's rules.

use serde_json::{Value, json};

pub(crate) const PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Containers of a pod, ours included.
pub(crate) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .filter_map(|key| pod["spec"][key].as_array())
        .flatten()
}

/// Our container.
pub(crate) fn sidecar(pod: &Value) -> &Value {
    &pod["spec"]["initContainers"][0]
}

fn items<'a>(parent: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    parent[key].as_array().into_iter().flatten()
}

/// Every way in which an agent container reaches a credential for the API server that a pod shows.
pub(crate) fn leaks(pod: &Value, allowed_audiences: &[&str]) -> Vec<String> {
    let mut leaks = Vec::new();
    let spec = &pod["spec"];
    for key in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
        if spec[key] == json!(true) {
            leaks.push(key.to_owned());
        }
    }
    for container in containers(pod).filter(|container| container["name"] != "tollgate") {
        if container["securityContext"]["privileged"] == json!(true) {
            leaks.push(format!("{} is privileged", container["name"]));
        }
        for entry in items(container, "env") {
            let read = &entry["valueFrom"]["fileKeyRef"]["volumeName"];
            let mut names = items(spec, "volumes").filter_map(|volume| volume["name"].as_str());
            if names.any(|name| read == name && name.starts_with("tollgate-")) {
                leaks.push(format!("{} reads {read}", container["name"]));
            }
        }
        for mount in items(container, "volumeMounts") {
            let volume = items(spec, "volumes").find(|volume| volume["name"] == mount["name"]);
            let own_files = mount["name"] == "tollgate-agent"
                && mount["mountPath"] == PATH
                && mount["subPath"] == container["name"]
                && mount["readOnly"] == json!(true);
            let Some(volume) = volume else { continue };
            let ours = volume["name"].as_str().unwrap().starts_with("tollgate-");
            if (ours && !own_files) || volume.get("hostPath").is_some() {
                leaks.push(format!("{} mounts {}", container["name"], volume["name"]));
            }
            for source in items(&volume["projected"], "sources") {
                let Some(token) = source.get("serviceAccountToken") else {
                    continue;
                };
                let audience = token["audience"].as_str().unwrap_or_default();
                if !allowed_audiences.contains(&audience) {
                    leaks.push(format!(
                        "{} has a token of {}",
                        container["name"], volume["name"]
                    ));
                }
            }
        }
    }
    leaks
}

/// Takes away all that injection may add or remove, so that the rest can be compared byte for byte.
pub(crate) fn bare(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let spec = pod["spec"].as_object_mut().unwrap();
    spec.remove("automountServiceAccountToken");
    let mut gone = vec!["tollgate-bootstrap", "tollgate-agent", "tollgate-state"];
    let volumes = spec.get("volumes").cloned().unwrap_or_default();
    let token = |volume: &&Value| is_api_server_token(volume);
    gone.extend(
        items_of(&volumes)
            .filter(token)
            .filter_map(|volume| volume["name"].as_str()),
    );
    retain(spec.get_mut("volumes"), |volume| {
        !gone.iter().any(|name| volume["name"] == *name)
    });
    for key in ["initContainers", "containers"] {
        retain(spec.get_mut(key), |container| {
            container["name"] != "tollgate"
        });
        let list = spec.get_mut(key).and_then(Value::as_array_mut);
        for container in list.into_iter().flatten() {
            let plugin = |mount: &Value| {
                mount["name"]
                    .as_str()
                    .unwrap()
                    .starts_with("kube-api-access-")
                    && mount["mountPath"] == PATH
            };
            retain(container.get_mut("volumeMounts"), |mount| {
                !gone.iter().any(|name| mount["name"] == *name) && !plugin(mount)
            });
            retain(container.get_mut("env"), |entry| !is_our_variable(entry));
            drop_empty(container, "volumeMounts");
            drop_empty(container, "env");
        }
    }
    for key in ["volumes", "initContainers"] {
        drop_empty(&mut pod["spec"], key);
    }
    if let Some(annotations) = pod["metadata"]
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove("tollgate.dev/injected");
        annotations.remove("webhook.tollgate.dev/voucher");
    }
    drop_empty(&mut pod["metadata"], "annotations");
    pod
}

fn items_of(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn is_api_server_token(volume: &Value) -> bool {
    items(&volume["projected"], "sources")
        .any(|source| source["serviceAccountToken"]["expirationSeconds"] == json!(3607))
}

fn is_our_variable(entry: &Value) -> bool {
    let name = entry["name"].as_str().unwrap_or_default();
    (name.starts_with("KUBERNETES_") && entry["value"].as_str().is_some_and(|v| v != "10.0.0.1"))
        || name.eq_ignore_ascii_case("NO_PROXY")
}

fn retain(list: Option<&mut Value>, keep: impl Fn(&Value) -> bool) {
    if let Some(Value::Array(items)) = list {
        items.retain(keep);
    }
}

/// Absent, null and empty are the same.
fn drop_empty(object: &mut Value, key: &str) {
    let empty = match &object[key] {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    if empty {
        object.as_object_mut().unwrap().remove(key);
    }
}

/// What Pod Security's `restricted`, as of 1.34 (which includes host fields of probes), has against a container.
pub(crate) fn restricted(container: &Value) -> Vec<&'static str> {
    let context = &container["securityContext"];
    let mut faults = Vec::new();
    let mut want = |holds: bool, fault| {
        if !holds {
            faults.push(fault);
        }
    };
    want(
        context["allowPrivilegeEscalation"] == json!(false),
        "allowPrivilegeEscalation",
    );
    want(
        context["capabilities"]["drop"] == json!(["ALL"]),
        "capabilities.drop",
    );
    want(context["capabilities"]["add"].is_null(), "capabilities.add");
    want(context["runAsNonRoot"] == json!(true), "runAsNonRoot");
    want(context["runAsUser"] != json!(0), "runAsUser");
    want(context["privileged"] != json!(true), "privileged");
    want(
        context["seccompProfile"]["type"] == "RuntimeDefault",
        "seccompProfile",
    );
    want(context["procMount"].is_null(), "procMount");
    want(
        context["readOnlyRootFilesystem"] == json!(true),
        "readOnlyRootFilesystem",
    );
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        for handler in ["httpGet", "tcpSocket"] {
            want(
                container[probe][handler]["host"].is_null(),
                "host of a probe",
            );
        }
    }
    want(container["lifecycle"].is_null(), "lifecycle");
    want(
        items(container, "ports").all(|port| port["hostPort"].is_null()),
        "hostPort",
    );
    faults
}

/// QoS class by containers, as `pkg/apis/core/v1/helper/qos/qos.go`; amounts compared as text.
pub(crate) fn is_guaranteed(pod: &Value) -> bool {
    containers(pod).all(|container| {
        ["cpu", "memory"].into_iter().all(|name| {
            let limit = &container["resources"]["limits"][name];
            let request = &container["resources"]["requests"][name];
            !limit.is_null() && (request.is_null() || request == limit)
        })
    })
}
