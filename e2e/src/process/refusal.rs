//! A sidecar that cannot mint: what its first try says.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use tollgate_shared::secret::Token;

use super::START;
use super::volumes::Volumes;
use crate::agent::AGENT;
use crate::audit::AuditEvent;
use crate::namespace::TestNamespace;
use crate::program::{self, SIDECAR};

/// Starts a sidecar with this bootstrap token and these further flags for a pod of this name and UID, and returns the closing line of its first try to
/// mint; ends the sidecar.
///
/// # Errors
/// There was no such line.
pub async fn first_try(
    namespace: &TestNamespace,
    (name, uid): (&str, &str),
    bootstrap: &Token,
    flags: &[&str],
) -> anyhow::Result<AuditEvent> {
    let volumes = Volumes::new(bootstrap, &namespace.ca_pem().await?)?;
    let url = namespace.cluster.connection.cluster_url.to_string();
    let own = [
        ("--port", "0"),
        ("--admin-port", "0"),
        ("--containers", AGENT),
        ("--namespace", &namespace.name),
        ("--pod-name", name),
        ("--pod-uid", uid),
        ("--pod-service-account", "default"),
        ("--api-server", &url),
    ];
    let mut child = Command::new(program::path(SIDECAR)?)
        .arg("run")
        .args(own.into_iter().flat_map(|(flag, value)| [flag, value]))
        .args(flags)
        .args(volumes.flags())
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the sidecar")?;
    let stdout = child.stdout.take().context("no standard output")?;
    let closing = tokio::task::spawn_blocking(move || {
        for line in BufReader::new(stdout).lines() {
            let event = AuditEvent::parse(&line?)?;
            if event.stage == "ResponseComplete" {
                return Ok(event);
            }
        }
        bail!("the sidecar ended")
    });
    let closing = tokio::time::timeout(START, closing).await;
    child.kill()?;
    child.wait()?;
    closing.context("the first mint has no end")??
}
