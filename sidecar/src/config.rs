//! The sidecar's configuration: the only reader of flags and environment. Every knob is both a flag (`--token-ttl`) and a
//! variable (`TOLLGATE_TOKEN_TTL`); a flag wins. All faults are reported at once.
//!
//! A kubeconfig makes it standalone mode (`standalone.rs`); what belongs to one mode is refused in the other, here and nowhere
//! else.

mod knobs;
mod standalone;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::{Authority, Uri};
use tollgate_shared::contract::{
    AGENT_PATH, BOOTSTRAP_PATH, Binding, LocalAuth, STATE_PATH, Settings,
};
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
        /// See [`BOOTSTRAP_PATH`].
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
    /// See [`AGENT_PATH`].
    pub agent_dir: PathBuf,
    /// See [`STATE_PATH`].
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

    fn pod(knobs: &mut Knobs, environment: &BTreeMap<String, String>) -> Self {
        let settings = Settings::from_knobs(knobs);
        let pod = pod(knobs, &settings);
        check_pod(&pod, &settings, knobs);
        let target = target(&pod, &settings);
        let place = Place::Pod {
            pod,
            api_server: api_server(knobs, environment),
            bootstrap_dir: path(knobs, "bootstrap-dir", BOOTSTRAP_PATH),
        };
        let folders = [("agent-dir", AGENT_PATH), ("state-dir", STATE_PATH)];
        let folders = folders.map(|(knob, default)| path(knobs, knob, default));
        Self::with(
            knobs,
            settings,
            place,
            target,
            folders,
            RecordTarget::Stdout,
        )
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

/// Rules of a pod's settings that need more than one knob.
fn check_pod(pod: &Pod, settings: &Settings, knobs: &mut Knobs) {
    let Settings {
        binding,
        service_account,
        local_auth,
        containers,
        ..
    } = settings;
    if *local_auth == LocalAuth::Token && containers.is_empty() {
        knobs.fault(
            "containers",
            "is missing: it names the containers that get a local token",
        );
    }
    for name in containers {
        if !is_dns_label(name) {
            knobs.fault("containers", &format!("{name:?} is no name of a container"));
        }
    }
    let other = service_account
        .as_ref()
        .is_some_and(|name| *name != pod.service_account);
    if other && *binding == Binding::Pod {
        // `token.go`: "cannot bind token for serviceaccount to pod running with different serviceaccount name".
        knobs.fault("binding", "must be node where service-account is not the pod's own: the API server refuses a pod binding");
    }
}

/// RFC 1123 label: a container's name is one, and only so may it become a folder.
fn is_dns_label(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 63
        && edge(name.chars().next())
        && edge(name.chars().next_back())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn pod(knobs: &mut Knobs, settings: &Settings) -> Pod {
    let pod = Pod {
        namespace: knobs.required("namespace"),
        name: knobs.required("pod-name"),
        uid: knobs.required("pod-uid"),
        service_account: knobs.required("pod-service-account"),
        node: knobs.text("node-name"),
    };
    if settings.binding == Binding::Node && pod.node.is_none() {
        knobs.fault(
            "node-name",
            "is missing: tokens are to be bound to the node",
        );
    }
    pod
}

fn target(pod: &Pod, settings: &Settings) -> Target {
    let bound = match settings.binding {
        Binding::Pod => Bound::Pod {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
        },
        // A fault where it is missing.
        Binding::Node => Bound::Node(pod.node.clone().unwrap_or_default()),
    };
    let account = settings.service_account.as_ref();
    Target {
        namespace: pod.namespace.clone(),
        account: account.unwrap_or(&pod.service_account).clone(),
        bound,
    }
}

fn api_server(knobs: &mut Knobs, environment: &BTreeMap<String, String>) -> Authority {
    let none = || Authority::from_static("invalid:443");
    if let Some(url) = knobs.optional::<Uri>("api-server") {
        let plain = url.path() == "/" && url.query().is_none();
        return match url.authority() {
            Some(authority) if url.scheme_str() == Some("https") && plain => authority.clone(),
            _ => {
                knobs.fault("api-server", "is not of the form https://HOST:PORT");
                none()
            }
        };
    }
    let kubernetes = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let (Some(host), Some(port)) = (
        kubernetes("KUBERNETES_SERVICE_HOST"),
        kubernetes("KUBERNETES_SERVICE_PORT"),
    ) else {
        knobs.fault(
            "api-server",
            "is missing, and KUBERNETES_SERVICE_HOST and _PORT are not set",
        );
        return none();
    };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.clone()
    };
    format!("{host}:{port}").parse().unwrap_or_else(|_| {
        knobs.fault(
            "api-server",
            "is missing, and KUBERNETES_SERVICE_HOST and _PORT make no address",
        );
        none()
    })
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
