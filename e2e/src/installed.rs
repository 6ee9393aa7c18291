//! What is installed on the cluster: the images of both programs, and what the release sets.

use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde_json::Value;
use tollgate_shared::contract::{SETTINGS, SYSTEM_NAMESPACE, WEBHOOK_NAME};

/// The part of the configuration that every release brings.
pub const RELEASE: &str = "release.yaml";

const MANIFESTS: &str = include_str!("../../manifests/install.yaml");

/// A release, as it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Image of the webhook.
    pub webhook: String,
    /// Image of the sidecar.
    pub sidecar: String,
    /// Its part of the configuration, which names the sidecar.
    pub release: String,
}

impl Installed {
    /// Reads it.
    ///
    /// # Errors
    /// It is not there, or is configured in another way than it is shipped.
    pub async fn read(client: &Client) -> anyhow::Result<Self> {
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        let pod = deployments.get(WEBHOOK_NAME).await?.spec;
        let container = pod.and_then(|spec| spec.template.spec?.containers.into_iter().next());
        let webhook = container.and_then(|container| container.image);
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        let mut data = maps.get(WEBHOOK_NAME).await?.data.unwrap_or_default();
        let release = data.remove(RELEASE).context("no release.yaml")?;
        let settings = maps.get_opt(SETTINGS).await?;
        ensure!(
            data.is_empty() && settings.is_none(),
            "the tests are for the shipped configuration, and the cluster has more: {data:?} {settings:?}"
        );
        let parsed: Value = serde_saphyr::from_str(&release)?;
        let sidecar = parsed.get("image").and_then(Value::as_str);
        Ok(Self {
            webhook: webhook.context("no image of the webhook")?,
            sidecar: sidecar.context("no image of the sidecar")?.to_owned(),
            release,
        })
    }

    /// `manifests/install.yaml` with its images, which no registry may serve.
    ///
    /// # Errors
    /// The manifests name an image in another way than this knows.
    pub fn manifests(&self) -> anyhow::Result<String> {
        let mut text = MANIFESTS.to_owned();
        for (shipped, image) in [
            ("image: tollgate-webhook:dev\n", &self.webhook),
            ("image: tollgate-sidecar:dev\n", &self.sidecar),
        ] {
            ensure!(text.matches(shipped).count() == 1, "not once: {shipped}");
            text = text.replace(shipped, &format!("image: {image}\n"));
        }
        Ok(text)
    }
}
