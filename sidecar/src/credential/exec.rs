//! Exec plugins: programs that print an `ExecCredential` of `client.authentication.k8s.io`, as client-go runs them
//! (`client-go/plugin/pkg/client/auth/exec`). One runs at a time, without a terminal and under a deadline, with its whole process
//! group; what it printed is used until it expires or the API server refuses it.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Mutex;
use tollgate_shared::secret::Token;
use tollgate_shared::tls::Identity;

use super::Shown;
use super::login::{self, Connector};
use crate::kubeconfig::{ExecVersion, Plugin};

/// Larger than any certificate chain with a key.
const ANSWER_LIMIT: u64 = 256 * 1024;

/// A plugin with what it printed last.
pub(super) struct Exec {
    plugin: Plugin,
    /// `KUBERNETES_EXEC_INFO`.
    info: String,
    connector: Connector,
    limit: Duration,
    held: Mutex<Option<Held>>,
}

struct Held {
    shown: Shown,
    expires: Option<OffsetDateTime>,
}

/// What a plugin printed.
struct Printed {
    token: Option<Token>,
    identity: Option<Identity>,
    expires: Option<OffsetDateTime>,
}

/// Has no `Debug`: it holds secrets.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential {
    kind: Option<String>,
    api_version: Option<String>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<String>,
}

impl Exec {
    pub(super) fn new(
        plugin: Plugin,
        cluster: Value,
        connector: Connector,
        limit: Duration,
    ) -> Self {
        let mut spec = json!({ "interactive": false });
        if let (true, Some(spec)) = (plugin.wants_cluster, spec.as_object_mut()) {
            spec.insert("cluster".to_owned(), cluster);
        }
        let info = json!({
            "apiVersion": plugin.version.as_str(),
            "kind": "ExecCredential",
            "spec": spec,
        });
        Self {
            plugin,
            info: info.to_string(),
            connector,
            limit,
            held: Mutex::default(),
        }
    }

    pub(super) async fn get(&self) -> Result<Shown, String> {
        self.get_at(OffsetDateTime::now_utc()).await
    }

    async fn get_at(&self, now: OffsetDateTime) -> Result<Shown, String> {
        let mut held = self.held.lock().await;
        match &*held {
            Some(held) if held.expires.is_none_or(|end| now < end) => Ok(held.shown.clone()),
            _ => self.renew_in(&mut held).await,
        }
    }

    /// Runs the plugin again, unless another call did so since the refused credential was printed.
    pub(super) async fn renew(&self, refused: &Shown) -> Result<Shown, String> {
        let mut held = self.held.lock().await;
        match &*held {
            Some(held) if held.shown.generation != refused.generation => Ok(held.shown.clone()),
            _ => self.renew_in(&mut held).await,
        }
    }

    async fn renew_in(&self, held: &mut Option<Held>) -> Result<Shown, String> {
        let generation = held.as_ref().map_or(0, |held| held.shown.generation) + 1;
        let named = |message: String| {
            format!(
                "the kubeconfig's exec plugin {} {message}",
                self.plugin.command.display()
            )
        };
        let output = self.run().await.map_err(named)?;
        let printed = parse(&output, self.plugin.version, OffsetDateTime::now_utc());
        let printed = printed.map_err(|message| named(message.to_owned()))?;
        let connections = match printed.identity {
            Some(identity) => {
                let connections = self.connector.connect(Some(identity));
                Some(Arc::new(connections.map_err(|error| {
                    named(format!("printed a certificate of no use: {error}"))
                })?))
            }
            None => None,
        };
        let shown = Shown {
            bearer: printed.token.as_ref().map(Token::bearer),
            connections,
            generation,
        };
        *held = Some(Held {
            shown: shown.clone(),
            expires: printed.expires,
        });
        Ok(shown)
    }

    async fn run(&self) -> Result<Vec<u8>, String> {
        self.run_until(tokio::time::sleep(self.limit)).await
    }

    /// What the plugin prints before the end of its time; its standard error is ours, as in kubectl.
    async fn run_until(&self, end: impl Future<Output = ()>) -> Result<Vec<u8>, String> {
        let Plugin {
            command, args, env, ..
        } = &self.plugin;
        let mut child = tokio::process::Command::new(command)
            .args(args)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .env("KUBERNETES_EXEC_INFO", &self.info)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.not_started(&error))?;
        let group = Group::of(&child);
        let work = async {
            let mut output = Vec::new();
            if let Some(stdout) = child.stdout.take() {
                let mut stdout = stdout.take(ANSWER_LIMIT + 1);
                stdout.read_to_end(&mut output).await?;
            }
            Ok::<_, std::io::Error>((child.wait().await?, output))
        };
        let ended = tokio::select! {
            ended = work => ended,
            () = end => {
                return Err(format!(
                    "did not end within {} s (--mint-timeout); run it by hand to see what it waits for",
                    self.limit.as_secs_f32()
                ));
            }
        };
        let (status, output) =
            ended.map_err(|error| format!("could not be waited for: {error}"))?;
        group.ended();
        // First, because one that still prints when nobody reads any more fails by that.
        if output.len() as u64 > ANSWER_LIMIT {
            return Err(format!("printed more than {ANSWER_LIMIT} bytes"));
        }
        if !status.success() {
            return Err(format!("failed ({status}); run it by hand to see why"));
        }
        Ok(output)
    }

    fn not_started(&self, error: &std::io::Error) -> String {
        let hint = self.plugin.install_hint.as_ref();
        let hint = hint.filter(|_| error.kind() == std::io::ErrorKind::NotFound);
        let hint = hint.map_or_else(String::new, |hint| format!("; {}", hint.trim()));
        format!("does not start: {error}{hint}")
    }
}

/// Kills a plugin with everything that it started, unless it has ended by itself.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended in this very moment, which is no matter.
            kill_process_group(group, Signal::KILL).unwrap_or_default();
        }
    }
}

/// Reads what a plugin printed. No error repeats any of it.
fn parse(
    output: &[u8],
    version: ExecVersion,
    now: OffsetDateTime,
) -> Result<Printed, &'static str> {
    let credential: ExecCredential = serde_json::from_slice(output)
        .map_err(|_| "printed something else than an ExecCredential in JSON")?;
    if credential.kind.as_deref() != Some("ExecCredential") {
        return Err("printed something else than an ExecCredential: kind says so");
    }
    if credential.api_version.as_deref() != Some(version.as_str()) {
        return Err("printed another apiVersion than the kubeconfig's exec.apiVersion");
    }
    let status = credential
        .status
        .ok_or("printed an ExecCredential without a status")?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let token = match given(status.token) {
        Some(token) => {
            Some(Token::parse(&token).map_err(|_| "printed a token that cannot be one")?)
        }
        None => None,
    };
    let identity = match (
        given(status.client_certificate_data),
        given(status.client_key_data),
    ) {
        (Some(certificate), Some(key)) => Some(
            login::parse(certificate.as_bytes(), key.as_bytes())
                .map_err(|_| "printed a certificate or key that is no PEM")?,
        ),
        (None, None) => None,
        _ => return Err("printed a certificate without its key, or a key without its certificate"),
    };
    if token.is_none() && identity.is_none() {
        return Err("printed neither a token nor a certificate");
    }
    let expires = match given(status.expiration_timestamp) {
        Some(text) => Some(
            OffsetDateTime::parse(&text, &Rfc3339)
                .map_err(|_| "printed an expirationTimestamp that is no RFC 3339 time")?,
        ),
        None => None,
    };
    if expires.is_some_and(|expires| expires <= now) {
        return Err(
            "printed a credential that has expired already; log in again, and look at the clock of this machine",
        );
    }
    Ok(Printed {
        token,
        identity,
        expires,
    })
}

#[cfg(test)]
mod tests;
