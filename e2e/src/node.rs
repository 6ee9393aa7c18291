//! What only the node can do to a container: kill its process. A privileged pod does it, in a namespace that nobody manages.

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::agent::{AGENT, AgentPod};
use crate::cluster::Cluster;
use crate::namespace::TestNamespace;
use crate::wait;

/// Sends SIGKILL to every process of a container.
///
/// # Errors
/// The container does not run, or the cluster allows no privileged pods.
pub async fn kill(cluster: &Cluster, pod: &Pod, container: &str) -> anyhow::Result<()> {
    let status = wait::container(pod, container).context("no such container")?;
    let id = status
        .container_id
        .as_deref()
        .context("the container does not run")?;
    // `containerd://0123…`
    let id = id.rsplit('/').next().unwrap_or(id);
    let script = format!(
        "killed=1; for process in /proc/[0-9]*; do \
             grep -qs {id} $process/cgroup && kill -9 ${{process#/proc/}} && killed=0; \
         done; exit $killed"
    );
    let namespace = TestNamespace::create(cluster.clone(), None).await?;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let run = async {
        let killer = AgentPod::new("kill", &cluster.config.agent_image)
            .spec("nodeName", json!(node))
            .spec("hostPID", json!(true))
            .container_field(
                "securityContext",
                json!({"privileged": true, "runAsUser": 0}),
            )
            .start(&namespace)
            .await?;
        killer
            .exec_in(AGENT, &["sh", "-c", &script])
            .await?
            .success()
    };
    let killed = run.await;
    namespace.delete().await?;
    killed.with_context(|| format!("cannot kill {container}"))?;
    Ok(())
}
