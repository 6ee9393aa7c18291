//! Operations of RFC 6902 and what each of them would mean in a final pod.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeStruct as _, Serializer};
use serde_json::Value;
use tollgate_shared::contract::{AGENT_VOLUME, SERVICE_ACCOUNT_PATH};

use crate::reason::{Denial, Reason};

/// One operation of a JSON Patch (RFC 6902).
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
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
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
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
    /// The mount of an agent's files.
    Mount(AgentMount),
}

/// The mount of the files of the agent of this name.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentMount(pub(crate) String);

impl Serialize for AgentMount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut mount = serializer.serialize_struct("Mount", 4)?;
        mount.serialize_field("name", AGENT_VOLUME)?;
        mount.serialize_field("mountPath", SERVICE_ACCOUNT_PATH)?;
        mount.serialize_field("subPath", &self.0)?;
        mount.serialize_field("readOnly", &true)?;
        mount.end()
    }
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

/// What helps a final pod that is not as injection made it.
const AGAIN: &str = "create the pod again, and if that does not help, see which other webhook changes it after this one";

/// The operations in the order in which they must be applied.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    operations: Vec<PatchOp>,
    /// What a final pod is denied for that still needs them; `None` where they are conveniences, whose absence harms nobody's security.
    denial: Option<Denial>,
    warnings: Vec<String>,
    /// More were wanted than there may be.
    are_too_many: bool,
}

impl Changes {
    /// A change that a final pod must not need. The first one is what it is denied for; that the sidecar is missing explains all else.
    pub(crate) fn must(&mut self, op: PatchOp, reason: Reason, message: impl Into<String>) {
        let explains = |known: &Denial| reason != Reason::SidecarMissing || known.reason == reason;
        if !self.denial.as_ref().is_some_and(explains) {
            self.denial = Some(Denial::new(reason, message));
        }
        self.may(op);
    }

    /// A change that a final pod may do without.
    pub(crate) fn may(&mut self, op: PatchOp) {
        self.are_too_many |= self.operations.len() >= MOST_OPERATIONS;
        if !self.are_too_many {
            self.operations.push(op);
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

    /// What a final pod that needs these changes is denied for.
    pub(crate) fn into_denial(self) -> Option<Denial> {
        self.denial.map(|denial| {
            let message = format!("{}; {AGAIN}", denial.message);
            Denial::new(denial.reason, message)
        })
    }

    /// The operations alone, and the warnings.
    pub(crate) fn into_operations(self) -> (Vec<PatchOp>, Vec<String>) {
        (self.operations, self.warnings)
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
