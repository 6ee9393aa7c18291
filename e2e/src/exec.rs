//! Commands inside a container, through the API server's exec.

use std::fmt;

use anyhow::{Context as _, bail, ensure};
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Resource as _;
use kube::api::AttachParams;
use kube::core::Request;

// Channels of the subprotocol `v4.channel.k8s.io` and later (`k8s.io/client-go/tools/remotecommand/websocket.go`).
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

/// Where a command runs.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Client of the cluster.
    pub client: &'a kube::Client,
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Name of the pod.
    pub pod: &'a str,
    /// Name of the container.
    pub container: &'a str,
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.pod, self.container)
    }
}

/// What a command left behind.
#[derive(Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "exit code {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        )
    }
}

impl Output {
    /// Standard output of a command that succeeded.
    ///
    /// # Errors
    /// It failed; the message holds all that it wrote.
    pub fn success(self) -> anyhow::Result<String> {
        ensure!(self.code == 0, "the command failed: {self:?}");
        Ok(self.stdout)
    }

    /// Standard error of a command that failed.
    ///
    /// # Errors
    /// It succeeded; the message holds all that it wrote.
    pub fn failure(self) -> anyhow::Result<String> {
        ensure!(self.code != 0, "the command succeeded: {self:?}");
        Ok(self.stderr)
    }
}

/// Runs a command to its end.
///
/// # Errors
/// The command could not be run at all; a failed command is an [`Output`].
pub async fn run(target: Target<'_>, command: &[&str]) -> anyhow::Result<Output> {
    let mut stdout = Vec::new();
    let (code, stderr) = stream(target, command, |bytes| stdout.extend_from_slice(bytes)).await?;
    Ok(Output {
        code,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr,
    })
}

/// Runs a command to its end while `take` gets its standard output; returns exit code and standard error.
///
/// # Errors
/// The command could not be run at all.
pub async fn stream(
    target: Target<'_>,
    command: &[&str],
    mut take: impl FnMut(&[u8]),
) -> anyhow::Result<(i32, String)> {
    let program = command.first().unwrap_or(&"nothing");
    let what = || format!("exec of {program} in {}/{}", target.pod, target.container);
    let params = AttachParams::default()
        .container(target.container)
        .stdin(false)
        .stdout(true)
        .stderr(true);
    let request = Request::new(Pod::url_path(&(), Some(target.namespace)))
        .exec(target.pod, command.iter().copied(), &params)
        .with_context(what)?;
    let connection = target.client.connect(request).await.with_context(what)?;
    let mut messages = connection.into_stream();
    let mut errors = Vec::new();
    let mut status: Option<Status> = None;
    // The status may overtake the output, so only the end of the connection is the end: kube's own `Api::exec` stops at the
    // status and loses what comes after it.
    while let Some(message) = messages.next().await {
        let message = message.with_context(what)?;
        if message.is_close() {
            // The last message there is (RFC 6455, 1.4: what comes after it is discarded). The kubelet's server closes twice, from
            // two tasks (`golang.org/x/net/websocket`, Conn.Close), and where the second one is late, reading on is an error.
            break;
        }
        if !message.is_binary() {
            continue;
        }
        let data = message.into_data();
        match data.split_first() {
            Some((&STDOUT, bytes)) => take(bytes),
            Some((&STDERR, bytes)) => errors.extend_from_slice(bytes),
            Some((&STATUS, bytes)) if !bytes.is_empty() => {
                status = Some(serde_json::from_slice(bytes).with_context(what)?);
            }
            _ => {}
        }
    }
    let status = status.with_context(|| format!("{} was cut off", what()))?;
    let code = exit_code(&status).with_context(what)?;
    Ok((code, String::from_utf8_lossy(&errors).into_owned()))
}

/// The exit code in the status that ends an exec (`k8s.io/client-go/tools/remotecommand/errorstream.go`, v4).
fn exit_code(status: &Status) -> anyhow::Result<i32> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status
        .details
        .as_ref()
        .and_then(|details| details.causes.as_ref());
    let code = causes
        .into_iter()
        .flatten()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .and_then(|cause| cause.message.as_deref());
    match code {
        Some(code) => code.parse().context("the exit code is no number"),
        None => bail!("{}", status.message.as_deref().unwrap_or("no reason given")),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};

    use super::*;

    #[test]
    fn exit_codes() {
        let status = |word: &str, cause: Option<(&str, &str)>| Status {
            status: Some(word.to_owned()),
            details: cause.map(|(reason, message)| StatusDetails {
                causes: Some(vec![StatusCause {
                    reason: Some(reason.to_owned()),
                    message: Some(message.to_owned()),
                    field: None,
                }]),
                ..StatusDetails::default()
            }),
            ..Status::default()
        };
        assert_eq!(exit_code(&status("Success", None)).unwrap(), 0);
        assert_eq!(
            exit_code(&status("Failure", Some(("ExitCode", "3")))).unwrap(),
            3
        );
        assert!(exit_code(&status("Failure", None)).is_err());
        assert!(exit_code(&status("Failure", Some(("ExitCode", "x")))).is_err());
    }
}
