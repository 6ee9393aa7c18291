//! Standalone mode, for a workstation or a CI job: the same gate before a kubeconfig's credential. It serves until it is told to
//! end, or as long as a command runs behind it. Standard output is the command's; without one it has one line, to paste into a
//! shell.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tollgate_shared::drain;
use tollgate_shared::signals::Signals;

use crate::app::App;
use crate::child;
use crate::config::{Bound, Config, Standalone, Target};

/// Name of the agent's kubeconfig in its folder.
const KUBECONFIG: &str = "kubeconfig";

/// Runs the sidecar, and behind it the command, if there is one. Returns the exit code.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(
    config: &Config,
    standalone: &Standalone,
    command: &[OsString],
    environment: &[(String, String)],
) -> anyhow::Result<u8> {
    let folders = Folders::prepare(config.clone(), &standalone.temporary)?;
    say_binding(&config.target, config.settings.token_ttl.seconds());
    if command.is_empty() {
        serve(&folders).await
    } else {
        wrap(&folders, command, environment).await
    }
}

async fn serve(folders: &Folders) -> anyhow::Result<u8> {
    let signals = Signals::install()?;
    let (drain, watch) = drain::channel();
    let work = async {
        let app = App::start(&folders.config, watch).await?.proved().await?;
        announce(&folders.kubeconfig())?;
        app.run().await;
        Ok(0)
    };
    tokio::select! {
        ended = work => ended,
        aborted = signals.run(drain) => Err(aborted.into()),
    }
}

async fn wrap(
    folders: &Folders,
    command: &[OsString],
    environment: &[(String, String)],
) -> anyhow::Result<u8> {
    let mut signals = child::Signals::install()?;
    let (drain, watch) = drain::channel();
    let app = tokio::select! {
        app = async { App::start(&folders.config, watch).await?.proved().await } => app?,
        signal = signals.next() => return Ok(child::code_of(signal)),
    };
    match child::start(command, environment, &folders.kubeconfig()) {
        Ok(mut child) => {
            let work = async {
                let status = child::wait(&mut child, &mut signals).await;
                drain.signal();
                status
            };
            let (status, ()) = tokio::join!(work, app.run());
            Ok(child::code(status?))
        }
        Err((code, message)) => {
            tracing::error!("{message}");
            drain.signal();
            app.run().await;
            Ok(code)
        }
    }
}

/// The one line on standard output. A reader that has gone needs none.
fn announce(kubeconfig: &Path) -> anyhow::Result<()> {
    let path = kubeconfig.to_str().context("a path that is no text")?;
    let line = format!("export KUBECONFIG='{}'\n", path.replace('\'', r"'\''"));
    match io::stdout().write_all(line.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// What becomes of a token that leaks is to be known before it does.
fn say_binding(target: &Target, seconds: u32) {
    let Target {
        namespace, account, ..
    } = target;
    match &target.bound {
        Bound::Secret(name) => tracing::warn!(
            "tokens of {namespace}/{account} are bound to the Secret {name}: a leaked one ends with it, or after {seconds} s; there \
             is no pod to bind to"
        ),
        Bound::Node(name) => tracing::warn!(
            "tokens of {namespace}/{account} are bound to the node {name}: a leaked one ends with it, or after {seconds} s; there is \
             no pod to bind to"
        ),
        Bound::Nothing | Bound::Pod { .. } => tracing::warn!(
            "tokens of {namespace}/{account} are bound to nothing: a leaked one works for {seconds} s; there is no pod to bind to, \
             and --bound-to names something else"
        ),
    }
}

/// The folders of one run. Temporary ones go with it.
struct Folders {
    config: Config,
    _temporary: Option<TempDir>,
    /// One sidecar at a time may continue a chain.
    _lock: File,
}

impl Folders {
    fn prepare(config: Config, temporary: &Path) -> anyhow::Result<Self> {
        let temporary = if config.lacks_folders() {
            let made = tempfile::Builder::new()
                .prefix("tollgate-")
                .tempdir_in(temporary);
            Some(made.with_context(|| {
                format!("cannot make a folder in {} (TMPDIR)", temporary.display())
            })?)
        } else {
            None
        };
        let config = match &temporary {
            Some(folder) => config.with_folders_in(folder.path()),
            None => config,
        };
        make(&config.agent_dir, "--agent-dir")?;
        make(&config.state_dir, "--state-dir")?;
        // Clients may run elsewhere.
        let config = Config {
            agent_dir: std::path::absolute(&config.agent_dir)?,
            ..config
        };
        Ok(Self {
            _lock: lock(&config.state_dir)?,
            config,
            _temporary: temporary,
        })
    }

    fn kubeconfig(&self) -> PathBuf {
        self.config.agent_dir.join(KUBECONFIG)
    }
}

/// A folder that nobody else looks into; one that is there stays as it is.
fn make(folder: &Path, knob: &str) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("cannot make {} ({knob})", folder.display()))
}

fn lock(state_dir: &Path) -> anyhow::Result<File> {
    let path = state_dir.join("lock");
    let failed = || format!("cannot use {} (--state-dir)", path.display());
    let file = File::create(&path).with_context(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another sidecar uses {} (--state-dir): give each its own",
            state_dir.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sidecar_at_a_time_uses_a_state_folder() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        let error = lock(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another sidecar uses"), "{error}");
        drop(held);
        lock(folder.path()).unwrap();
    }
}
