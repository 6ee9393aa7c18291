//! Whether the token guard stands as shipped; pure. Without it the grant would let every service account of a namespace mint for
//! every other one, so the comparison is with whole objects, and what is not known counts as a difference.

use serde_json::Value;
use tollgate_shared::contract::Binding;

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
    /// Not as shipped, and why.
    Fallen(String),
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
mod tests {
    use serde_json::json;

    use super::*;

    /// The shipped pair as a cluster stores it.
    fn stored() -> [Value; 2] {
        let mut pair = SHIPPED[0].map(|text| {
            let mut object: Value = serde_saphyr::from_str(text).unwrap();
            object["spec"].take()
        });
        pair[0]["matchConstraints"]["matchPolicy"] = json!("Equivalent");
        pair[0]["matchConstraints"]["objectSelector"] = json!({});
        pair
    }

    fn object<'a>(spec: &'a Value, release: Option<&'a str>) -> Option<Stored<'a>> {
        Some(Stored {
            spec: Some(spec),
            release,
            is_terminating: false,
        })
    }

    #[test]
    fn stands_as_shipped_and_as_stored() {
        let [policy, binding] = stored();
        let shipped = Shipped::new(Binding::Pod).unwrap();
        let judged = shipped.judge(object(&policy, None), object(&binding, None));
        assert_eq!(judged, Guard::Stands);
    }

    #[test]
    fn every_change_of_a_value_fells_it() {
        let shipped = Shipped::new(Binding::Pod).unwrap();
        for (part, pointer, value) in [
            (0, "/failurePolicy", json!("Ignore")),
            (0, "/validations/0/expression", json!("true")),
            (0, "/validations", json!([])),
            (0, "/matchConditions/0/expression", json!("false")),
            (
                0,
                "/matchConstraints/objectSelector",
                json!({"matchLabels": {"a": "b"}}),
            ),
            (
                0,
                "/matchConstraints/resourceRules/0/operations",
                json!(["UPDATE"]),
            ),
            (
                0,
                "/matchConstraints/resourceRules/0/scope",
                json!("Cluster"),
            ),
            (1, "/policyName", json!("other")),
            (1, "/validationActions", json!(["Audit"])),
        ] {
            let mut pair = stored();
            *pair[part].pointer_mut(pointer).unwrap() = value;
            let judged = shipped.judge(object(&pair[0], None), object(&pair[1], None));
            assert!(matches!(judged, Guard::Fallen(_)), "{pointer}");
        }
        for (part, key, value) in [
            (0, "paramKind", json!({"kind": "ConfigMap"})),
            (0, "newField", json!(true)),
            (
                1,
                "matchResources",
                json!({"namespaceSelector": {"matchLabels": {"a": "b"}}}),
            ),
        ] {
            let mut pair = stored();
            pair[part][key] = value;
            let judged = shipped.judge(object(&pair[0], None), object(&pair[1], None));
            assert!(matches!(judged, Guard::Fallen(_)), "{key}");
        }
    }

    #[test]
    fn missing_or_going_is_fallen() {
        let [policy, binding] = stored();
        let shipped = Shipped::new(Binding::Pod).unwrap();
        let going = Some(Stored {
            is_terminating: true,
            ..object(&policy, Some("99.0.0")).unwrap()
        });
        for (policy, binding) in [
            (None, object(&binding, None)),
            (object(&policy, Some("99.0.0")), None),
            (going, object(&binding, None)),
        ] {
            assert!(matches!(shipped.judge(policy, binding), Guard::Fallen(_)));
        }
    }

    #[test]
    fn a_later_release_judges_its_own() {
        let shipped = Shipped::new(Binding::Pod).unwrap();
        for (release, newer) in [
            ("99.0.0", true),
            ("0.1.1", true),
            ("0.2.0-rc.1", true),
            (env!("CARGO_PKG_VERSION"), false),
            ("0.0.9", false),
            ("99", false),
            ("latest", false),
        ] {
            let mut pair = stored();
            pair[0]["validations"] = json!([{"expression": "false"}]);
            let judged = shipped.judge(object(&pair[0], Some(release)), object(&pair[1], None));
            assert_eq!(judged == Guard::Newer, newer, "{release}: {judged:?}");
        }
    }

    #[test]
    fn node_binding_wants_its_own_variant_only() {
        let [mut policy, binding] = stored();
        let judge = |mode, policy: &Value| {
            let shipped = Shipped::new(mode).unwrap();
            shipped.judge(object(policy, None), object(&binding, None))
        };
        assert!(matches!(judge(Binding::Node, &policy), Guard::Fallen(_)));
        bind_to_node(&mut policy);
        assert_eq!(judge(Binding::Node, &policy), Guard::Stands);
        assert!(matches!(judge(Binding::Pod, &policy), Guard::Fallen(_)));
    }

    #[test]
    fn the_manifests_name_this_release() {
        for text in SHIPPED[0] {
            let object: Value = serde_saphyr::from_str(text).unwrap();
            assert_eq!(object["metadata"]["name"], NAME);
            assert_eq!(
                object["metadata"]["annotations"][RELEASE],
                env!("CARGO_PKG_VERSION")
            );
        }
    }
}
