//! The pod that a workload would make, by the template in it. Pure.

use serde_json::{Map, Value, json};

/// Where each kind keeps its template, as JSON Pointer.
const TEMPLATES: [(&str, &str); 7] = [
    ("CronJob", "/spec/jobTemplate/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("Deployment", "/spec/template"),
    ("Job", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("ReplicationController", "/spec/template"),
    ("StatefulSet", "/spec/template"),
];

/// The pod of `object`: the object itself if it is one, what its template says if it is a workload of Kubernetes, else `None`.
/// A workload without a template gives a pod without a spec, which is denied as what it is.
pub(crate) fn pod(object: &Value) -> Option<Value> {
    let kind = object.get("kind")?.as_str()?;
    if kind == "Pod" {
        return Some(object.clone());
    }
    let (_, pointer) = TEMPLATES.iter().find(|(known, _)| *known == kind)?;
    let part = |key| object.pointer(&format!("{pointer}/{key}")).cloned();
    let mut metadata = match part("metadata") {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    };
    let own = |key: &str| object.pointer("/metadata")?.get(key)?.as_str();
    if let Some(name) = own("name") {
        metadata.insert("generateName".to_owned(), format!("{name}-").into());
    }
    if let Some(namespace) = own("namespace") {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata});
    if let (Some(spec), Some(members)) = (part("spec"), pod.as_object_mut()) {
        members.insert("spec".to_owned(), spec);
    }
    Some(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_gives_the_pod_of_its_template() {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}});
        for (kind, _) in TEMPLATES {
            let spec = match kind {
                "CronJob" => json!({"jobTemplate": {"spec": {"template": template}}}),
                _ => json!({"template": template}),
            };
            let metadata = json!({"name": "w", "namespace": "n", "uid": "u"});
            let workload = json!({"kind": kind, "metadata": metadata, "spec": spec});
            assert_eq!(
                pod(&workload),
                Some(json!({
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"labels": {"a": "b"}, "generateName": "w-", "namespace": "n"},
                    "spec": {"containers": []},
                })),
                "{kind}"
            );
        }
    }

    #[test]
    fn what_makes_no_pods_gives_none() {
        for object in [
            json!({}),
            json!({"kind": "Service"}),
            json!({"kind": 1}),
            json!([]),
        ] {
            assert_eq!(pod(&object), None, "{object}");
        }
        let own = json!({"kind": "Pod", "metadata": {}, "x": 1});
        assert_eq!(pod(&own), Some(own));
        assert_eq!(pod(&json!({"kind": "Job"})).unwrap()["spec"], Value::Null);
    }
}
