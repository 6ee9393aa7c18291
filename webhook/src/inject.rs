//! Mutation as a pure function on raw JSON: no IO, no clock, no randomness. Decides by content, never by marks or names, so that
//! it is idempotent and cannot be talked out of its work; unknown fields of the pod survive, since only what must change is
//! touched.

mod agent;
pub mod config;
mod drift;
mod hazard;
mod patch;
mod plan;
mod pod;
mod quantity;
mod reserved;
mod resources;
mod select;
mod settings;
mod sidecar;
mod token;
mod vouch;

use serde_json::Value;
use tollgate_shared::contract::Injection;

pub(crate) use self::config::Shape;
pub use self::config::{InjectConfig, api_server_variables};
pub use self::patch::{AgentMount, Content, PatchOp};

use crate::json::{Json, Tree};
use crate::reason::{Denial, Reason};
use crate::voucher::Vouching;

pub(crate) use self::plan::{Outcome, plan};
pub(crate) use self::pod::{Container, Pod, is_label, text};
pub(crate) use self::settings::{LOWEST_PORT, is_subdomain};
pub(crate) use self::vouch::believed;
pub(crate) use self::{hazard::refuse_capabilities, hazard::refuse_uid, resources::lowered};

/// What a decision depends on beside the pod.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The namespace's label; `None` where it has none.
    pub injection: Option<Injection>,
    /// The namespace of the admission request. The object's own may be empty.
    pub namespace: &'a str,
    /// Whether the requester is a kubelet (group `system:nodes`).
    pub from_node: bool,
    /// The operator's configuration.
    pub config: &'a InjectConfig,
    /// How replicas of other configurations know ours for what we make, and we theirs; `None` where there is no webhook.
    pub vouching: Option<Vouching<'a>>,
}

impl<'a> Context<'a> {
    /// For a pod of a user's, without vouchers.
    #[must_use]
    pub const fn unvouched(
        injection: Injection,
        namespace: &'a str,
        config: &'a InjectConfig,
    ) -> Self {
        Self {
            injection: Some(injection),
            namespace,
            from_node: false,
            config,
            vouching: None,
        }
    }
}

/// What becomes of a new pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Allowed as it is.
    Skip(Reason),
    /// Allowed with these changes; none where the pod needs none.
    Patch {
        /// In the order in which they must be applied.
        operations: Vec<PatchOp>,
        /// For the user, each at most a few lines.
        warnings: Vec<String>,
    },
    /// Refused.
    Deny(Denial),
}

impl Decision {
    /// The reason, for the metric.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Skip(reason) => *reason,
            Self::Patch { operations, .. } if operations.is_empty() => Reason::AlreadyInjected,
            Self::Patch { .. } => Reason::Injected,
            Self::Deny(denial) => denial.reason,
        }
    }
}

/// Decides for a pod that is being created.
#[must_use]
pub fn inject(pod: &Value, context: &Context<'_>) -> Decision {
    match Tree::of(pod) {
        Ok(pod) => decide(pod.root(), context),
        Err(error) => Decision::Deny(error.into()),
    }
}

/// As [`inject`], for a pod that was read as reviews are.
pub(crate) fn decide(pod: Json<'_>, context: &Context<'_>) -> Decision {
    match plan(pod, context) {
        Err(denial) => Decision::Deny(denial),
        Ok(Outcome::Leave(reason)) => Decision::Skip(reason),
        Ok(Outcome::Change(changes)) => {
            let (operations, warnings) = changes.into_operations();
            Decision::Patch {
                operations,
                warnings,
            }
        }
    }
}

#[cfg(test)]
mod tests;
