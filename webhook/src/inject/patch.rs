//! Operations of RFC 6902 and what each of them would mean in a final pod.

use serde::Serialize;
use serde_json::Value;

use crate::reason::{Denial, Reason};

/// One operation of a JSON Patch (RFC 6902).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum PatchOp {
    /// Sets a member, or inserts into a list.
    Add {
        /// JSON Pointer.
        path: String,
        /// The new value.
        value: Value,
    },
    /// Takes a value away.
    Remove {
        /// JSON Pointer.
        path: String,
    },
    /// Sets a value that is there.
    Replace {
        /// JSON Pointer.
        path: String,
        /// The new value.
        value: Value,
    },
    /// Takes a value away and adds it elsewhere.
    Move {
        /// JSON Pointer to where it is.
        from: String,
        /// JSON Pointer to where it goes.
        path: String,
    },
}

/// One operation, and the denial that a final pod earns if it still needs it. `None`: a convenience whose absence harms
/// nobody's security.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) op: PatchOp,
    pub(crate) meaning: Option<Denial>,
}

/// What helps a final pod that is not as injection made it.
const AGAIN: &str = "create the pod again, and if that does not help, see which other webhook changes it after this one";

/// The operations in the order in which they must be applied.
#[derive(Debug, Default)]
pub(crate) struct Changes(Vec<Change>);

impl Changes {
    /// A change that a final pod must not need.
    pub(crate) fn must(&mut self, op: PatchOp, reason: Reason, message: impl Into<String>) {
        self.0.push(Change {
            op,
            meaning: Some(Denial::new(reason, message)),
        });
    }

    /// A change that a final pod may do without.
    pub(crate) fn may(&mut self, op: PatchOp) {
        self.0.push(Change { op, meaning: None });
    }

    /// What a final pod that needs these changes is denied for. That the sidecar is missing explains all else.
    pub(crate) fn into_denial(self) -> Option<Denial> {
        let mut denials: Vec<Denial> = self.0.into_iter().filter_map(|c| c.meaning).collect();
        denials.sort_by_key(|denial| denial.reason != Reason::SidecarMissing);
        denials.into_iter().next().map(|denial| {
            let message = format!("{}; {AGAIN}", denial.message);
            Denial::new(denial.reason, message)
        })
    }

    /// The operations alone.
    pub(crate) fn into_operations(self) -> Vec<PatchOp> {
        self.0.into_iter().map(|change| change.op).collect()
    }
}

/// Sets `path`, whether it is there or not.
pub(crate) fn add(path: impl Into<String>, value: impl Into<Value>) -> PatchOp {
    PatchOp::Add {
        path: path.into(),
        value: value.into(),
    }
}

/// One step of a JSON Pointer (RFC 6901).
pub(crate) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Adds `items` at the end of the list at `path`; makes the list where there is none (`absent`, or null).
pub(crate) fn append(path: &str, absent: bool, items: Vec<Value>) -> Vec<PatchOp> {
    if items.is_empty() {
        Vec::new()
    } else if absent {
        vec![add(path, items)]
    } else {
        let end = format!("{path}/-");
        items
            .into_iter()
            .map(|item| add(end.clone(), item))
            .collect()
    }
}

/// Adds `items` at the head of the list at `path`, in their order.
pub(crate) fn prepend(path: &str, absent: bool, items: Vec<Value>) -> Vec<PatchOp> {
    if items.is_empty() {
        Vec::new()
    } else if absent {
        vec![add(path, items)]
    } else {
        let at = |index| format!("{path}/{index}");
        let items = items.into_iter().enumerate();
        items.map(|(index, item)| add(at(index), item)).collect()
    }
}
