//! An injected pod, read back from the API server and looked at from inside.

use std::collections::BTreeSet;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::json;
use tollgate_e2e::agent::{AGENT, AgentPod};
use tollgate_e2e::namespace::TestNamespace;
use tollgate_shared::contract::{
    AGENT_VOLUME, BOOTSTRAP_VOLUME, CONTAINER, Injection, POD_LABEL, RESERVED_VOLUMES,
    SERVICE_ACCOUNT_PATH,
};

fn spec(pod: &Pod) -> anyhow::Result<&PodSpec> {
    pod.spec.as_ref().context("a pod without a spec")
}

fn agent_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    all.filter(|container| container.name != CONTAINER)
}

/// Names of the volumes that carry a token of any kind.
fn token_volumes(spec: &PodSpec) -> BTreeSet<&str> {
    let volumes = spec.volumes.iter().flatten();
    let carries = volumes.filter(|volume| {
        let sources = volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten());
        volume.secret.is_some()
            || sources
                .into_iter()
                .any(|source| source.service_account_token.is_some())
    });
    carries.map(|volume| volume.name.as_str()).collect()
}

/// What the API server stored, also after it ran its own admission a second time over our change.
fn check_shape(pod: &Pod) -> anyhow::Result<()> {
    let spec = spec(pod)?;
    let first = spec
        .init_containers
        .iter()
        .flatten()
        .next()
        .context("no init container")?;
    assert_eq!(
        (first.name.as_str(), first.restart_policy.as_deref()),
        (CONTAINER, Some("Always"))
    );
    assert_eq!(spec.automount_service_account_token, Some(false));
    assert_eq!(token_volumes(spec), BTreeSet::from([BOOTSTRAP_VOLUME]));
    for container in agent_containers(spec) {
        let mounts: Vec<_> = container.volume_mounts.iter().flatten().collect();
        let ours: Vec<_> = mounts
            .iter()
            .filter(|mount| RESERVED_VOLUMES.contains(&mount.name.as_str()))
            .map(|mount| {
                (
                    mount.name.as_str(),
                    mount.mount_path.as_str(),
                    mount.sub_path.as_deref(),
                    mount.read_only,
                )
            })
            .collect();
        let wanted = (
            AGENT_VOLUME,
            SERVICE_ACCOUNT_PATH,
            Some(container.name.as_str()),
            Some(true),
        );
        assert_eq!(ours, [wanted], "mounts of {}", container.name);
        assert!(
            !mounts
                .iter()
                .any(|mount| token_volumes(spec).contains(mount.name.as_str())),
            "{} mounts a token",
            container.name
        );
    }
    Ok(())
}

#[tokio::test]
async fn no_container_but_ours_holds_a_credential() -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        let image = &namespace.cluster.config.agent_image;
        // Two agents, and an init container that works until it is told to end.
        let agent = AgentPod::new("several", image)
            .container("second", &["sleep", "infinity"])
            .init_container(
                "first",
                &["sh", "-c", "until [ -e /tmp/end ]; do sleep 0.2; done"],
            )
            .create(namespace)
            .await?;
        tollgate_e2e::wait::until(
            namespace.pods(),
            &agent.name,
            "the init container runs",
            |pod| {
                let status = pod.and_then(|pod| tollgate_e2e::wait::container(pod, "first"));
                status
                    .and_then(|status| status.state.as_ref())
                    .is_some_and(|state| state.running.is_some())
            },
        )
        .await?;
        check_shape(&agent.pod().await?)?;
        let early = agent.scan().await?;
        assert_eq!(early.findings, []);
        let walked: Vec<_> = early.walked.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(walked, ["first"], "{:?}", early.not_walked);

        // The container may end before this command's own end is known; what follows waits for its effect.
        drop(agent.exec_in("first", &["touch", "/tmp/end"]).await);
        let pod = tollgate_e2e::wait::ready(namespace.pods(), &agent.name).await?;
        check_shape(&pod)?;
        let late = agent.scan().await?;
        assert_eq!(late.findings, []);
        let walked: Vec<_> = late.walked.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(walked, [AGENT, "second"], "{:?}", late.not_walked);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn each_container_has_its_own_files() -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        let agent = AgentPod::new("files", &namespace.cluster.config.agent_image)
            .container("second", &["sleep", "infinity"])
            .start(namespace)
            .await?;
        let mut tokens = BTreeSet::new();
        for container in [AGENT, "second"] {
            let read = async |file: &str| {
                let path = format!("{SERVICE_ACCOUNT_PATH}/{file}");
                agent.exec_in(container, &["cat", &path]).await?.success()
            };
            let token = read("token").await?;
            assert!(
                token.starts_with("tgl1_") && !token.ends_with('\n'),
                "{container}"
            );
            assert!(
                !token.contains('.'),
                "the local token of {container} looks like a JWT"
            );
            tokens.insert(token);
            assert_eq!(read("namespace").await?, namespace.name);
            assert!(
                read("ca.crt")
                    .await?
                    .starts_with("-----BEGIN CERTIFICATE-----")
            );
            let listed = agent
                .exec_in(container, &["ls", SERVICE_ACCOUNT_PATH])
                .await?
                .success()?;
            let files: Vec<_> = listed.split_whitespace().collect();
            assert_eq!(files, ["ca.crt", "kubeconfig", "namespace", "token"]);
            let write = format!("echo x >{SERVICE_ACCOUNT_PATH}/token");
            agent
                .exec_in(container, &["sh", "-c", &write])
                .await?
                .failure()?;
        }
        assert_eq!(tokens.len(), 2, "two containers share a local token");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn labels_choose_what_is_injected() -> anyhow::Result<()> {
    for (injection, label, injected) in [
        (Injection::OptIn, None, false),
        (Injection::OptIn, Some("true"), true),
        (Injection::Enabled, Some("false"), false),
        (Injection::Enforced, None, true),
    ] {
        TestNamespace::run(Some(injection), async |namespace| {
            let mut pod = AgentPod::new("pod", &namespace.cluster.config.agent_image);
            if let Some(label) = label {
                pod = pod.label(POD_LABEL, label);
            }
            // It need not run: the shape is what counts. Nothing schedules it.
            let agent = pod
                .spec("schedulerName", json!("nobody"))
                .create(namespace)
                .await?;
            let pod = agent.pod().await?;
            let ours = spec(&pod)?
                .init_containers
                .iter()
                .flatten()
                .any(|container| container.name == CONTAINER);
            assert_eq!(ours, injected, "{injection} {label:?}");
            if injected {
                check_shape(&pod)?;
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}
