//! The webhook as a platform team runs it: certificates that heal, restarts that lose nothing. These tests change what the whole
//! cluster shares, so they run one after the other.

mod drift;
mod settings;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::Mutex;
use tollgate_e2e::cluster::Cluster;
use tollgate_e2e::load::{is_injected, under_load, until_injected};
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::wait;
use tollgate_shared::contract::{Injection, SYSTEM_NAMESPACE, WEBHOOK_NAME, WEBHOOK_PORT};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const SECRET: &str = "tollgate-webhook-ca";

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
            configurations.clone(),
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
        let written = configurations.get(WEBHOOK_NAME).await?;
        let managers = written.managed_fields().iter();
        let managers: Vec<&str> = managers
            .filter_map(|entry| entry.manager.as_deref())
            .collect();
        assert!(managers.contains(&WEBHOOK_NAME), "{managers:?}");
        until_injected(&namespace.pods()).await
    })
    .await
}

/// Runs `change` while at least 500 pods are created; fails if one create fails or comes back without the sidecar.
async fn lose_none(
    namespace: &TestNamespace,
    change: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let injected = under_load(&namespace.pods(), change).await?;
    assert!(injected >= 500, "only {injected} creates");
    Ok(())
}

#[tokio::test]
async fn a_rolling_restart_under_load_loses_no_review() -> anyhow::Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    TestNamespace::run(Some(Injection::Enforced), async |namespace| {
        lose_none(namespace, restart(&namespace.cluster)).await
    })
    .await
}

/// An authority of somebody else's comes in place of ours, as from a restored backup: every replica takes it and gets a new leaf.
#[tokio::test]
async fn a_new_authority_and_new_leaves_under_load_lose_no_review() -> anyhow::Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    TestNamespace::run(Some(Injection::Enforced), async |namespace| {
        let client = namespace.client();
        lose_none(namespace, async {
            let ca = replace_authority(&client).await?;
            for replica in replicas(&client).await? {
                until_served(&client, &replica, &ca).await?;
            }
            Ok(())
        })
        .await?;
        lose_none(namespace, async {
            let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
            secrets.delete(SECRET, &DeleteParams::default()).await?;
            wait::until(secrets, SECRET, "the authority is written again", |found| {
                authority(found).is_some()
            })
            .await?;
            Ok(())
        })
        .await
    })
    .await
}

/// Writes a new authority into the Secret, and nothing of the old one; its certificate in PEM.
async fn replace_authority(client: &Client) -> anyhow::Result<String> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    // Two authorities of one bundle must not share a name.
    let name = format!("restored at {:?}", std::time::SystemTime::now());
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2126, 1, 1);
    let certificate = params.self_signed(&key)?.pem();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let mut secret = secrets.get(SECRET).await?;
    let pem = |text: String| k8s_openapi::ByteString(text.into());
    secret.data = Some(
        [
            ("ca.crt".to_owned(), pem(certificate.clone())),
            ("ca.key".to_owned(), pem(key.serialize_pem())),
        ]
        .into(),
    );
    secrets
        .replace(SECRET, &PostParams::default(), &secret)
        .await?;
    Ok(certificate)
}

/// Names of the webhook's pods.
async fn replicas(client: &Client) -> anyhow::Result<Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let webhooks = ListParams::default().labels("app.kubernetes.io/name=tollgate-webhook");
    let found = pods.list(&webhooks).await?;
    let running = found
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let names: Vec<String> = running.map(|pod| pod.name_any()).collect();
    anyhow::ensure!(names.len() == 2, "two replicas, not {names:?}");
    Ok(names)
}

/// Waits until this replica serves a leaf of this authority.
async fn until_served(client: &Client, replica: &str, ca: &str) -> anyhow::Result<()> {
    let config = tollgate_shared::tls::client_config(ca.as_bytes(), &[])?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let served = async {
        loop {
            let mut forward = pods.portforward(replica, &[WEBHOOK_PORT]).await?;
            let stream = forward
                .take_stream(WEBHOOK_PORT)
                .ok_or_else(|| anyhow::anyhow!("no stream to {replica}"))?;
            let name = format!("{WEBHOOK_NAME}.{SYSTEM_NAMESPACE}.svc");
            if connector.connect(name.try_into()?, stream).await.is_ok() {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(wait::LIMIT, served)
        .await
        .map_err(|_| anyhow::anyhow!("{replica} never served a leaf of the new authority"))?
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
    until_rolled_out(deployments, restarted.metadata.generation).await
}

/// Waits until every replica is of this generation of the Deployment.
async fn until_rolled_out(deployments: Api<Deployment>, wanted: Option<i64>) -> anyhow::Result<()> {
    wait::until(deployments, WEBHOOK_NAME, "the rollout is over", |found| {
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
