//! What GitOps tools compare: an object as we ship it, and as the API server gives it back. A default that the API server would fill
//! in, or a value that it writes in another way, would be drift for ever.

use anyhow::Context as _;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Client, discovery};
use serde_json::Value;
use tollgate_e2e::cluster::Cluster;
use tollgate_e2e::installed::Installed;
use tollgate_shared::contract::Injection;

/// Kinds that kubelets and controllers fill with more than we say; of these only what we say is compared.
const FILLED: [&str; 4] = ["Deployment", "Namespace", "Service", "ServiceAccount"];

/// The API for an object, by its own words.
async fn api(client: &Client, object: &Value) -> anyhow::Result<(Api<DynamicObject>, String)> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let version = text("/apiVersion").context("no apiVersion")?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = GroupVersionKind::gvk(group, version, text("/kind").context("no kind")?);
    let (resource, _) = discovery::pinned_kind(client, &kind).await?;
    let api = match text("/metadata/namespace") {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    Ok((api, text("/metadata/name").context("no name")?.to_owned()))
}

/// Where `stored` differs from `shipped`; members that only `stored` has count if `strict`.
fn differences(shipped: &Value, stored: &Value, strict: bool, path: &str, found: &mut Vec<String>) {
    match (shipped, stored) {
        (Value::Object(shipped), Value::Object(stored)) => {
            for (key, value) in shipped {
                let other = stored.get(key).unwrap_or(&Value::Null);
                differences(value, other, strict, &format!("{path}/{key}"), found);
            }
            let filled = stored.keys().filter(|key| !shipped.contains_key(*key));
            if strict {
                found.extend(filled.map(|key| format!("{path}/{key} is filled in")));
            }
        }
        (Value::Array(shipped), Value::Array(stored)) if shipped.len() == stored.len() => {
            for (index, (value, other)) in shipped.iter().zip(stored).enumerate() {
                differences(value, other, strict, &format!("{path}/{index}"), found);
            }
        }
        _ if shipped == stored => {}
        _ => {
            let head = |value: &Value| value.to_string().chars().take(120).collect::<String>();
            let (shipped, stored) = (head(shipped), head(stored));
            found.push(format!("{path}: {shipped} is stored as {stored}"));
        }
    }
}

/// The object without what the API server, controllers and the webhook write into it by design.
fn without_what_others_write(mut object: Value) -> Value {
    let mut remove = |parent: &str, key: &str| {
        if let Some(Value::Object(parent)) = object.pointer_mut(parent) {
            parent.remove(key);
        }
    };
    for key in [
        "managedFields",
        "resourceVersion",
        "uid",
        "creationTimestamp",
        "generation",
    ] {
        remove("/metadata", key);
    }
    remove("", "status");
    for index in 0..Injection::WORDS.len() {
        // By the webhook, or by the injector of cert-manager.
        remove(&format!("/webhooks/{index}/clientConfig"), "caBundle");
    }
    let is_guard = object.pointer("/metadata/name") == Some(&"tollgate-guard".into());
    if let Value::Object(members) = &mut object
        && is_guard
    {
        members.remove("data");
    }
    object
}

#[tokio::test]
async fn nothing_that_we_ship_drifts() -> anyhow::Result<()> {
    let _one = crate::ONE_AT_A_TIME.lock().await;
    let client = Cluster::connect().await?.client;
    let mut found = Vec::new();
    let shipped = Installed::read(&client).await?.manifests()?;
    for shipped in serde_saphyr::from_multiple::<Value>(&shipped)? {
        let (api, name) = api(&client, &shipped).await?;
        let kind = shipped["kind"].as_str().unwrap_or_default().to_owned();
        let stored = without_what_others_write(serde_json::to_value(api.get(&name).await?)?);
        let strict = !FILLED.contains(&kind.as_str());
        let path = format!("{kind} {name}: ");
        for (key, value) in shipped.as_object().into_iter().flatten() {
            // kubectl and controllers leave annotations of their own.
            let strict = strict && key != "metadata";
            differences(
                value,
                &stored[key],
                strict,
                &format!("{path}/{key}"),
                &mut found,
            );
        }

        // As somebody else who applies it without looking: nothing changes.
        let params = PatchParams {
            dry_run: true,
            ..PatchParams::apply("e2e-gitops").force()
        };
        let applied = api.patch(&name, &params, &Patch::Apply(&shipped)).await;
        let applied = applied.with_context(|| path.clone())?;
        let applied = without_what_others_write(serde_json::to_value(applied)?);
        differences(
            &stored,
            &applied,
            true,
            &format!("{path}applied again, "),
            &mut found,
        );
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}
