//! Every name, path, port and setting that crosses a boundary: between the webhook and the sidecar, between us and
//! the user, between us and the cluster. One place, so that a test can hold manifests and code against each other.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::duration::GoDuration;
use crate::knobs::Knobs;

/// API group, and the prefix of every label and annotation.
pub const GROUP: &str = "tollgate.dev";
/// Version of the API group.
pub const API_VERSION: &str = "v1alpha1";
/// Namespace of the webhook.
pub const SYSTEM_NAMESPACE: &str = "tollgate-system";
/// Name of the webhook's Deployment, Service and webhook configurations.
pub const WEBHOOK_NAME: &str = "tollgate-webhook";
/// ConfigMap of the operator's own settings, beside the one that each release brings, which has the webhook's name.
pub const SETTINGS: &str = "tollgate-settings";
/// ClusterRole that the RoleBinding of a managed namespace refers to.
pub const AGENT_CLUSTER_ROLE: &str = "tollgate-agent";
/// Name of the RoleBinding in a managed namespace.
pub const ROLE_BINDING: &str = "tollgate";

/// Label of every object that we install or make, so that nothing of ours can be overlooked.
pub const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "tollgate");

/// Namespace label; its values are [`Injection`].
pub const NAMESPACE_LABEL: &str = "tollgate.dev/injection";
/// Pod label: `"true"` or `"false"`.
pub const POD_LABEL: &str = "tollgate.dev/inject";
/// Written by the webhook: version and settings digest. Informative, never trusted as proof.
pub const INJECTED_ANNOTATION: &str = "tollgate.dev/injected";
/// Written by the webhook for its own second stage: after which configuration a replica made the sidecar. Not in [`GROUP`]'s own
/// prefix: a release that does not know an annotation there denies it.
pub const VOUCHER_ANNOTATION: &str = "webhook.tollgate.dev/voucher";

/// Pod annotations that a user may set. Each takes one bounded, typed scalar.
pub mod annotation {
    /// Life of a minted token, a Go duration between 600s and 3600s.
    pub const TOKEN_TTL: &str = "tollgate.dev/token-ttl";
    /// `on-demand` or `ahead`.
    pub const MINT: &str = "tollgate.dev/mint";
    /// Service account to mint for, in the pod's namespace.
    pub const SERVICE_ACCOUNT: &str = "tollgate.dev/service-account";
    /// Port of the API proxy on loopback.
    pub const PORT: &str = "tollgate.dev/port";
    /// `token` or `none`.
    pub const LOCAL_AUTH: &str = "tollgate.dev/local-auth";
    /// `error`, `warn`, `info` or `debug`.
    pub const LOG_LEVEL: &str = "tollgate.dev/log-level";
    /// CPU request of the sidecar, a Kubernetes quantity.
    pub const CPU: &str = "tollgate.dev/cpu";
    /// Memory request and limit of the sidecar, a Kubernetes quantity.
    pub const MEMORY: &str = "tollgate.dev/memory";
    /// All of them.
    pub const ALL: [&str; 8] = [
        TOKEN_TTL,
        MINT,
        SERVICE_ACCOUNT,
        PORT,
        LOCAL_AUTH,
        LOG_LEVEL,
        CPU,
        MEMORY,
    ];
}

/// Name of the sidecar container; reserved.
pub const CONTAINER: &str = "tollgate";
/// Projected volume with the bootstrap token, the cluster CA and the namespace; mounted by the sidecar alone.
pub const BOOTSTRAP_VOLUME: &str = "tollgate-bootstrap";
/// Memory volume with the agent's files, one folder for each agent container.
pub const AGENT_VOLUME: &str = "tollgate-agent";
/// Memory volume with the sidecar's CA, the head of the record chain and the open calls.
pub const STATE_VOLUME: &str = "tollgate-state";
/// Names of volumes that a user may not use.
pub const RESERVED_VOLUMES: [&str; 3] = [BOOTSTRAP_VOLUME, AGENT_VOLUME, STATE_VOLUME];
/// uid and gid of the sidecar, left out where the platform assigns one.
pub const UID: i64 = 64430;

/// Where the sidecar mounts [`BOOTSTRAP_VOLUME`].
pub const BOOTSTRAP_PATH: &str = "/var/run/tollgate/bootstrap";
/// Where the sidecar mounts [`AGENT_VOLUME`].
pub const AGENT_PATH: &str = "/var/run/tollgate/agent";
/// Where the sidecar mounts [`STATE_VOLUME`].
pub const STATE_PATH: &str = "/var/run/tollgate/state";
/// Where an agent container mounts its folder of [`AGENT_VOLUME`]: the path that in-cluster clients read. The ServiceAccount
/// admission plugin compares this string exactly (`plugin/pkg/admission/serviceaccount/admission.go`).
pub const SERVICE_ACCOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Life of the bootstrap token, in seconds. Never 3607: that number turns it into a token of one year
/// (`pkg/serviceaccount/claims.go`, `WarnOnlyBoundTokenExpirationSeconds`).
pub const BOOTSTRAP_TOKEN_SECONDS: i64 = 3600;
/// Prefix of a local token, known to secret scanners.
pub const LOCAL_TOKEN_PREFIX: &str = "tgl1_";

/// Port of the sidecar's API proxy on loopback.
pub const PROXY_PORT: u16 = 6443;
/// Port of both binaries' `/livez`, `/readyz` and `/metrics`.
pub const ADMIN_PORT: u16 = 6480;
/// Port of the webhook: private GKE clusters let the control plane reach 10250.
pub const WEBHOOK_PORT: u16 = 10250;

/// Prefix of every variable that we read.
pub const ENV_PREFIX: &str = "TOLLGATE_";

/// Knobs of the sidecar that the kubelet fills in: knob and field path (downward API).
pub const DOWNWARD: [(&str, &str); 5] = [
    ("namespace", "metadata.namespace"),
    ("pod-name", "metadata.name"),
    ("pod-uid", "metadata.uid"),
    ("node-name", "spec.nodeName"),
    ("pod-service-account", "spec.serviceAccountName"),
];

/// The variable that carries a knob: `token-ttl` is `TOLLGATE_TOKEN_TTL`.
#[must_use]
pub fn variable(knob: &str) -> String {
    format!(
        "{ENV_PREFIX}{}",
        knob.to_ascii_uppercase().replace('-', "_")
    )
}

/// What a namespace's label asks for, in order of strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Injection {
    /// Pods labelled `"true"`.
    OptIn,
    /// Every pod but those labelled `"false"`.
    Enabled,
    /// Every pod; `"false"` only for a pod that is token-free already.
    Enforced,
}

/// Makes an enum of fixed words: parsing, printing and the list of words for messages.
macro_rules! words {
    ($type:ident: $($variant:ident = $word:literal),+ $(,)?) => {
        impl $type {
            /// Every accepted word.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
            /// The word of this value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl FromStr for $type {
            type Err = String;
            fn from_str(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("is none of {}", Self::WORDS.join(", "))),
                }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words!(Injection: OptIn = "opt-in", Enabled = "enabled", Enforced = "enforced");

/// When a token is minted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MintMode {
    /// After the decision, for the call at hand.
    #[default]
    OnDemand,
    /// From a small stock of unused tokens, each still used once.
    Ahead,
}
words!(MintMode: OnDemand = "on-demand", Ahead = "ahead");

/// What a minted token is bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// The pod: the token dies with it.
    #[default]
    Pod,
    /// The node: needed for a service account other than the pod's own.
    Node,
}
words!(Binding: Pod = "pod", Node = "node");

/// Whether an agent container must show its local token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalAuth {
    /// It must.
    #[default]
    Token,
    /// Whoever reaches the port may call.
    None,
}
words!(LocalAuth: Token = "token", None = "none");

/// How much the sidecar logs to stderr. Records do not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// And what may fail soon.
    Warn,
    /// And what happened.
    #[default]
    Info,
    /// And why.
    Debug,
}
words!(LogLevel: Error = "error", Warn = "warn", Info = "info", Debug = "debug");

/// Life of a minted token in seconds: at least the API server's floor of 600, at most the token guard's 3600.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenTtl(u32);

impl TokenTtl {
    /// `MinTokenAgeSec` in `pkg/apis/authentication/validation/validation.go`.
    pub const FLOOR: u32 = 600;
    /// The token guard's limit.
    pub const CEILING: u32 = 3600;

    /// Seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.0
    }
}

impl Default for TokenTtl {
    fn default() -> Self {
        Self(Self::FLOOR)
    }
}

impl FromStr for TokenTtl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let duration: GoDuration = text.parse()?;
        let seconds = duration.get().as_secs();
        if duration.get().subsec_nanos() != 0 {
            return Err("has a fraction of a second".to_owned());
        }
        if seconds < u64::from(Self::FLOOR) {
            return Err(
                "is less than 600s, the shortest life that the Kubernetes API server gives a token"
                    .to_owned(),
            );
        }
        match u32::try_from(seconds) {
            Ok(seconds) if seconds <= Self::CEILING => Ok(Self(seconds)),
            _ => Err("is more than 3600s, the longest life that the token guard allows".to_owned()),
        }
    }
}

impl fmt::Display for TokenTtl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// What the webhook writes into a pod for the sidecar to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Port of the API proxy on loopback (knob `port`).
    pub port: u16,
    /// Port of the admin server (knob `admin-port`).
    pub admin_port: u16,
    /// Life of a minted token (knob `token-ttl`).
    pub token_ttl: TokenTtl,
    /// When tokens are minted (knob `mint`).
    pub mint: MintMode,
    /// What they are bound to (knob `binding`).
    pub binding: Binding,
    /// For whom; the pod's own service account where empty (knob `service-account`).
    pub service_account: Option<String>,
    /// For which audiences; the API server's own where empty (knob `audiences`).
    pub audiences: Vec<String>,
    /// Whether agents must show their local token (knob `local-auth`).
    pub local_auth: LocalAuth,
    /// Calls that a pod may make in a second; any number where there is none (knob `max-calls-per-second`).
    pub max_calls_per_second: Option<NonZeroU32>,
    /// How much is logged (knob `log-level`).
    pub log_level: LogLevel,
    /// Names of the agent containers, init containers included, in the order of the pod (knob `containers`).
    pub containers: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: PROXY_PORT,
            admin_port: ADMIN_PORT,
            token_ttl: TokenTtl::default(),
            mint: MintMode::default(),
            binding: Binding::default(),
            service_account: None,
            audiences: Vec::new(),
            local_auth: LocalAuth::default(),
            max_calls_per_second: None,
            log_level: LogLevel::default(),
            containers: Vec::new(),
        }
    }
}

impl Settings {
    /// Knobs and their values, in a fixed order; what has no value is left out.
    #[must_use]
    pub fn to_knobs(&self) -> Vec<(&'static str, String)> {
        let mut knobs = vec![
            ("port", self.port.to_string()),
            ("admin-port", self.admin_port.to_string()),
            ("token-ttl", self.token_ttl.to_string()),
            ("mint", self.mint.to_string()),
            ("binding", self.binding.to_string()),
            ("local-auth", self.local_auth.to_string()),
            ("log-level", self.log_level.to_string()),
            ("containers", self.containers.join(",")),
        ];
        if let Some(name) = &self.service_account {
            knobs.push(("service-account", name.clone()));
        }
        if let Some(cap) = self.max_calls_per_second {
            knobs.push(("max-calls-per-second", cap.to_string()));
        }
        if !self.audiences.is_empty() {
            knobs.push(("audiences", self.audiences.join(",")));
        }
        knobs
    }

    /// Reads back what [`Self::to_knobs`] wrote; errors are collected in `knobs`.
    pub fn from_knobs(knobs: &mut Knobs) -> Self {
        Self {
            port: knobs.parse("port", PROXY_PORT),
            admin_port: knobs.parse("admin-port", ADMIN_PORT),
            token_ttl: knobs.parse("token-ttl", TokenTtl::default()),
            mint: knobs.parse("mint", MintMode::default()),
            binding: knobs.parse("binding", Binding::default()),
            service_account: knobs.text("service-account"),
            audiences: knobs.list("audiences"),
            local_auth: knobs.parse("local-auth", LocalAuth::default()),
            max_calls_per_second: knobs.optional("max-calls-per-second"),
            log_level: knobs.parse("log-level", LogLevel::default()),
            containers: knobs.list("containers"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_the_pod() {
        let settings = Settings {
            port: 7443,
            admin_port: 7480,
            token_ttl: "15m".parse().unwrap(),
            mint: MintMode::Ahead,
            binding: Binding::Node,
            service_account: Some("other".to_owned()),
            audiences: vec!["a".to_owned(), "b".to_owned()],
            local_auth: LocalAuth::None,
            max_calls_per_second: NonZeroU32::new(50),
            log_level: LogLevel::Debug,
            containers: vec!["agent".to_owned(), "helper".to_owned()],
        };
        for settings in [settings, Settings::default()] {
            let variables = settings
                .to_knobs()
                .into_iter()
                .map(|(knob, value)| (variable(knob), value));
            let mut knobs = Knobs::new([], variables);
            assert_eq!(Settings::from_knobs(&mut knobs), settings);
            assert_eq!(knobs.finish(), Ok(()));
        }
    }

    #[test]
    fn token_ttl_keeps_between_floor_and_ceiling() {
        for (text, seconds) in [("600s", 600), ("10m", 600), ("1h", 3600), ("10m1s", 601)] {
            assert_eq!(
                text.parse::<TokenTtl>().map(TokenTtl::seconds),
                Ok(seconds),
                "{text}"
            );
        }
        for (text, part) in [
            ("599s", "less than 600s"),
            ("0s", "less than 600s"),
            ("1h0m1s", "more than 3600s"),
            ("3607s", "more than 3600s"),
            ("600.5s", "fraction"),
            ("600", "unit"),
            ("-10m", "negative"),
            ("", "empty"),
        ] {
            let error = text.parse::<TokenTtl>().unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn injection_is_ordered_by_strength() {
        assert!(Injection::OptIn < Injection::Enabled && Injection::Enabled < Injection::Enforced);
        assert!("Enabled".parse::<Injection>().is_err());
    }
}
