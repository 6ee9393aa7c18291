//! `tollgate-e2e scan` on ordinary pods, which no webhook has touched: it must find what is there before its silence counts.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;
use tollgate_e2e::agent::{AGENT, Agent, AgentPod};
use tollgate_e2e::namespace::TestNamespace;
use tollgate_shared::contract::SERVICE_ACCOUNT_PATH;

/// End of [`SERVICE_ACCOUNT_PATH`]: in most images `/var/run` is a link to `/run`.
const MOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount/..";

/// Runs the program on a pod.
fn scan(agent: &Agent) -> anyhow::Result<(Option<i32>, String)> {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(Path::new(env!("CARGO_BIN_EXE_tollgate-e2e")))
        .args(["scan", &agent.name, "--namespace", &agent.namespace.name])
        .output()?;
    let text = String::from_utf8([stdout, stderr].concat())?;
    assert!(!text.contains("eyJ"), "a token was printed");
    Ok((status.code(), text))
}

/// A pod in a namespace that is not managed.
fn ordinary(namespace: &TestNamespace) -> AgentPod {
    AgentPod::new("ordinary", &namespace.cluster.config.agent_image)
}

#[tokio::test]
async fn finds_tokens_in_files_processes_and_mounts() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let agent = ordinary(namespace).start(namespace).await?;
        agent
            .sh(&format!(
                "cp {SERVICE_ACCOUNT_PATH}/token '/tmp/a copy'; \
                 TOKEN=$(cat {SERVICE_ACCOUNT_PATH}/token) setsid sleep 1000 >/dev/null 2>&1 </dev/null &
                 until cat /proc/[0-9]*/environ 2>/dev/null | grep -q TOKEN=eyJ; do sleep 0.1; done"
            ))
            .await?
            .success()?;
        let (code, text) = scan(&agent)?;
        assert_eq!(code, Some(1), "{text}");
        let user = format!("system:serviceaccount:{}:default", namespace.name);
        for part in ["/tmp/a copy", "/environ", MOUNT, &user] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn passes_what_holds_no_accepted_token() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let agent = ordinary(namespace)
            .spec("automountServiceAccountToken", json!(false))
            .start(namespace)
            .await?;
        // Shaped like a token, and nobody's.
        agent
            .sh("echo eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2lnbmF0dXJl >/tmp/forged")
            .await?
            .success()?;
        let (code, text) = scan(&agent)?;
        assert_eq!(code, Some(0), "{text}");
        assert!(
            text.contains("1 distinct strings shaped like a token"),
            "{text}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn walks_without_find() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let agent = ordinary(namespace)
            .container_field("env", json!([{"name": "PATH", "value": "/tmp/bin"}]))
            .container_field("command", json!(["/bin/sleep", "infinity"]))
            .start(namespace)
            .await?;
        agent
            .exec(&[
                "/bin/sh",
                "-c",
                "/bin/mkdir /tmp/bin && /bin/ln -s /bin/sh /bin/cat /tmp/bin",
            ])
            .await?
            .success()?;
        let (code, text) = scan(&agent)?;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(MOUNT), "{text}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn says_what_it_could_not_walk() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let agent = ordinary(namespace)
            .spec("automountServiceAccountToken", json!(false))
            .container_field("env", json!([{"name": "PATH", "value": "/nowhere"}]))
            .container_field("command", json!(["/bin/sleep", "infinity"]))
            .init_container("first", &["true"])
            .start(namespace)
            .await?;
        let (code, text) = scan(&agent)?;
        assert_eq!(code, Some(2), "{text}");
        for part in [
            "first: COULD NOT BE WALKED: it has ended",
            &format!("{AGENT}: COULD NOT BE WALKED: `sh` cannot be run in it"),
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        Ok(())
    })
    .await
}
