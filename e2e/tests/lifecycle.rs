//! What happens to a pod besides calls: the sidecar is killed, the agent's work comes to its end.

use anyhow::Context as _;
use serde_json::json;
use tollgate_e2e::agent::{Agent, AgentPod};
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::{node, wait};
use tollgate_shared::contract::{CONTAINER, Injection};

/// What the agents here may do.
fn rules() -> serde_json::Value {
    json!([{
        "apiGroups": [""],
        "resources": ["configmaps"],
        "verbs": ["get", "list", "create"],
    }])
}

#[tokio::test]
async fn a_killed_sidecar_continues_its_chain() -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        let mut log = namespace.cluster.audit_log()?;
        namespace.allow(rules()).await?;
        let agent = AgentPod::new("survivor", &namespace.cluster.config.agent_image)
            .start(namespace)
            .await?;
        agent.kubectl("get configmaps").await?.success()?;
        let before = agent.joined(log.as_mut()).await?.records.lines.len();
        let ca = agent
            .sh("cat /var/run/secrets/kubernetes.io/serviceaccount/*")
            .await?
            .success()?;
        kill_sidecar(&agent).await?;
        // Whoever read CA and token before must not be locked out.
        assert_eq!(
            agent
                .sh("cat /var/run/secrets/kubernetes.io/serviceaccount/*")
                .await?
                .success()?,
            ca
        );
        agent.kubectl("get configmaps").await?.success()?;
        let after = agent.joined(log.as_mut()).await?.records.lines.len();
        assert!(
            after > before,
            "{after} lines after the restart, {before} before"
        );
        Ok(())
    })
    .await
}

/// Kills the sidecar's process from the node, where alone that can be done, and waits until its successor is ready.
async fn kill_sidecar(agent: &Agent) -> anyhow::Result<()> {
    let namespace = &agent.namespace;
    let restarts = |pod: &k8s_openapi::api::core::v1::Pod| {
        wait::container(pod, CONTAINER).map_or(0, |status| status.restart_count)
    };
    let before = restarts(&agent.pod().await?);
    node::kill(&namespace.cluster, &agent.pod().await?, CONTAINER).await?;
    wait::until(
        namespace.pods(),
        &agent.name,
        "the sidecar runs again",
        |pod| pod.is_some_and(|pod| restarts(pod) > before && wait::is_ready(pod)),
    )
    .await?;
    Ok(())
}
#[tokio::test]
async fn a_job_completes_beside_the_sidecar() -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        namespace.allow(rules()).await?;
        let pod = AgentPod::new("once", &namespace.cluster.config.agent_image)
            .spec("restartPolicy", json!("Never"))
            .container_field(
                "command",
                json!([
                    "kubectl",
                    "create",
                    "configmap",
                    "done",
                    "--from-literal=by=job"
                ]),
            );
        let job = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "once"},
            "spec": {"backoffLimit": 0, "template": {"spec": pod.manifest()["spec"]}},
        });
        namespace
            .apply::<k8s_openapi::api::batch::v1::Job>(&job)
            .await?;
        let pod = wait::first_pod(namespace.pods(), "job-name=once").await?;
        let name = pod.metadata.name.context("a pod without a name")?;
        assert_eq!(wait::ended(namespace.pods(), &name).await?, "Succeeded");
        let made = namespace
            .api::<k8s_openapi::api::core::v1::ConfigMap>()
            .get("done")
            .await?;
        assert_eq!(made.data.context("no data")?["by"], "job");
        Ok(())
    })
    .await
}
