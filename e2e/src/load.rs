//! Pods created all the while that something changes: not one create may fail or come back without the sidecar.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::json;
use tokio::task::JoinSet;
use tollgate_shared::contract::CONTAINER;

use crate::wait;

/// Creates at a time, and by each of them at least.
const CLIENTS: usize = 20;
const EACH: usize = 25;

/// Asks for a pod that is not stored; the image of the sidecar that comes back in it.
///
/// # Errors
/// The API server refuses it.
pub async fn injected_image(pods: &Api<Pod>) -> kube::Result<Option<String>> {
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pod = pods.create(&dry_run, &pod()).await?;
    let containers = pod.spec.unwrap_or_default().init_containers;
    let mut containers = containers.into_iter().flatten();
    let sidecar = containers.find(|container| container.name == CONTAINER);
    Ok(sidecar.and_then(|sidecar| sidecar.image))
}

/// As [`injected_image`]; whether there is a sidecar in it.
///
/// # Errors
/// The API server refuses it.
pub async fn is_injected(pods: &Api<Pod>) -> kube::Result<bool> {
    Ok(injected_image(pods).await?.is_some())
}

/// Waits until pods are injected: API servers take a changed configuration, and a Service its pods, within moments.
///
/// # Errors
/// They are not.
pub async fn until_injected(pods: &Api<Pod>) -> anyhow::Result<()> {
    let injected = async {
        while !matches!(is_injected(pods).await, Ok(true)) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let injected = tokio::time::timeout(wait::LIMIT, injected).await;
    injected.context("pods are not injected")
}

fn pod() -> Pod {
    let pod = json!({
        "metadata": {"generateName": "review-"},
        "spec": {"containers": [{"name": "agent", "image": "agent:none"}]},
    });
    serde_json::from_value(pod).unwrap_or_default()
}

/// Runs `change` while pods are created, 500 at least; how many were.
///
/// # Errors
/// The change's own; a create that failed or came back without the sidecar.
pub async fn under_load(
    pods: &Api<Pod>,
    change: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<usize> {
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(creates(pods.clone(), Arc::clone(&done)));
    }
    let changed = change.await;
    done.store(true, Ordering::SeqCst);
    let mut injected = 0;
    while let Some(ended) = clients.join_next().await {
        injected += ended??;
    }
    changed?;
    Ok(injected)
}

/// Creates until `done`, at least [`EACH`]; how many.
async fn creates(pods: Api<Pod>, done: Arc<AtomicBool>) -> anyhow::Result<usize> {
    let mut count = 0;
    while count < EACH || !done.load(Ordering::SeqCst) {
        anyhow::ensure!(is_injected(&pods).await?, "create {count} came back bare");
        count += 1;
    }
    Ok(count)
}
