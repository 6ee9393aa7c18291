//! Not one replica of the webhook is left. What its own test of policies (`policies/outage.rs`) tries on a copy of the configurations is
//! tried here on the real ones, with what goes on without the webhook.

mod system;

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::Mutex;
use tollgate_e2e::agent::{Agent, AgentPod};
use tollgate_e2e::cluster::Cluster;
use tollgate_e2e::namespace::{TestNamespace, token_request};
use tollgate_e2e::wait;
use tollgate_shared::contract::{
    Injection, NAMESPACE_LABEL, ROLE_BINDING, SYSTEM_NAMESPACE, WEBHOOK_NAME,
};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Sets the number of replicas and waits until just so many answer; returns how many it was.
async fn scale(cluster: &Cluster, replicas: i32) -> anyhow::Result<i32> {
    let client = cluster.client.clone();
    let deployments = Api::<Deployment>::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let before = deployments.get_scale(WEBHOOK_NAME).await?;
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    deployments
        .patch_scale(WEBHOOK_NAME, &PatchParams::default(), &patch)
        .await?;
    let what = format!("{replicas} replicas are ready");
    wait::until(deployments, WEBHOOK_NAME, &what, |found| {
        let status = found.and_then(|found| found.status.as_ref());
        status.is_some_and(|status| status.available_replicas.unwrap_or(0) == replicas)
    })
    .await?;
    // An old one may still be on its way out, and answer.
    let pods = Api::<Pod>::namespaced(client, SYSTEM_NAMESPACE);
    let ours = ListParams::default().labels("app.kubernetes.io/name=tollgate-webhook");
    for pod in pods.list(&ours).await? {
        if pod.metadata.deletion_timestamp.is_some() {
            let name = pod.name_any();
            wait::until(pods.clone(), &name, "it is gone", |pod| pod.is_none()).await?;
        }
    }
    // None is how the API says zero.
    Ok(before.spec.and_then(|spec| spec.replicas).unwrap_or(0))
}

#[tokio::test]
async fn with_no_replica_left_only_new_pods_of_managed_namespaces_wait() -> anyhow::Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    TestNamespace::run(Some(Injection::Enabled), async |managed| {
        managed
            .allow(json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]))
            .await?;
        managed
            .apply::<ServiceAccount>(&json!({
                "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "other"},
            }))
            .await?;
        let agent = AgentPod::new("agent", &managed.cluster.config.agent_image)
            .start(managed)
            .await?;
        let replicas = scale(&managed.cluster, 0).await?;
        let outage = during_the_outage(managed, &agent).await;
        let back = scale(&managed.cluster, replicas).await;
        outage?;
        back?;
        let bindings = managed.api::<RoleBinding>();
        wait::until(bindings, ROLE_BINDING, "the grant ends", |found| {
            found.is_none()
        })
        .await?;
        Ok(())
    })
    .await
}

async fn during_the_outage(managed: &TestNamespace, agent: &Agent) -> anyhow::Result<()> {
    let image = &managed.cluster.config.agent_image;
    let refusal = AgentPod::new("new", image).create(managed).await;
    let refusal = format!(
        "{:#}",
        refusal.err().context("a pod without a sidecar was made")?
    );
    assert!(refusal.contains("failed calling webhook"), "{refusal}");
    TestNamespace::run(None, async |elsewhere| {
        AgentPod::new("elsewhere", image).start(elsewhere).await?;
        Ok(())
    })
    .await?;
    agent.kubectl("get configmaps").await?.success()?;

    // Nobody takes the grant away with the label; the guard goes by the marker verb.
    let namespaces = Api::<Namespace>::all(managed.client());
    let patch = json!({"metadata": {"labels": {NAMESPACE_LABEL: null}}});
    namespaces
        .patch(&managed.name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    managed.api::<RoleBinding>().get(ROLE_BINDING).await?;
    assert_eq!(mint(managed, agent, "default").await?, None);
    let refusal = mint(managed, agent, "other").await?.unwrap_or_default();
    assert!(refusal.contains("token-for-other"), "{refusal}");
    Ok(())
}

/// Asks for a token with one of the agent's pod, as its sidecar would; what it is refused with.
async fn mint(
    managed: &TestNamespace,
    agent: &Agent,
    account: &str,
) -> anyhow::Result<Option<String>> {
    let pod = agent.pod().await?;
    let token = managed.token("default", Some(&pod)).await?;
    let client = managed.cluster.client_as(Some(token.expose()))?;
    let accounts = Api::<ServiceAccount>::namespaced(client, &managed.name);
    let params = PostParams::default();
    match accounts
        .create_token_request(account, &params, &token_request(Some(&pod)))
        .await
    {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) => Ok(Some(status.message.clone())),
        Err(error) => Err(error.into()),
    }
}
