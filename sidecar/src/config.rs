//! The sidecar's configuration: the only reader of flags and environment. Every knob is both a flag (`--token-ttl`) and a
//! variable (`TOLLGATE_TOKEN_TTL`); a flag wins. All faults are reported at once.

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

/// A knob, for `--help`: its name, the form of its value, what it does.
pub struct Knob {
    /// As in `--name`.
    pub name: &'static str,
    /// What a value looks like.
    pub value: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
}

const fn knob(name: &'static str, value: &'static str, help: &'static str) -> Knob {
    Knob { name, value, help }
}

/// Every knob of `tollgate-sidecar run`.
pub const KNOBS: &[Knob] = &[
    knob(
        "port",
        "PORT",
        "Port of the API proxy on loopback [default: 6443]",
    ),
    knob(
        "admin-port",
        "PORT",
        "Port of /livez, /readyz and /metrics [default: 6480]",
    ),
    knob(
        "token-ttl",
        "DURATION",
        "Life of a minted token, 600s to 3600s [default: 600s]",
    ),
    knob(
        "mint",
        "MODE",
        "When tokens are minted: on-demand or ahead [default: on-demand]",
    ),
    knob(
        "binding",
        "KIND",
        "What tokens are bound to: pod or node [default: pod]",
    ),
    knob(
        "service-account",
        "NAME",
        "Mint for this service account of the namespace [default: the pod's own]",
    ),
    knob(
        "audiences",
        "LIST",
        "Audiences of the tokens, between commas [default: the API server's own]",
    ),
    knob(
        "local-auth",
        "MODE",
        "Whether agents must show their local token: token or none [default: token]",
    ),
    knob(
        "containers",
        "LIST",
        "Names of the agent containers, between commas",
    ),
    knob(
        "log-level",
        "LEVEL",
        "error, warn, info or debug; goes to stderr [default: info]",
    ),
    knob("log-format", "FORMAT", "json or text [default: json]"),
    knob("namespace", "NAME", "Namespace of this pod"),
    knob("pod-name", "NAME", "Name of this pod"),
    knob("pod-uid", "UID", "UID of this pod"),
    knob("pod-service-account", "NAME", "Service account of this pod"),
    knob("node-name", "NAME", "Node of this pod"),
    knob(
        "api-server",
        "URL",
        "The API server [default: from KUBERNETES_SERVICE_HOST and _PORT]",
    ),
    knob(
        "bootstrap-dir",
        "DIR",
        "Folder with the bootstrap token and the cluster's CA",
    ),
    knob(
        "agent-dir",
        "DIR",
        "Folder for the agents' files, one folder a container",
    ),
    knob("state-dir", "DIR", "Folder for what survives a restart"),
    knob(
        "record-file",
        "FILE",
        "Write records to this file, with fsync and rotation, instead of stdout",
    ),
    knob(
        "record-file-size",
        "BYTES",
        "Rotate the record file at this size [default: 104857600]",
    ),
    knob(
        "record-file-count",
        "COUNT",
        "Keep this many rotated record files [default: 10]",
    ),
    knob(
        "record-deadline",
        "DURATION",
        "Refuse a call whose record takes longer to write [default: 2s]",
    ),
    knob(
        "record-exec-commands",
        "BOOL",
        "Keep the commands of exec in records: true or false [default: false]",
    ),
    knob(
        "max-stream-age",
        "DURATION",
        "Cut watches, logs, exec and port-forwards at this age [default: 1h]",
    ),
    knob(
        "body-grace",
        "DURATION",
        "Refuse a call that waits longer for its body; each KiB buys a second more [default: 10s]",
    ),
    knob(
        "max-connections",
        "COUNT",
        "Connections of agents at a time [default: 1024]",
    ),
    knob(
        "mint-timeout",
        "DURATION",
        "Refuse a call whose token takes longer to mint [default: 10s]",
    ),
    knob(
        "drain-deadline",
        "DURATION",
        "Cut what still runs this long after SIGTERM [default: 2s]",
    ),
];

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
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordTarget {
    /// The container's log.
    Stdout,
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
    /// Who we are.
    pub pod: Pod,
    /// Whom tokens are minted for.
    pub target: Target,
    /// Host and port of the API server.
    pub api_server: Authority,
    /// See [`BOOTSTRAP_PATH`].
    pub bootstrap_dir: PathBuf,
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
        let kubernetes = |name: &str| {
            environment
                .get(name)
                .filter(|value| !value.is_empty())
                .cloned()
        };
        let (host, port) = (
            kubernetes("KUBERNETES_SERVICE_HOST"),
            kubernetes("KUBERNETES_SERVICE_PORT"),
        );
        let mut knobs = Knobs::new(flags, environment);
        let settings = Settings::from_knobs(&mut knobs);
        let pod = pod(&mut knobs, &settings);
        let config = Self {
            target: target(&pod, &settings),
            pod,
            settings,
            api_server: api_server(&mut knobs, host, port),
            bootstrap_dir: path(&mut knobs, "bootstrap-dir", BOOTSTRAP_PATH),
            agent_dir: path(&mut knobs, "agent-dir", AGENT_PATH),
            state_dir: path(&mut knobs, "state-dir", STATE_PATH),
            record_target: record_target(&mut knobs),
            record_deadline: duration(&mut knobs, "record-deadline", 2),
            record_exec_commands: knobs.parse("record-exec-commands", false),
            max_stream_age: duration(&mut knobs, "max-stream-age", 3600),
            body_grace: duration(&mut knobs, "body-grace", 10),
            max_connections: positive(&mut knobs, "max-connections", 1024),
            mint_timeout: duration(&mut knobs, "mint-timeout", 10),
            drain_deadline: duration(&mut knobs, "drain-deadline", 2),
            log_format: knobs.parse("log-format", LogFormat::default()),
        };
        config.check(&mut knobs);
        knobs.finish().map(|()| config)
    }

    /// Rules that need more than one knob.
    fn check(&self, knobs: &mut Knobs) {
        let Settings {
            port,
            admin_port,
            binding,
            service_account,
            local_auth,
            containers,
            ..
        } = &self.settings;
        if port == admin_port && *port != 0 {
            knobs.fault("admin-port", "is the port of the API proxy too");
        }
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
            .is_some_and(|name| *name != self.pod.service_account);
        if other && *binding == Binding::Pod {
            // `token.go`: "cannot bind token for serviceaccount to pod running with different serviceaccount name".
            knobs.fault("binding", "must be node where service-account is not the pod's own: the API server refuses a pod binding");
        }
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

fn api_server(knobs: &mut Knobs, host: Option<String>, port: Option<String>) -> Authority {
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
    let (Some(host), Some(port)) = (host, port) else {
        knobs.fault(
            "api-server",
            "is missing, and KUBERNETES_SERVICE_HOST and _PORT are not set",
        );
        return none();
    };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    format!("{host}:{port}").parse().unwrap_or_else(|_| {
        knobs.fault(
            "api-server",
            "is missing, and KUBERNETES_SERVICE_HOST and _PORT make no address",
        );
        none()
    })
}

fn record_target(knobs: &mut Knobs) -> RecordTarget {
    let size = positive(knobs, "record-file-size", 100 * 1024 * 1024);
    let count = positive(knobs, "record-file-count", 10);
    match knobs.text("record-file") {
        Some(path) => RecordTarget::File {
            path: path.into(),
            size: u64::try_from(size).unwrap_or(u64::MAX),
            count: u32::try_from(count).unwrap_or(u32::MAX),
        },
        None => RecordTarget::Stdout,
    }
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
mod tests {
    use super::*;
    use tollgate_shared::contract::{DOWNWARD, variable};

    fn environment(extra: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = DOWNWARD
            .iter()
            .map(|(knob, _)| (variable(knob), format!("some-{knob}")))
            .collect();
        all.push(("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned()));
        all.push(("KUBERNETES_SERVICE_PORT".to_owned(), "443".to_owned()));
        all.push(("TOLLGATE_CONTAINERS".to_owned(), "agent".to_owned()));
        all.extend(
            extra
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        all
    }

    fn faults(extra: &[(&str, &str)]) -> String {
        Config::read([], environment(extra))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_a_pod_gives_is_enough() {
        let config = Config::read([], environment(&[])).unwrap();
        assert_eq!(config.api_server, "10.96.0.1:443");
        assert_eq!(config.pod.name, "some-pod-name");
        assert_eq!(config.settings.token_ttl.seconds(), 600);
        assert_eq!(config.record_target, RecordTarget::Stdout);
    }

    #[test]
    fn an_ipv6_service_is_bracketed() {
        let config =
            Config::read([], environment(&[("KUBERNETES_SERVICE_HOST", "fd00::1")])).unwrap();
        assert_eq!(config.api_server, "[fd00::1]:443");
    }

    #[test]
    fn every_fault_names_its_knob() {
        for (name, value, part) in [
            ("TOLLGATE_TOKEN_TTL", "599s", "less than 600s"),
            ("TOLLGATE_TOKEN_TTL", "300", "unit"),
            ("TOLLGATE_PORT", "0x", "invalid digit"),
            ("TOLLGATE_ADMIN_PORT", "6443", "port of the API proxy"),
            ("TOLLGATE_CONTAINERS", "../etc", "no name of a container"),
            ("TOLLGATE_CONTAINERS", "a,,b", "empty word"),
            ("TOLLGATE_SERVICE_ACCOUNT", "other", "must be node"),
            ("TOLLGATE_API_SERVER", "http://x", "https://HOST:PORT"),
            ("TOLLGATE_API_SERVER", "https://x/y", "https://HOST:PORT"),
            ("TOLLGATE_MINT", "sometimes", "on-demand, ahead"),
            ("TOLLGATE_LOG_LEVEL", "trace", "error, warn, info, debug"),
            ("TOLLGATE_MAX_STREAM_AGE", "0s", "more than 0"),
            ("TOLLGATE_MAX_CONNECTIONS", "0", "more than 0"),
            ("TOLLGATE_TOKEN_TLT", "600s", "no setting of this program"),
            ("TOLLGATE_POD_UID", "", "is empty"),
        ] {
            let message = faults(&[(name, value)]);
            assert!(message.contains(part), "{name}={value}: {message}");
        }
    }

    #[test]
    fn an_empty_environment_names_all_that_is_missing() {
        let message = Config::read([], []).unwrap_err().to_string();
        for knob in [
            "NAMESPACE",
            "POD_NAME",
            "POD_UID",
            "POD_SERVICE_ACCOUNT",
            "API_SERVER",
            "CONTAINERS",
        ] {
            assert!(
                message.contains(&format!("TOLLGATE_{knob}")),
                "{knob}: {message}"
            );
        }
    }

    #[test]
    fn every_knob_is_known_by_its_flag() {
        for knob in KNOBS {
            let message = match Config::read([(knob.name, String::new())], environment(&[])) {
                Ok(_) => continue,
                Err(error) => error.to_string(),
            };
            assert!(!message.contains("no setting"), "{}: {message}", knob.name);
        }
    }
}
