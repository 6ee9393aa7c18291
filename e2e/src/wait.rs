//! Waiting for the cluster: by watch, with a limit, and with a message that says what never came.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Resource;
use kube::api::Api;
use kube::runtime::wait::await_condition;
use kube::runtime::watcher;
use serde::de::DeserializeOwned;

/// Longest wait for anything that a kubelet does; generous, since only a failure takes that long.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Waits until the object fulfils `condition` (`None`: it does not exist) and returns it.
///
/// # Errors
/// It did not within [`LIMIT`]; the message ends with `what`.
pub async fn until<K>(
    api: Api<K>,
    name: &str,
    what: &str,
    condition: impl Fn(Option<&K>) -> bool,
) -> anyhow::Result<Option<K>>
where
    K: Clone + Debug + Send + DeserializeOwned + Resource + 'static,
{
    tokio::time::timeout(LIMIT, await_condition(api, name, condition))
        .await
        .map_err(|_| anyhow!("waited {} s in vain for {name}: {what}", LIMIT.as_secs()))?
        .with_context(|| format!("cannot watch {name} for: {what}"))
}

/// Waits until the pod is Ready and returns it; fails at once when it can no longer become so.
///
/// # Errors
/// The pod ended, or did not become ready within [`LIMIT`].
pub async fn ready(pods: Api<Pod>, name: &str) -> anyhow::Result<Pod> {
    let settled = |pod: Option<&Pod>| pod.is_some_and(|pod| is_ready(pod) || has_ended(pod));
    let pod = until(pods, name, "the pod is ready", settled).await?;
    match pod {
        Some(pod) if is_ready(&pod) => Ok(pod),
        Some(pod) => bail!("pod {name} ended before it was ready, {}", phase(&pod)),
        None => bail!("pod {name} is gone"),
    }
}

/// Waits until the pod has ended and returns its phase, `Succeeded` or `Failed`.
///
/// # Errors
/// It did not end within [`LIMIT`].
pub async fn ended(pods: Api<Pod>, name: &str) -> anyhow::Result<String> {
    let pod = until(pods, name, "the pod has ended", |pod| {
        pod.is_some_and(has_ended)
    })
    .await?;
    pod.map(|pod| phase(&pod).to_owned())
        .with_context(|| format!("pod {name} is gone"))
}

/// Waits for the first pod of a label selector, as made by a Job or a Deployment.
///
/// # Errors
/// None came within [`LIMIT`].
pub async fn first_pod(pods: Api<Pod>, selector: &str) -> anyhow::Result<Pod> {
    let config = watcher::Config::default().labels(selector);
    first(pods, config, &format!("a pod of {selector}"), |_| true).await
}

/// Waits for the first object that is `wanted`, and says `what` never came.
///
/// # Errors
/// None came within [`LIMIT`].
pub async fn first<K>(
    api: Api<K>,
    config: watcher::Config,
    what: &str,
    wanted: impl Fn(&K) -> bool,
) -> anyhow::Result<K>
where
    K: Clone + Debug + Send + DeserializeOwned + Resource + 'static,
{
    let find = async {
        let mut events = std::pin::pin!(watcher(api, config));
        while let Some(event) = events.try_next().await? {
            if let watcher::Event::Apply(object) | watcher::Event::InitApply(object) = event
                && wanted(&object)
            {
                return Ok(object);
            }
        }
        bail!("the watch for {what} ended")
    };
    tokio::time::timeout(LIMIT, find)
        .await
        .map_err(|_| anyhow!("waited {} s in vain for {what}", LIMIT.as_secs()))?
}

/// Whether the pod's `Ready` condition holds.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether the pod has succeeded or failed.
#[must_use]
pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// The status of a container, init containers included.
#[must_use]
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses);
    all.flatten().find(|container| container.name == name)
}

fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("without a phase")
}
