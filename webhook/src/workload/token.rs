//! The token that the API server puts into a pod before any webhook sees it: what its admission plugin ServiceAccount does
//! (`plugin/pkg/admission/serviceaccount/admission.go`, `mountServiceAccountToken`), as far as the pod alone decides. The flag of the
//! service account, which may turn it off as well, is not known here.

use serde_json::{Value, json};

/// Annotation of the pods that the plugin leaves alone.
const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";
/// Where the token goes, unless something is mounted there.
const PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Head of the volume's name. A volume with such a name is taken for the one that is wanted.
const PREFIX: &str = "kube-api-access-";
/// The plugin ends the name at random.
const NAME: &str = "kube-api-access-xxxxx";

/// Adds the volume and its mounts where the plugin would. What is no pod is left as it is: judging it says what is wrong.
pub(super) fn mount(pod: &mut Value) {
    let is_mirror = pod.pointer(MIRROR).is_some();
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    let automount = spec.get("automountServiceAccountToken");
    if is_mirror || !matches!(automount, None | Some(Value::Null | Value::Bool(true))) {
        return;
    }
    let volumes = spec.get("volumes").and_then(Value::as_array);
    let mut names = volumes
        .into_iter()
        .flatten()
        .filter_map(|volume| volume.get("name")?.as_str());
    let known = names.find(|name| name.starts_with(PREFIX));
    let name = known.unwrap_or(NAME).to_owned();
    let is_known = known.is_some();
    let mut is_mounted = false;
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            is_mounted |= mount_in(container, &name);
        }
    }
    if is_mounted && !is_known {
        push(spec, "volumes", volume(&name));
    }
}

/// Whether the container needed a mount.
fn mount_in(container: &mut Value, volume: &str) -> bool {
    let mounts = container.get("volumeMounts").and_then(Value::as_array);
    let mut mounts = mounts.into_iter().flatten();
    let is_needed =
        mounts.all(|mount| mount.get("mountPath").and_then(Value::as_str) != Some(PATH));
    if is_needed {
        let mount = json!({"name": volume, "readOnly": true, "mountPath": PATH});
        push(container, "volumeMounts", mount);
    }
    is_needed
}

fn push(parent: &mut Value, key: &str, item: Value) {
    let Some(parent) = parent.as_object_mut() else {
        return;
    };
    let list = parent.entry(key).or_insert(Value::Null);
    match list {
        Value::Null => *list = json!([item]),
        Value::Array(items) => items.push(item),
        _ => {}
    }
}

/// `TokenVolumeSource`.
fn volume(name: &str) -> Value {
    let namespace = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    json!({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(spec: &Value) -> Value {
        let mut pod = json!({"metadata": {}, "spec": spec});
        mount(&mut pod);
        pod["spec"].take()
    }

    #[test]
    fn every_container_without_a_mount_there_gets_one() {
        let other = json!({"name": "o", "mountPath": "/o"});
        let own = json!({"name": "o", "mountPath": PATH});
        let ours = json!({"name": NAME, "readOnly": true, "mountPath": PATH});
        let found = mounted(&json!({
            "initContainers": [{"name": "i", "volumeMounts": null}],
            "containers": [{"name": "a", "volumeMounts": [other]}, {"name": "b", "volumeMounts": [own]}],
            "volumes": [{"name": "o", "emptyDir": {}}],
        }));
        assert_eq!(
            found,
            json!({
                "initContainers": [{"name": "i", "volumeMounts": [ours]}],
                "containers": [{"name": "a", "volumeMounts": [other, ours]}, {"name": "b", "volumeMounts": [own]}],
                "volumes": [{"name": "o", "emptyDir": {}}, volume(NAME)],
            })
        );
        assert_eq!(mounted(&found), found);
    }

    #[test]
    fn a_volume_of_such_a_name_is_used() {
        let own = json!([{"name": "kube-api-access-mine", "emptyDir": {}}]);
        let found = mounted(&json!({"containers": [{"name": "a"}], "volumes": own}));
        assert_eq!(
            found["containers"][0]["volumeMounts"][0]["name"],
            "kube-api-access-mine"
        );
        assert_eq!(found["volumes"], own);
    }

    #[test]
    fn where_the_plugin_does_nothing_nothing_is_done() {
        let own = json!({"name": "o", "mountPath": PATH});
        for spec in [
            json!({"automountServiceAccountToken": false, "containers": [{"name": "a"}]}),
            json!({"automountServiceAccountToken": "no", "containers": [{"name": "a"}]}),
            json!({"containers": [{"name": "a", "volumeMounts": [own]}]}),
            json!({"containers": []}),
            json!({"containers": "none"}),
            json!([]),
            Value::Null,
        ] {
            assert_eq!(mounted(&spec), spec);
        }
        let annotations = json!({"kubernetes.io/config.mirror": "x"});
        let mirror = json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "a"}]}});
        let mut found = mirror.clone();
        mount(&mut found);
        assert_eq!(found, mirror);
    }
}
