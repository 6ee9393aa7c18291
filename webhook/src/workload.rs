//! The pod that a workload would make, by the template in it, as the API server shows it to webhooks. Pure.

mod token;

use serde_json::{Map, Value, json};

/// Where Kubernetes' own kinds keep their templates, as JSON Pointer.
const TEMPLATES: [(&str, &str); 8] = [
    ("CronJob", "/spec/jobTemplate/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("Deployment", "/spec/template"),
    ("Job", "/spec/template"),
    ("PodTemplate", "/template"),
    ("ReplicaSet", "/spec/template"),
    ("ReplicationController", "/spec/template"),
    ("StatefulSet", "/spec/template"),
];

/// Where other kinds keep theirs, nearly all that have one (Argo Rollouts, OpenKruise, Knative, …).
const USUAL: [&str; 2] = ["/spec/template", "/spec/jobTemplate/spec/template"];

/// Groups of Kubernetes itself whose names have dots: those without are its own, and anybody may have another one of `k8s.io`.
const GROUPS: [&str; 18] = [
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// What comes of an object.
#[derive(Debug, PartialEq)]
pub(crate) enum Made {
    /// This pod: the object itself if it is one, else what its template says. A workload of Kubernetes without a template gives a pod
    /// without a spec, which is denied as what it is.
    Pod(Value),
    /// No pod.
    Nothing,
    /// Nobody here knows.
    Unknown,
}

/// What comes of `object`.
pub(crate) fn made(object: &Value) -> Made {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = text("kind");
    let group = text("apiVersion")
        .split_once('/')
        .map_or("", |(group, _)| group);
    let is_own = !group.contains('.') || GROUPS.contains(&group);
    let template = match is_own {
        true => TEMPLATES
            .iter()
            .find(|(known, _)| *known == kind)
            .map(|(_, template)| *template),
        false => USUAL.into_iter().find(|template| {
            let containers = object.pointer(&format!("{template}/spec/containers"));
            containers.is_some_and(Value::is_array)
        }),
    };
    let mut pod = match template {
        Some(template) => templated(object, template),
        None if is_own && kind == "Pod" => object.clone(),
        None if is_own => return Made::Nothing,
        None => return Made::Unknown,
    };
    token::mount(&mut pod);
    Made::Pod(pod)
}

fn templated(object: &Value, pointer: &str) -> Value {
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
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_gives_the_pod_of_its_template() {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}});
        let in_spec = json!({"template": template});
        let in_job = json!({"jobTemplate": {"spec": in_spec}});
        let own = TEMPLATES.map(|(kind, _)| ("v1", kind));
        let others = [
            ("argoproj.io/v1alpha1", "Rollout"),
            ("example.org/v1", "CronJob"),
        ];
        for (version, kind) in own.into_iter().chain(others) {
            let spec = if kind == "CronJob" { &in_job } else { &in_spec };
            let metadata = json!({"name": "w", "namespace": "n", "uid": "u"});
            let mut workload = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
            match kind {
                "PodTemplate" => workload["template"] = template.clone(),
                _ => workload["spec"] = spec.clone(),
            }
            assert_eq!(
                made(&workload),
                Made::Pod(json!({
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
    fn what_makes_no_pods_gives_none_and_what_nobody_knows_is_said() {
        for (object, wanted) in [
            (json!({}), Made::Nothing),
            (json!({"kind": "Service"}), Made::Nothing),
            (json!({"kind": 1}), Made::Nothing),
            (json!([]), Made::Nothing),
            (
                json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role"}),
                Made::Nothing,
            ),
            (
                json!({"apiVersion": "sparkoperator.k8s.io/v1beta2", "kind": "SparkApplication"}),
                Made::Unknown,
            ),
            (
                json!({"apiVersion": "example.org/v1", "kind": "Pod", "spec": {"containers": []}}),
                Made::Unknown,
            ),
            (
                json!({"apiVersion": "example.org/v1", "kind": "Job", "spec": {"template": {"spec": {"containers": 1}}}}),
                Made::Unknown,
            ),
        ] {
            assert_eq!(made(&object), wanted, "{object}");
        }
        let own = json!({"kind": "Pod", "metadata": {}, "x": 1});
        assert_eq!(made(&own), Made::Pod(own));
        let Made::Pod(bare) = made(&json!({"kind": "Job"})) else {
            panic!("a Job makes a pod")
        };
        assert_eq!(bare["spec"], Value::Null);
    }
}
