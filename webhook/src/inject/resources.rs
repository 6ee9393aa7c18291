//! What the sidecar asks of its node, so that the pod keeps its QoS class and its own limits hold.

use serde_json::{Value, json};
use tollgate_shared::contract::CONTAINER;

use super::pod::{Container, Pod, object};
use super::quantity::Quantity;
use super::settings::Wishes;
use crate::json::{Json, Tree};
use crate::reason::{Denial, Reason};

const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// The sidecar's `resources`.
pub(crate) fn resources(pod: &Pod<'_>, wishes: &Wishes) -> Result<Value, Denial> {
    let guaranteed = is_guaranteed(pod)?;
    let or = |wish: &Option<Quantity>, default: &str| match wish {
        Some(quantity) => quantity.to_string(),
        None => default.to_owned(),
    };
    let (cpu, memory) = if guaranteed {
        (or(&wishes.cpu, "100m"), or(&wishes.memory, "128Mi"))
    } else {
        (or(&wishes.cpu, "10m"), or(&wishes.memory, "32Mi"))
    };
    let mut limits = json!({ "memory": or(&wishes.memory, "128Mi") });
    if let (true, Some(limits)) = (guaranteed, limits.as_object_mut()) {
        limits.insert("cpu".to_owned(), json!(cpu));
    }
    let resources = json!({"requests": {"cpu": cpu, "memory": memory}, "limits": limits});
    refuse_above_pod(pod, &resources)?;
    Ok(resources)
}

/// Whether the pod is of QoS class Guaranteed by its containers: each limits CPU and memory and requests just that
/// (`pkg/apis/core/v1/helper/qos/qos.go`). Resources of the whole pod decide alone where they are given.
fn is_guaranteed(pod: &Pod<'_>) -> Result<bool, Denial> {
    if object(pod.spec, "resources")?.is_some() {
        return Ok(false);
    }
    for container in pod.all().filter(|container| container.name != CONTAINER) {
        if !is_guaranteed_container(container)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_guaranteed_container(container: &Container<'_>) -> Result<bool, Denial> {
    let Some(resources) = object(container.value, "resources")? else {
        return Ok(false);
    };
    for name in RESOURCES {
        let Some(limit) = amount(resources, "limits", name)? else {
            return Ok(false);
        };
        let request = amount(resources, "requests", name)?;
        if !limit.is_positive() || request.is_some_and(|request| request != limit) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Refuses where the pod's own limits are smaller than the sidecar's: the API server would, with a message that does not
/// name our annotations.
fn refuse_above_pod(pod: &Pod<'_>, ours: &Value) -> Result<(), Denial> {
    let Some(of_pod) = object(pod.spec, "resources")? else {
        return Ok(());
    };
    let ours = Tree::of(ours)?;
    for kind in ["requests", "limits"] {
        for name in RESOURCES {
            let (pod, own) = (
                amount(of_pod, kind, name)?,
                amount(ours.root(), kind, name)?,
            );
            if let (Some(pod), Some(own)) = (pod, own)
                && own > pod
            {
                let message = format!(
                    "spec.resources.{kind}.{name} of the pod is {pod}, the sidecar alone takes {own}; raise it, or lower \
                     the sidecar's with annotation tollgate.dev/{name}"
                );
                return Err(Denial::new(Reason::PodResources, message));
            }
        }
    }
    Ok(())
}

/// One amount of a container's or pod's resources.
fn amount(resources: Json<'_>, kind: &str, name: &str) -> Result<Option<Quantity>, Denial> {
    let amounts = object(resources, kind)?;
    Ok(amounts.and_then(|amounts| Quantity::read(amounts.get(name))))
}

/// The first amount in `actual` that is lower than `wanted`'s, as `requests.memory`. A request that is not there is its limit;
/// a limit that is not there limits nothing.
pub(crate) fn lowered(
    actual: Option<Json<'_>>,
    wanted: Option<Json<'_>>,
) -> Result<Option<String>, Denial> {
    let amount =
        |of: Option<Json<'_>>, kind, name| of.map_or(Ok(None), |of| amount(of, kind, name));
    for kind in ["requests", "limits"] {
        for name in RESOURCES {
            let Some(floor) = amount(wanted, kind, name)? else {
                continue;
            };
            let found = match amount(actual, kind, name)? {
                None if kind == "limits" => continue,
                None => amount(actual, "limits", name)?,
                found => found,
            };
            if found.is_none_or(|found| found < floor) {
                return Ok(Some(format!("{kind}.{name}")));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowered_names_the_amount() {
        let wanted =
            json!({"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}});
        let with = |requests: Value, limits: Value| json!({"requests": requests, "limits": limits});
        for (actual, expected) in [
            (wanted.clone(), None),
            (
                with(
                    json!({"cpu": "1", "memory": "1Gi"}),
                    json!({"memory": "1Gi", "cpu": "1"}),
                ),
                None,
            ),
            (
                with(json!({"cpu": "10m", "memory": "32Mi"}), json!({})),
                None,
            ),
            (with(json!({}), json!({"cpu": "1", "memory": "1Gi"})), None),
            (json!({}), Some("requests.cpu")),
            (
                with(
                    json!({"cpu": "9m", "memory": "32Mi"}),
                    json!({"memory": "128Mi"}),
                ),
                Some("requests.cpu"),
            ),
            (
                with(
                    json!({"cpu": "10m", "memory": "32Mi"}),
                    json!({"memory": "64Mi"}),
                ),
                Some("limits.memory"),
            ),
        ] {
            let (actual, wanted) = (Tree::of(&actual).unwrap(), Tree::of(&wanted).unwrap());
            let found = lowered(Some(actual.root()), Some(wanted.root())).unwrap();
            assert_eq!(found.as_deref(), expected, "{actual:?}");
        }
    }
}
