//! The sidecar's configuration: the only reader of flags and environment. Every knob is both a flag (`--token-ttl`) and a
//! variable (`TOLLGATE_TOKEN_TTL`); a flag wins. All faults are reported at once.
//!
//! A kubeconfig makes it standalone mode (`standalone.rs`); what belongs to one mode is refused in the other, here and nowhere
//! else.

mod knobs;
mod pod;
mod standalone;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::Authority;
use tollgate_shared::contract::Settings;
use tollgate_shared::duration::GoDuration;
use tollgate_shared::knobs::{BadConfig, Knobs};
use tollgate_shared::telemetry::LogFormat;

pub use self::knobs::{KNOBS, Knob};
pub use self::standalone::Standalone;

/// Who this pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, a precondition of every mint.
    pub uid: String,
    /// The service account that it runs as.
    pub service_account: String,
    /// Its node; needed where tokens are bound to it.
    pub node: Option<String>,
}

/// Whom tokens are minted for, and what they are bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Namespace of the service account.
    pub namespace: String,
    /// The service account.
    pub account: String,
    /// What its tokens die with.
    pub bound: Bound,
}

/// An object that a token dies with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A pod of the namespace.
    Pod {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// A node, by its name.
    Node(String),
    /// A Secret of the namespace, by its name.
    Secret(String),
    /// Nothing: they die with their service account.
    Nothing,
}

/// Where the sidecar runs, and by that what it mints with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a pod.
    Pod {
        /// Who we are.
        pod: Pod,
        /// Host and port of the API server.
        api_server: Authority,
        /// See [`tollgate_shared::contract::BOOTSTRAP_PATH`].
        bootstrap_dir: PathBuf,
    },
    /// On a workstation or in a CI job.
    Standalone(Standalone),
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordTarget {
    /// The container's log.
    Stdout,
    /// The log of a program whose standard output is another's.
    Stderr,
    /// A file with rotation.
    File {
        /// Path of the current file; rotated ones get `.1`, `.2`, ….
        path: PathBuf,
        /// Bytes at which it is rotated.
        size: u64,
        /// Rotated files kept.
        count: u32,
    },
}

/// The typed configuration of `tollgate-sidecar run`. It holds no secret, so it may be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the webhook decides.
    pub settings: Settings,
    /// Where it runs.
    pub place: Place,
    /// Whom tokens are minted for.
    pub target: Target,
    /// See [`tollgate_shared::contract::AGENT_PATH`].
    pub agent_dir: PathBuf,
    /// See [`tollgate_shared::contract::STATE_PATH`].
    pub state_dir: PathBuf,
    /// Where records go.
    pub record_target: RecordTarget,
    /// How long a record may take to be written.
    pub record_deadline: Duration,
    /// Whether records keep the commands of exec.
    pub record_exec_commands: bool,
    /// How old a stream may become.
    pub max_stream_age: Duration,
    /// How long an agent may make a plain call wait for its body, whatever it sends.
    pub body_grace: Duration,
    /// How many connections agents may hold.
    pub max_connections: usize,
    /// How long a mint may take.
    pub mint_timeout: Duration,
    /// How long calls may go on after SIGTERM.
    pub drain_deadline: Duration,
    /// How log lines look.
    pub log_format: LogFormat,
}

impl Config {
    /// Reads flags (knob and value) and the environment.
    ///
    /// # Errors
    /// Every fault at once.
    pub fn read<'a>(
        flags: impl IntoIterator<Item = (&'a str, String)>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, BadConfig> {
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        let mut knobs = Knobs::new(flags, environment.clone());
        let config = if standalone::is_meant(&mut knobs, &environment) {
            Self::standalone(&mut knobs, &environment)
        } else {
            Self::pod(&mut knobs, &environment)
        };
        config.check(&mut knobs);
        knobs.finish().map(|()| config)
    }

    /// What is the same in every place.
    fn with(
        knobs: &mut Knobs,
        settings: Settings,
        place: Place,
        target: Target,
        [agent_dir, state_dir]: [PathBuf; 2],
        record_target: RecordTarget,
    ) -> Self {
        let log_format = match place {
            Place::Pod { .. } => LogFormat::Json,
            Place::Standalone(_) => LogFormat::Text,
        };
        Self {
            settings,
            place,
            target,
            agent_dir,
            state_dir,
            record_target: record_file(knobs).unwrap_or(record_target),
            record_deadline: duration(knobs, "record-deadline", 2),
            record_exec_commands: knobs.parse("record-exec-commands", false),
            max_stream_age: duration(knobs, "max-stream-age", 3600),
            body_grace: duration(knobs, "body-grace", 10),
            max_connections: positive(knobs, "max-connections", 1024),
            mint_timeout: duration(knobs, "mint-timeout", 10),
            drain_deadline: duration(knobs, "drain-deadline", 2),
            log_format: knobs.parse("log-format", log_format),
        }
    }

    /// Rules that need more than one knob.
    fn check(&self, knobs: &mut Knobs) {
        let Settings {
            port, admin_port, ..
        } = &self.settings;
        if port == admin_port && *port != 0 {
            knobs.fault("admin-port", "is the port of the API proxy too");
        }
    }
}

fn record_file(knobs: &mut Knobs) -> Option<RecordTarget> {
    let size = positive(knobs, "record-file-size", 100 * 1024 * 1024);
    let count = positive(knobs, "record-file-count", 10);
    knobs.text("record-file").map(|path| RecordTarget::File {
        path: path.into(),
        size: u64::try_from(size).unwrap_or(u64::MAX),
        count: u32::try_from(count).unwrap_or(u32::MAX),
    })
}

fn path(knobs: &mut Knobs, knob: &str, default: &str) -> PathBuf {
    knobs
        .text(knob)
        .unwrap_or_else(|| default.to_owned())
        .into()
}

fn duration(knobs: &mut Knobs, knob: &str, default: u64) -> Duration {
    let duration = knobs.parse(knob, GoDuration::from_secs(default)).get();
    if duration.is_zero() {
        knobs.fault(knob, "must be more than 0");
    }
    duration
}

fn positive(knobs: &mut Knobs, knob: &str, default: usize) -> usize {
    let count = knobs.parse(knob, default);
    if count == 0 {
        knobs.fault(knob, "must be more than 0");
    }
    count
}

#[cfg(test)]
mod tests;
