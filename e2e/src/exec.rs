//! Commands inside a container, through the API server's exec.

use std::fmt;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How much of a stream waits for us before the API server is held up, in bytes.
const BUFFER: usize = 1024 * 1024;

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
pub async fn run<'a>(
    pods: &Api<Pod>,
    pod: &str,
    container: &str,
    command: impl IntoIterator<Item = &'a str>,
) -> anyhow::Result<Output> {
    let mut stdout = Vec::new();
    let (code, stderr) = stream(pods, pod, container, command, async |reader| {
        reader.read_to_end(&mut stdout).await?;
        Ok(())
    })
    .await?;
    Ok(Output {
        code,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr,
    })
}

/// Runs a command to its end while `read` takes its standard output; returns exit code and standard error.
///
/// # Errors
/// The command could not be run at all, or `read` failed.
pub async fn stream<'a>(
    pods: &Api<Pod>,
    pod: &str,
    container: &str,
    command: impl IntoIterator<Item = &'a str>,
    read: impl AsyncFnOnce(&mut (dyn AsyncRead + Send + Unpin)) -> anyhow::Result<()>,
) -> anyhow::Result<(i32, String)> {
    let params = AttachParams::default()
        .container(container)
        .stdin(false)
        .stdout(true)
        .stderr(true)
        .max_stdout_buf_size(BUFFER)
        .max_stderr_buf_size(BUFFER);
    let command: Vec<&str> = command.into_iter().collect();
    let what = || {
        format!(
            "exec of {} in {pod}/{container}",
            command.first().unwrap_or(&"")
        )
    };
    let mut process = pods
        .exec(pod, command.clone(), &params)
        .await
        .with_context(what)?;
    let mut stdout = process.stdout().context("exec without stdout")?;
    let mut stderr = process.stderr().context("exec without stderr")?;
    let status = process.take_status().context("exec without status")?;
    let mut errors = Vec::new();
    let (out, err) = tokio::join!(read(&mut stdout), stderr.read_to_end(&mut errors));
    out.with_context(what)?;
    err.with_context(what)?;
    let status = status
        .await
        .with_context(|| format!("{} was cut off", what()))?;
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
