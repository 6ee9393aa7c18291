//! Whether the token guard stands as shipped; pure. Without it the grant would let every service account of a namespace mint for
//! every other one, so the comparison is with whole objects, and what is not known counts as a difference.

use serde_json::Value;
use tollgate_shared::contract::Binding;
use tracing::Level;

/// Name of the policy and of its binding.
pub(crate) const NAME: &str = "tollgate-token-guard";

/// Annotation of both with the release that ships them.
const RELEASE: &str = "tollgate.dev/release";

/// What this release ships, and the one before it, so that an upgrade in any order keeps the grants. A release that changes
/// the guard puts the old pair second.
const SHIPPED: &[[&str; 2]] = &[[
    include_str!("../../../manifests/base/policies/token-guard.yaml"),
    include_str!("../../../manifests/base/policies/token-guard-binding.yaml"),
]];

/// The variable that the component for node binding replaces, and its value there.
const BOUND: &str = "isBoundForSelf";
const BOUND_TO_NODE: &str = "variables.isBoundToOwnNode";

/// What the cluster has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// As shipped.
    Stands,
    /// From a later release than ours, whose own replicas judge it: we neither grant nor revoke.
    Newer,
    /// As shipped, but it let a token pass that it gives to nobody.
    Silent,
    /// As shipped, but whether it is in force could not be asked: we neither grant nor revoke.
    Unknown,
    /// Not as shipped, and why.
    Fallen(String),
}

impl Guard {
    /// How bad it is. An API server takes seconds to put a new policy into force: in `early` times that is no trouble yet.
    pub(crate) const fn level(&self, early: bool) -> Level {
        match self {
            Self::Stands => Level::INFO,
            Self::Newer | Self::Unknown => Level::WARN,
            Self::Silent if early => Level::WARN,
            Self::Silent | Self::Fallen(_) => Level::ERROR,
        }
    }

    /// Tells the operator what follows from it.
    pub(crate) fn log(&self, level: Level) {
        let text = match self {
            Self::Stands => "the token guard stands: managed namespaces hold their grants",
            Self::Newer => {
                "the token guard is of a later release: its own replicas see to the grants"
            }
            Self::Silent => "the token guard is not in force yet: grants are withheld",
            Self::Unknown => "whether the token guard is in force is not known yet",
            Self::Fallen(_) => "grants are withheld: apply the manifests of this release again",
        };
        let reason = match self {
            Self::Fallen(reason) => Some(reason.as_str()),
            _ => None,
        };
        match level {
            Level::ERROR => tracing::error!(reason, "{text}"),
            Level::WARN => tracing::warn!(reason, "{text}"),
            _ => tracing::info!(reason, "{text}"),
        }
    }
}

/// An object as the API server stores it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    pub(crate) spec: Option<&'a Value>,
    pub(crate) release: Option<&'a str>,
    pub(crate) is_terminating: bool,
}

/// The release that an object says it is from.
pub(crate) fn release(metadata: &kube::core::ObjectMeta) -> Option<&str> {
    let annotations = metadata.annotations.as_ref()?;
    annotations.get(RELEASE).map(String::as_str)
}

/// The accepted pairs of specs.
#[derive(Debug)]
pub(crate) struct Shipped(Vec<[Value; 2]>);

impl Shipped {
    /// Reads what is compiled in, for what the webhook binds minted tokens to.
    pub(crate) fn new(binding: Binding) -> Result<Self, serde_saphyr::Error> {
        let mut pairs = Vec::new();
        for [policy, guard_binding] in SHIPPED {
            let mut policy = spec(serde_saphyr::from_str(policy)?);
            if binding == Binding::Node {
                bind_to_node(&mut policy);
            }
            pairs.push([policy, spec(serde_saphyr::from_str(guard_binding)?)]);
        }
        Ok(Self(pairs))
    }

    /// Judges what the cluster has.
    pub(crate) fn judge(&self, policy: Option<Stored<'_>>, binding: Option<Stored<'_>>) -> Guard {
        let (Some(policy), Some(binding)) = (policy, binding) else {
            return Guard::Fallen(format!("policy or binding {NAME} is missing"));
        };
        if policy.is_terminating || binding.is_terminating {
            return Guard::Fallen(format!("policy or binding {NAME} is being deleted"));
        }
        let found = [policy, binding].map(|object| {
            let mut spec = object.spec.cloned().unwrap_or_default();
            strip(&mut spec);
            spec
        });
        if self.0.contains(&found) {
            return Guard::Stands;
        }
        if [policy, binding]
            .iter()
            .any(|object| is_newer(object.release))
        {
            return Guard::Newer;
        }
        Guard::Fallen(format!(
            "policy or binding {NAME} is not as this or the previous release ships it"
        ))
    }
}

fn spec(mut object: Value) -> Value {
    let mut spec = object.get_mut("spec").map(Value::take).unwrap_or_default();
    strip(&mut spec);
    spec
}

fn bind_to_node(policy: &mut Value) {
    let variables = policy.get_mut("variables").and_then(Value::as_array_mut);
    let bound = variables
        .into_iter()
        .flatten()
        .find(|variable| variable.get("name").and_then(Value::as_str) == Some(BOUND));
    if let Some(expression) = bound.and_then(|variable| variable.get_mut("expression")) {
        *expression = BOUND_TO_NODE.into();
    }
}

/// Takes away what means the same as nothing: empty values, and the API server's own defaults
/// (`pkg/apis/admissionregistration/v1/defaults.go`).
fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(strip);
            members.retain(|key, value| !means_nothing(key, value));
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

fn means_nothing(key: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => matches!(
            (key, text.as_str()),
            ("matchPolicy", "Equivalent") | ("failurePolicy", "Fail") | ("scope", "*")
        ),
        _ => false,
    }
}

fn is_newer(release: Option<&str>) -> bool {
    match (
        release.and_then(numbers),
        numbers(env!("CARGO_PKG_VERSION")),
    ) {
        (Some(release), Some(ours)) => release > ours,
        _ => false,
    }
}

/// Major, minor and patch; a suffix does not count.
fn numbers(release: &str) -> Option<[u32; 3]> {
    let core = release.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(str::parse);
    let numbers = [parts.next()?, parts.next()?, parts.next()?];
    let [Ok(major), Ok(minor), Ok(patch)] = numbers else {
        return None;
    };
    parts.next().is_none().then_some([major, minor, patch])
}

#[cfg(test)]
mod tests;
