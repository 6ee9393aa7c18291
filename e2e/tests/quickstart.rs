//! What the README promises, in its words: apply the manifests, label a namespace, run a pod. Nothing else, and its first call works.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use kube::api::LogParams;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tollgate_e2e::cluster::Cluster;
use tollgate_e2e::installed::Installed;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::wait;

/// Runs kubectl with these arguments, between spaces, and this input; its output.
async fn kubectl(cluster: &Cluster, arguments: &str, input: &str) -> anyhow::Result<String> {
    let kubeconfig = &cluster.config.kubeconfig;
    // The cluster's own, where `make kind-up` made it.
    let own = kubeconfig.with_file_name("kubectl");
    let program = if own.is_file() {
        own.as_path()
    } else {
        Path::new("kubectl")
    };
    let mut child = Command::new(program)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(arguments.split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("kubectl")?;
    let mut stdin = child.stdin.take().context("no pipe")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl {arguments}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn labelling_a_namespace_is_enough() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let (cluster, x) = (&namespace.cluster, &namespace.name);
        let manifests = Installed::read(&cluster.client).await?.manifests()?;
        kubectl(
            cluster,
            "apply --server-side --force-conflicts -f -",
            &manifests,
        )
        .await?;
        let label = format!("label namespace {x} tollgate.dev/injection=enabled");
        kubectl(cluster, &label, "").await?;
        // Its first call is its only one: a second try would hide that the first failed.
        let image = &cluster.config.agent_image;
        let run = format!(
            "run agent -n {x} --image={image} --restart=Never -- kubectl auth whoami -o yaml"
        );
        kubectl(cluster, &run, "").await?;
        let phase = wait::ended(namespace.pods(), "agent").await?;
        let params = LogParams {
            container: Some("agent".to_owned()),
            ..LogParams::default()
        };
        let said = namespace.pods().logs("agent", &params).await?;
        assert_eq!(phase, "Succeeded", "{said}");
        let user = format!("username: system:serviceaccount:{x}:default");
        assert!(said.contains(&user), "{said}");
        Ok(())
    })
    .await
}
