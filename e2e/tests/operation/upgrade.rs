//! An upgrade, and the rollback, while pods are created: for a time replicas of two releases answer, which make the sidecar
//! differently. What one of them has injected another may judge.

use k8s_openapi::api::core::v1::ConfigMap;
use tollgate_e2e::installed::{Installed, RELEASE};
use tollgate_e2e::load::injected_image;

use super::*;

const LABEL: &str = "app.kubernetes.io/name=tollgate-webhook";

/// The same bytes under other names, and another setting of the sidecar: to everything that compares, another release.
fn next(release: &Installed) -> anyhow::Result<Installed> {
    let sidecar = renamed(&release.sidecar)?;
    let config = json!({"image": sidecar, "defaults": {"logLevel": "debug"}});
    Ok(Installed {
        webhook: renamed(&release.webhook)?,
        release: config.to_string(),
        sidecar,
    })
}

/// Changes what `kubectl apply` of this release's manifests changes, in their order, and waits until no replica of another
/// release is left.
async fn roll_out(release: &Installed, client: &Client) -> anyhow::Result<()> {
    let params = PatchParams::default();
    let data = Patch::Merge(json!({"data": {RELEASE: release.release}}));
    configs(client).patch(WEBHOOK_NAME, &params, &data).await?;
    let container = json!({"name": "webhook", "image": release.webhook});
    let pod = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    let rolled = deployments(client)
        .patch(WEBHOOK_NAME, &params, &Patch::Strategic(pod))
        .await?;
    until_rolled_out(deployments(client), rolled.metadata.generation).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    for pod in pods.list(&ListParams::default().labels(LABEL)).await? {
        if pod.metadata.deletion_timestamp.is_some() {
            let name = pod.name_any();
            wait::until(pods.clone(), &name, "it is gone", |pod| pod.is_none()).await?;
        }
    }
    Ok(())
}

fn deployments(client: &Client) -> Api<Deployment> {
    Api::namespaced(client.clone(), SYSTEM_NAMESPACE)
}

fn configs(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), SYSTEM_NAMESPACE)
}

/// Another name of an image, for the same node or registry.
fn renamed(image: &str) -> anyhow::Result<String> {
    match image.split_once('/') {
        None => Ok(format!("docker.io/library/{image}")),
        Some(("docker.io", path)) => Ok(path.trim_start_matches("library/").to_owned()),
        Some((host, path)) if !host.contains(':') => Ok(format!("{host}:443/{path}")),
        Some(_) => anyhow::bail!("no other name for {image} is known"),
    }
}

#[tokio::test]
async fn an_upgrade_and_a_rollback_under_load_lose_no_review() -> anyhow::Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    TestNamespace::run(Some(Injection::Enforced), async |namespace| {
        let client = namespace.client();
        let old = Installed::read(&client).await?;
        let new = next(&old)?;
        assert!(old.webhook != new.webhook && old.sidecar != new.sidecar);
        let upgraded = lose_none(namespace, roll_out(&new, &client)).await;
        let image = injected_image(&namespace.pods()).await;
        let rolled_back = lose_none(namespace, roll_out(&old, &client)).await;
        upgraded?;
        rolled_back?;
        assert_eq!(image?.as_ref(), Some(&new.sidecar));
        let image = injected_image(&namespace.pods()).await?;
        assert_eq!(image, Some(old.sidecar));
        Ok(())
    })
    .await
}
