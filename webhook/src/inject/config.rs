//! What an operator may say about injection. Deserialised from a file; unknown keys are refused.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize, Serializer, ser};
use tollgate_shared::contract::{
    ADMIN_PORT, Binding, LocalAuth, LogLevel, MintMode, PROXY_PORT, Settings, TokenTtl,
};

/// What is injected, beside what the design fixes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InjectConfig {
    /// Image of the sidecar, by digest where it can be.
    pub image: String,
    /// The sidecar's `imagePullPolicy`.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,
    /// Audiences for which an agent may have a projected token of its own (`sts.amazonaws.com`, `istio-ca`, …).
    #[serde(default)]
    pub allowed_audiences: Vec<String>,
    /// Audiences that the API server accepts. A token for one of them is refused even if it is also in `allowedAudiences`.
    #[serde(default)]
    pub api_audiences: Vec<String>,
    /// Whether the sidecar gets our uid and gid. False on platforms that assign one to all containers (OpenShift).
    #[serde(default = "yes")]
    pub assign_uid: bool,
    /// What a pod gets that says nothing else in its annotations.
    #[serde(default)]
    pub defaults: Defaults,
    /// The variables by which the webhook's own pod finds the API server. Some platforms change them in every pod (Gardener), and
    /// only to these values may they be changed in a sidecar, which shows its bootstrap token there.
    #[serde(skip)]
    pub api_server: BTreeMap<String, String>,
}

/// Beginning of the names of those variables.
pub(crate) const API_SERVER_VARIABLES: &str = "KUBERNETES_SERVICE_";

impl InjectConfig {
    /// The defaults with one image.
    #[must_use]
    pub fn with_image(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            image_pull_policy: PullPolicy::default(),
            allowed_audiences: Vec::new(),
            api_audiences: Vec::new(),
            assign_uid: true,
            defaults: Defaults::default(),
            api_server: BTreeMap::new(),
        }
    }
}

/// Those variables of a pod's environment by which it finds the API server.
pub fn api_server_variables(
    environment: impl IntoIterator<Item = (String, String)>,
) -> BTreeMap<String, String> {
    let environment = environment.into_iter();
    environment
        .filter(|(name, _)| name.starts_with(API_SERVER_VARIABLES))
        .collect()
}

/// That part of a configuration after which a sidecar is made, and by which it is judged. The rest says what agents may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Shape {
    image: String,
    assign_uid: bool,
    #[serde(
        default,
        serialize_with = "changed",
        skip_serializing_if = "Defaults::are_plain"
    )]
    defaults: Defaults,
}

/// Only what differs: a release that does not know a setting yet can read a shape that does not use it.
fn changed<S: Serializer>(defaults: &Defaults, to: S) -> Result<S::Ok, S::Error> {
    let value = |defaults| serde_json::to_value(defaults).map_err(ser::Error::custom);
    let (mut all, plain) = (value(defaults)?, value(&Defaults::default())?);
    if let Some(settings) = all.as_object_mut() {
        settings.retain(|key, setting| plain.get(key) != Some(setting));
    }
    all.serialize(to)
}

impl InjectConfig {
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            image: self.image.clone(),
            assign_uid: self.assign_uid,
            defaults: self.defaults.clone(),
        }
    }

    /// This configuration, but with sidecars made after `shape`.
    pub(crate) fn with_shape(&self, shape: Shape) -> Self {
        let Shape {
            image,
            assign_uid,
            defaults,
        } = shape;
        Self {
            image,
            assign_uid,
            defaults,
            ..self.clone()
        }
    }
}

/// `imagePullPolicy` of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PullPolicy {
    /// Asks the registry each time.
    Always,
    /// Asks the registry where the node lacks the image.
    #[default]
    IfNotPresent,
    /// Never asks the registry.
    Never,
}

impl PullPolicy {
    /// The API's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Settings of a sidecar before its pod's annotations are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Defaults {
    /// Port of the API proxy on loopback.
    pub port: u16,
    /// Port of the admin server.
    pub admin_port: u16,
    /// Life of a minted token, a Go duration.
    #[serde(with = "word")]
    pub token_ttl: TokenTtl,
    /// When tokens are minted.
    #[serde(with = "word")]
    pub mint: MintMode,
    /// What minted tokens are bound to. `node` goes with the token guard's node variant.
    #[serde(with = "word")]
    pub binding: Binding,
    /// Audiences of minted tokens; empty means the API server's own.
    pub audiences: Vec<String>,
    /// Whether agents must show their local token.
    #[serde(with = "word")]
    pub local_auth: LocalAuth,
    /// Calls that a pod may make in a second; any number where there is none.
    pub max_calls_per_second: Option<NonZeroU32>,
    /// How much is logged.
    #[serde(with = "word")]
    pub log_level: LogLevel,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            port: PROXY_PORT,
            admin_port: ADMIN_PORT,
            token_ttl: TokenTtl::default(),
            mint: MintMode::default(),
            binding: Binding::default(),
            audiences: Vec::new(),
            local_auth: LocalAuth::default(),
            max_calls_per_second: None,
            log_level: LogLevel::default(),
        }
    }
}

impl Defaults {
    fn are_plain(&self) -> bool {
        *self == Self::default()
    }

    /// The settings of a pod without annotations.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            port: self.port,
            admin_port: self.admin_port,
            token_ttl: self.token_ttl,
            mint: self.mint,
            binding: self.binding,
            service_account: None,
            audiences: self.audiences.clone(),
            local_auth: self.local_auth,
            max_calls_per_second: self.max_calls_per_second,
            log_level: self.log_level,
            containers: Vec::new(),
        }
    }
}

const fn yes() -> bool {
    true
}

/// A value that is written as text.
mod word {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
        from: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(from)?;
        text.parse()
            .map_err(|error| de::Error::custom(format!("{text:?} {error}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn reads_what_an_operator_writes() {
        let config: InjectConfig = serde_json::from_value(json!({
            "image": "i@sha256:1",
            "imagePullPolicy": "Never",
            "assignUid": false,
            "defaults": {"tokenTtl": "15m", "binding": "node", "maxCallsPerSecond": 20},
        }))
        .unwrap();
        assert!(!config.assign_uid);
        assert_eq!(config.image_pull_policy, PullPolicy::Never);
        let settings = config.defaults.settings();
        assert_eq!(settings.token_ttl.seconds(), 900);
        assert_eq!(settings.binding, Binding::Node);
        assert_eq!(settings.max_calls_per_second, NonZeroU32::new(20));
        assert_eq!(settings.port, PROXY_PORT);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (config, part) in [
            (json!({}), "image"),
            (json!({"image": "i", "imagee": 1}), "imagee"),
            (json!({"image": "i", "imagePullPolicy": "Often"}), "Often"),
            (json!({"image": "i", "defaults": {"ttl": "10m"}}), "ttl"),
            (
                json!({"image": "i", "defaults": {"maxCallsPerSecond": 0}}),
                "nonzero",
            ),
            (
                json!({"image": "i", "defaults": {"tokenTtl": "5m"}}),
                "600s",
            ),
        ] {
            let read = |config: Value| serde_json::from_value::<InjectConfig>(config);
            let error = read(config).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
