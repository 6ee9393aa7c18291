//! Operations of RFC 6902 and what each of them would mean in a final pod.

use std::borrow::Cow;

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
        value: Content,
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
        value: Content,
    },
    /// Takes a value away and adds it elsewhere.
    Move {
        /// JSON Pointer to where it is.
        from: String,
        /// JSON Pointer to where it goes.
        path: String,
    },
}

/// What an operation writes. What every agent gets is kept as little more than what differs: a pod may have many.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// Anything.
    Any(Value),
    /// Several.
    List(Vec<Self>),
    /// A variable of a container.
    Variable {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: Cow<'static, str>,
    },
    /// The mount of the agent's files.
    #[serde(rename_all = "camelCase")]
    Mount {
        /// The volume.
        name: &'static str,
        /// Where.
        mount_path: &'static str,
        /// The container's own folder.
        sub_path: String,
        /// Always.
        read_only: bool,
    },
}

impl From<Value> for Content {
    fn from(value: Value) -> Self {
        Self::Any(value)
    }
}

impl From<String> for Content {
    fn from(value: String) -> Self {
        Self::Any(value.into())
    }
}

/// More operations than this are a pod's that cannot run: the list of its containers is a variable of the sidecar, and the kernel
/// takes 128 KiB of one, which is 2,000 names at their longest; with ten operations for each.
const MOST_OPERATIONS: usize = 20_000;

/// The API server shows 4 KiB of warnings.
const MOST_WARNINGS: usize = 50;

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
pub(crate) struct Changes {
    changes: Vec<Change>,
    warnings: Vec<String>,
    /// More were wanted than there may be.
    are_too_many: bool,
}

impl Changes {
    /// A change that a final pod must not need.
    pub(crate) fn must(&mut self, op: PatchOp, reason: Reason, message: impl Into<String>) {
        self.push(op, Some(Denial::new(reason, message)));
    }

    /// A change that a final pod may do without.
    pub(crate) fn may(&mut self, op: PatchOp) {
        self.push(op, None);
    }

    fn push(&mut self, op: PatchOp, meaning: Option<Denial>) {
        self.are_too_many |= self.changes.len() >= MOST_OPERATIONS;
        if !self.are_too_many {
            self.changes.push(Change { op, meaning });
        }
    }

    /// Something for the user to know.
    pub(crate) fn warn(&mut self, warning: String) {
        if self.warnings.len() < MOST_WARNINGS {
            self.warnings.push(warning);
        }
    }

    /// Refuses what needs more operations than there may be.
    pub(crate) fn checked(self) -> Result<Self, Denial> {
        if self.are_too_many {
            let message = format!(
                "the pod needs more than {MOST_OPERATIONS} changes; give it fewer containers, or fewer variables and mounts of the same name"
            );
            return Err(Denial::new(Reason::BadRequest, message));
        }
        Ok(self)
    }

    /// What a final pod that needs these changes is denied for. That the sidecar is missing explains all else.
    pub(crate) fn into_denial(self) -> Option<Denial> {
        let mut denials: Vec<Denial> = self.changes.into_iter().filter_map(|c| c.meaning).collect();
        denials.sort_by_key(|denial| denial.reason != Reason::SidecarMissing);
        denials.into_iter().next().map(|denial| {
            let message = format!("{}; {AGAIN}", denial.message);
            Denial::new(denial.reason, message)
        })
    }

    /// The operations alone, and the warnings.
    pub(crate) fn into_operations(self) -> (Vec<PatchOp>, Vec<String>) {
        let operations = self.changes.into_iter().map(|change| change.op);
        (operations.collect(), self.warnings)
    }
}

/// Sets `path`, whether it is there or not.
pub(crate) fn add(path: impl Into<String>, value: impl Into<Content>) -> PatchOp {
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
pub(crate) fn append(path: &str, absent: bool, items: Vec<Content>) -> Vec<PatchOp> {
    if items.is_empty() {
        Vec::new()
    } else if absent {
        vec![add(path, Content::List(items))]
    } else {
        let end = format!("{path}/-");
        items
            .into_iter()
            .map(|item| add(end.clone(), item))
            .collect()
    }
}

/// Adds `items` at the head of the list at `path`, in their order.
pub(crate) fn prepend(path: &str, absent: bool, items: Vec<Content>) -> Vec<PatchOp> {
    if items.is_empty() {
        Vec::new()
    } else if absent {
        vec![add(path, Content::List(items))]
    } else {
        let at = |index| format!("{path}/{index}");
        let items = items.into_iter().enumerate();
        items.map(|(index, item)| add(at(index), item)).collect()
    }
}
