//! The webhook's configuration: the only reader of flags, environment and the configuration file. All faults are reported at
//! once; the file is read again when it changes, and the last good one is kept.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tollgate_shared::contract::{ADMIN_PORT, LogLevel, WEBHOOK_PORT};
use tollgate_shared::knobs::{BadConfig, Knobs};
use tollgate_shared::telemetry::LogFormat;

use crate::inject::InjectConfig;
use crate::metrics::Metrics;
use crate::yaml;

/// Where the ConfigMap is mounted.
const FILE: &str = "/etc/tollgate/config.yaml";

/// How often the file is looked at. Its content is compared: a mounted ConfigMap changes by a swap of symbolic links, which a
/// watch on the file would not see.
pub const LOOK: Duration = Duration::from_secs(5);

/// The largest file; a ConfigMap holds no more.
const FILE_LIMIT: u64 = 1024 * 1024;

/// Settings of the process.
#[derive(Debug)]
pub struct Config {
    /// Where reviews are answered.
    pub address: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub admin_address: SocketAddr,
    /// How much is logged.
    pub log_level: LogLevel,
    /// How it looks.
    pub log_format: LogFormat,
    /// Folder with `tls.crt` and `tls.key`; without it the webhook makes its own certificates.
    pub certificate_dir: Option<PathBuf>,
    /// The configuration file, with what it says now.
    pub file: File,
}

impl Config {
    /// Reads flags (knob and value), the environment and the configuration file.
    ///
    /// # Errors
    /// Every fault of all three.
    pub fn read(flags: &[(&'static str, String)]) -> Result<Self, BadConfig> {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the place that reads the environment"
        )]
        let variables = std::env::vars();
        Self::from(flags, variables)
    }

    fn from(
        flags: &[(&'static str, String)],
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, BadConfig> {
        let flags = flags.iter().map(|(knob, value)| (*knob, value.clone()));
        let mut knobs = Knobs::new(flags, variables);
        let everywhere = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let address = knobs.parse("address", everywhere(WEBHOOK_PORT));
        let admin_address = knobs.parse("admin-address", everywhere(ADMIN_PORT));
        let log_level = knobs.parse("log-level", LogLevel::default());
        let log_format = knobs.parse("log-format", LogFormat::default());
        let certificate_dir = knobs.optional("certificate-dir");
        let path = knobs.parse("config", PathBuf::from(FILE));
        let file = File::open(path).map_err(|faults| {
            for fault in faults {
                knobs.fault("config", &fault);
            }
        });
        knobs.finish()?;
        // Without faults there is a file.
        let file = file.map_err(|()| BadConfig(Vec::new()))?;
        Ok(Self {
            address,
            admin_address,
            log_level,
            log_format,
            certificate_dir,
            file,
        })
    }
}

/// The configuration file, last seen good.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    seen: Result<Vec<u8>, String>,
    current: watch::Sender<Arc<InjectConfig>>,
}

impl File {
    /// Reads the file.
    ///
    /// # Errors
    /// Every fault, each with the file's name.
    pub fn open(path: PathBuf) -> Result<Self, Vec<String>> {
        let seen = read(&path);
        let config = match &seen {
            Ok(bytes) => parse(bytes).map_err(|faults| named(&path, faults))?,
            Err(error) => return Err(named(&path, vec![error.clone()])),
        };
        let (current, _) = watch::channel(Arc::new(config));
        Ok(Self {
            path,
            seen,
            current,
        })
    }

    /// What the file says, now and later.
    #[must_use]
    pub fn current(&self) -> watch::Receiver<Arc<InjectConfig>> {
        self.current.subscribe()
    }

    /// Looks at the file for ever.
    pub async fn run(mut self, metrics: Metrics, look: Duration) {
        loop {
            tokio::time::sleep(look).await;
            self.look(&metrics);
        }
    }

    /// Takes the file if it has changed and is good.
    fn look(&mut self, metrics: &Metrics) {
        let seen = read(&self.path);
        if seen == self.seen {
            return;
        }
        let parsed = match &seen {
            Ok(bytes) => parse(bytes),
            Err(error) => Err(vec![error.clone()]),
        };
        self.seen = seen;
        metrics.reloaded(parsed.is_ok());
        match parsed {
            Ok(config) => {
                self.current.send_replace(Arc::new(config));
                tracing::info!(file = %self.path.display(), "took the changed configuration");
            }
            Err(faults) => {
                let faults = named(&self.path, faults).join("; ");
                tracing::error!(%faults, "the changed configuration is refused; the last good one is kept");
            }
        }
    }
}

/// Reads a file once.
///
/// # Errors
/// Every fault, each with the file's name.
pub fn read_file(path: &Path) -> Result<InjectConfig, Vec<String>> {
    let bytes = read(path).map_err(|error| named(path, vec![error]))?;
    parse(&bytes).map_err(|faults| named(path, faults))
}

fn named(path: &Path, faults: Vec<String>) -> Vec<String> {
    let name = |fault| format!("{}: {fault}", path.display());
    faults.into_iter().map(name).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if size.len() > FILE_LIMIT {
        return Err(format!("is larger than {FILE_LIMIT} bytes"));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

/// Reads the file's content.
///
/// # Errors
/// Every fault that can be told apart.
pub fn parse(bytes: &[u8]) -> Result<InjectConfig, Vec<String>> {
    let text = std::str::from_utf8(bytes).map_err(|_| vec!["is not UTF-8".to_owned()])?;
    let value: Value = serde_saphyr::from_str(text).map_err(|error| vec![yaml::fault(&error)])?;
    let Value::Object(members) = value else {
        return Err(vec!["is no mapping of settings".to_owned()]);
    };
    let config = settings(&members);
    let mut faults = match &config {
        Ok(config) => unusable(config),
        Err(error) => member_faults(&members).unwrap_or_else(|| vec![error.to_string()]),
    };
    match config {
        Ok(config) if faults.is_empty() => Ok(config),
        _ => {
            faults.dedup();
            Err(faults)
        }
    }
}

/// One fault for each setting that is bad by itself, those of `defaults` too; `None` if each by itself is good.
fn member_faults(members: &Map<String, Value>) -> Option<Vec<String>> {
    let mut faults = Vec::new();
    let mut check = |place: &str, alone: Map<String, Value>| {
        if let Err(error) = settings(&alone) {
            faults.push(format!("{place}: {error}"));
        }
    };
    if !members.contains_key("image") {
        check("image", Map::new());
    }
    for (key, value) in members {
        match (key.as_str(), value) {
            ("defaults", Value::Object(defaults)) => {
                for (key, value) in defaults {
                    let one = json!({ key: value });
                    check(&format!("defaults.{key}"), alone("defaults", one));
                }
            }
            _ => check(key, alone(key, value.clone())),
        }
    }
    (!faults.is_empty()).then_some(faults)
}

fn alone(key: &str, value: Value) -> Map<String, Value> {
    let image = ("image".to_owned(), json!("image"));
    [image, (key.to_owned(), value)].into_iter().collect()
}

/// What a type cannot say.
fn unusable(config: &InjectConfig) -> Vec<String> {
    let mut faults = Vec::new();
    if config.image.is_empty() || config.image.contains(char::is_whitespace) {
        faults.push("image: is empty or has a space in it".to_owned());
    }
    for (key, audiences) in [
        ("allowedAudiences", &config.allowed_audiences),
        ("apiAudiences", &config.api_audiences),
        ("defaults.audiences", &config.defaults.audiences),
    ] {
        if audiences.iter().any(String::is_empty) {
            faults.push(format!("{key}: an audience is empty"));
        }
    }
    let defaults = &config.defaults;
    if defaults.port == 0 || defaults.admin_port == 0 || defaults.port == defaults.admin_port {
        faults.push("defaults: port and adminPort must be two different ports above 0".to_owned());
    }
    faults
}

fn settings(members: &Map<String, Value>) -> Result<InjectConfig, serde_json::Error> {
    serde_json::from_value(Value::Object(members.clone()))
}

#[cfg(test)]
mod tests;
