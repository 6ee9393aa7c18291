//! Whom a denied review is about, for the log. Anybody may send a review, so nothing of it is taken as it comes: one line, of bounded
//! length.

use crate::events::controller;
use crate::json::Json;
use crate::reason::one_line;

/// Longest name of an object.
const LONGEST: usize = 253;

/// Whom a review is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) namespace: String,
    /// The pod's controller, as `kind/name`; else its name, or what its name is to begin with.
    pub(crate) pod_of: String,
}

impl Subject {
    /// Reads an AdmissionRequest; what is not there is empty.
    pub(crate) fn read(request: Json<'_>) -> Self {
        let object = request.get("object");
        let text = |of: Option<Json<'_>>, pointer: &str| {
            let text = of.and_then(|of| of.pointer(pointer)?.as_str());
            text.map(bounded).unwrap_or_default()
        };
        let pod_of = match object.and_then(controller) {
            Some(owner) => {
                let (kind, name) = (text(Some(owner), "/kind"), text(Some(owner), "/name"));
                format!("{kind}/{name}")
            }
            None => match text(object, "/metadata/name") {
                name if name.is_empty() => text(object, "/metadata/generateName"),
                name => name,
            },
        };
        Self {
            namespace: text(Some(request), "/namespace"),
            pod_of,
        }
    }
}

fn bounded(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST);
    one_line(text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::json::Tree;

    #[test]
    fn a_pod_is_known_by_its_controller_or_its_name() {
        let owner = json!({"kind": "ReplicaSet", "name": "agent-1", "controller": true});
        let long = "x".repeat(1000);
        for (metadata, wanted) in [
            (
                json!({"ownerReferences": [owner], "generateName": "agent-1-"}),
                "ReplicaSet/agent-1",
            ),
            (json!({"generateName": "agent-1-"}), "agent-1-"),
            (json!({"name": "agent", "generateName": "a-"}), "agent"),
            (json!({"name": 1}), ""),
            (json!({"name": "a\n\u{1b}[31mb"}), "a  [31mb"),
            (json!({"name": long}), &long[..LONGEST]),
            (Value::Null, ""),
        ] {
            let request = json!({"namespace": "team-a\n", "object": {"metadata": metadata}});
            let subject = Subject::read(Tree::of(&request).unwrap().root());
            assert_eq!(
                (subject.namespace.as_str(), subject.pod_of.as_str()),
                ("team-a ", wanted),
                "{request}"
            );
        }
        let none = Subject::read(Tree::of(&json!({})).unwrap().root());
        assert_eq!((none.namespace.as_str(), none.pod_of.as_str()), ("", ""));
    }
}
