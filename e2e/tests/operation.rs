//! The webhook as a platform team runs it: certificates that heal, restarts that lose nothing. These tests change what the whole
//! cluster shares, so they run one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tollgate_e2e::cluster::Cluster;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::wait;
use tollgate_shared::contract::{CONTAINER, Injection, SYSTEM_NAMESPACE, WEBHOOK_NAME};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const SECRET: &str = "tollgate-webhook-ca";

fn pod() -> Pod {
    let pod = json!({
        "metadata": {"generateName": "review-"},
        "spec": {"containers": [{"name": "agent", "image": "agent:none"}]},
    });
    serde_json::from_value(pod).unwrap_or_default()
}

/// Asks for a pod that is not stored; whether it comes back with the sidecar in it.
async fn is_injected(pods: &Api<Pod>) -> kube::Result<bool> {
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pod = pods.create(&dry_run, &pod()).await?;
    let spec = pod.spec.unwrap_or_default();
    Ok(spec
        .init_containers
        .iter()
        .flatten()
        .any(|container| container.name == CONTAINER))
}

fn authority(secret: Option<&Secret>) -> Option<Vec<u8>> {
    let data = secret?.data.as_ref()?;
    Some(data.get("ca.crt")?.0.clone())
}

#[tokio::test]
async fn the_webhook_keeps_itself_trusted() -> anyhow::Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        let client = namespace.client();
        let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(client);
        let before = secrets.get(SECRET).await?;
        assert!(is_injected(&namespace.pods()).await?);

        // Nobody's edit of the Secret reaches what is served; once it is away, the authority in memory is written again.
        let broken = Patch::Merge(json!({"data": {"ca.crt": "eA=="}}));
        secrets
            .patch(SECRET, &PatchParams::default(), &broken)
            .await?;
        assert!(is_injected(&namespace.pods()).await?);
        secrets.delete(SECRET, &DeleteParams::default()).await?;
        wait::until(secrets, SECRET, "the authority is written again", |found| {
            authority(found) == authority(Some(&before))
        })
        .await?;

        let mut stripped = configurations.get(WEBHOOK_NAME).await?;
        for webhook in stripped.webhooks.iter_mut().flatten() {
            webhook.client_config.ca_bundle = None;
        }
        configurations
            .replace(WEBHOOK_NAME, &PostParams::default(), &stripped)
            .await?;
        wait::until(
            configurations,
            WEBHOOK_NAME,
            "the caBundle is written again",
            |found| {
                let webhooks = found
                    .and_then(|found| found.webhooks.as_deref())
                    .unwrap_or_default();
                webhooks
                    .iter()
                    .all(|webhook| webhook.client_config.ca_bundle.is_some())
            },
        )
        .await?;
        until_injected(&namespace.pods()).await
    })
    .await
}

/// API servers take a changed configuration within moments.
async fn until_injected(pods: &Api<Pod>) -> anyhow::Result<()> {
    let injected = async {
        while !matches!(is_injected(pods).await, Ok(true)) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(wait::LIMIT, injected).await?;
    Ok(())
}

#[tokio::test]
async fn a_rolling_restart_under_load_loses_no_review() -> anyhow::Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    TestNamespace::run(Some(Injection::Enforced), async |namespace| {
        let done = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..10 {
            clients.spawn(creates(namespace.pods(), Arc::clone(&done)));
        }
        let restarted = restart(&namespace.cluster).await;
        done.store(true, Ordering::SeqCst);
        let mut injected = 0;
        while let Some(ended) = clients.join_next().await {
            injected += ended??;
        }
        restarted?;
        assert!(injected >= 500, "only {injected} creates");
        Ok(())
    })
    .await
}

/// Creates until `done`, at least fifty; how many.
async fn creates(pods: Api<Pod>, done: Arc<AtomicBool>) -> anyhow::Result<usize> {
    let mut count = 0;
    while count < 50 || !done.load(Ordering::SeqCst) {
        anyhow::ensure!(is_injected(&pods).await?, "create {count} came back bare");
        count += 1;
    }
    Ok(count)
}

/// Restarts every replica, as `kubectl rollout restart` does, and waits for the end of it.
async fn restart(cluster: &Cluster) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), SYSTEM_NAMESPACE);
    let found = deployments.get(WEBHOOK_NAME).await?;
    let mark = json!({"tollgate.dev/e2e-restart": found.resource_version()});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": mark}}}});
    let patch = Patch::Merge(patch);
    let restarted = deployments
        .patch(WEBHOOK_NAME, &PatchParams::default(), &patch)
        .await?;
    let wanted = restarted.metadata.generation;
    wait::until(deployments, WEBHOOK_NAME, "the restart is over", |found| {
        let Some(found) = found else { return false };
        let replicas = found.spec.as_ref().and_then(|spec| spec.replicas);
        let Some(status) = &found.status else {
            return false;
        };
        status.observed_generation >= wanted
            && status.updated_replicas == replicas
            && status.replicas == replicas
            && status.available_replicas == replicas
    })
    .await?;
    Ok(())
}
