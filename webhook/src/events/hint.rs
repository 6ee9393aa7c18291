//! What a review hints at: a workload whose pods are denied, or injected with warnings. Nobody proves to the webhook that a
//! review comes from the API server, so a hint is a place to look at and nothing of it but that is ever written. Pure.

use kube::core::{ApiResource, GroupVersionKind};

use crate::inject::{is_label, is_subdomain};
use crate::json::{Json, Kind};
use crate::reason::Reason;

/// The controllers that the webhook may read: group, kind, and the name in paths.
const KINDS: [(&str, &str, &str); 4] = [
    ("apps", "DaemonSet", "daemonsets"),
    ("apps", "ReplicaSet", "replicasets"),
    ("apps", "StatefulSet", "statefulsets"),
    ("batch", "Job", "jobs"),
];

/// A workload to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hint {
    /// The namespace of the review.
    pub(crate) namespace: String,
    /// Its index in [`KINDS`].
    kind: usize,
    /// The pod's controller.
    pub(crate) name: String,
    /// Its uid.
    pub(crate) uid: String,
    /// Why to look.
    pub(crate) reason: Reason,
}

/// Whether a request asks for something, and not only what would come of it.
pub(crate) fn is_real(request: Json<'_>) -> bool {
    matches!(
        request.get("dryRun").map(Json::kind),
        None | Some(Kind::Bool(false))
    )
}

impl Hint {
    /// Reads an AdmissionRequest. `None` on a dry run, for anything but a new pod, and where the pod's controller is none of
    /// [`KINDS`] or no text that could be one.
    pub(crate) fn read(request: Json<'_>, reason: Reason) -> Option<Self> {
        let text = |key: &str| request.get(key).and_then(Json::as_str);
        let is_new_pod =
            text("operation") == Some("CREATE") && matches!(text("subResource"), None | Some(""));
        let namespace = text("namespace").filter(|name| is_label(name))?;
        if !is_real(request) || !is_new_pod {
            return None;
        }
        let owner = controller(request.get("object")?)?;
        let text = |key: &str| owner.get(key).and_then(Json::as_str);
        let (group, version) = text("apiVersion")?.split_once('/')?;
        let kind = text("kind")?;
        let known = |(own, name, _): &(&str, &str, &str)| *own == group && *name == kind;
        Some(Self {
            namespace: namespace.to_owned(),
            kind: KINDS.iter().position(known).filter(|_| version == "v1")?,
            name: text("name").filter(|name| is_subdomain(name))?.to_owned(),
            uid: text("uid").filter(|uid| is_uid(uid))?.to_owned(),
            reason,
        })
    }

    /// The kind of the controller, for a client.
    pub(crate) fn kind(&self) -> ApiResource {
        let (group, kind, plural) = KINDS.get(self.kind).copied().unwrap_or_default();
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural)
    }
}

/// The one owner that is the object's controller.
pub(crate) fn controller(object: Json<'_>) -> Option<Json<'_>> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_list()?;
    let is_controller = |owner: &Json<'_>| {
        let controller = owner.get("controller").map(Json::kind);
        controller == Some(Kind::Bool(true))
    };
    let mut controllers = owners.iter().filter(is_controller);
    controllers.next().filter(|_| controllers.next().is_none())
}

fn is_uid(text: &str) -> bool {
    text.len() == 36 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::json::Tree;

    const UID: &str = "0b9d1a3e-3c55-4a43-8f0c-6a0d8f1c2b3a";

    fn read(request: &Value) -> Option<Hint> {
        Hint::read(Tree::of(request).unwrap().root(), Reason::HostPath)
    }

    fn request() -> Value {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a-1", "uid": UID, "controller": true});
        json!({
            "operation": "CREATE",
            "namespace": "team-a",
            "object": {"metadata": {"ownerReferences": [owner]}},
        })
    }

    #[test]
    fn a_new_pod_of_a_known_controller_is_a_hint() {
        let hint = read(&request()).unwrap();
        assert_eq!(
            (hint.namespace.as_str(), hint.name.as_str()),
            ("team-a", "a-1")
        );
        assert_eq!(hint.uid, UID);
        let kind = hint.kind();
        assert_eq!(
            (kind.api_version.as_str(), kind.plural.as_str()),
            ("apps/v1", "replicasets")
        );
    }

    #[test]
    fn nothing_else_is() {
        let owner = "/object/metadata/ownerReferences/0";
        for (pointer, value) in [
            ("/dryRun", json!(true)),
            ("/dryRun", json!("false")),
            ("/dryRun", Value::Null),
            ("/operation", json!("UPDATE")),
            ("/subResource", json!("ephemeralcontainers")),
            ("/namespace", json!("")),
            ("/namespace", json!("../kube-system")),
            ("/namespace", json!(["team-a"])),
            ("/object", Value::Null),
            ("/object/metadata/ownerReferences", json!([])),
            (
                "/object/metadata/ownerReferences",
                json!({"controller": true}),
            ),
            (&format!("{owner}/controller"), json!(false)),
            (&format!("{owner}/apiVersion"), json!("apps/v2")),
            (&format!("{owner}/apiVersion"), json!("v1")),
            (&format!("{owner}/apiVersion"), json!("batch/v1")),
            (&format!("{owner}/kind"), json!("Node")),
            (&format!("{owner}/name"), json!("a/../../b")),
            (&format!("{owner}/name"), json!("a?x=y")),
            (&format!("{owner}/name"), json!("")),
            (&format!("{owner}/uid"), json!("1")),
            (
                &format!("{owner}/uid"),
                json!("0b9d1a3e-3c55-4a43-8f0c-6a0d8f1c2b\n1"),
            ),
        ] {
            let mut request = request();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = request.pointer_mut(parent).unwrap();
            parent[key] = value.clone();
            assert_eq!(read(&request), None, "{pointer} {value}");
        }
        let mut two = request();
        let owners = two.pointer_mut("/object/metadata/ownerReferences").unwrap();
        let owner = owners[0].clone();
        owners.as_array_mut().unwrap().push(owner);
        assert_eq!(read(&two), None);
    }
}
