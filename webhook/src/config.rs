//! The webhook's configuration: the only reader of flags, environment and configuration files. All faults are reported at once; the
//! files are read again when one changes, and the last good configuration is kept.

mod parts;
mod sum;

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tollgate_shared::contract::{ADMIN_PORT, LogLevel, WEBHOOK_PORT};
use tollgate_shared::knobs::{BadConfig, Knobs};
use tollgate_shared::telemetry::LogFormat;

use crate::inject::{InjectConfig, api_server_variables};
use crate::metrics::Metrics;

pub use self::parts::{Parts, of_config_map};
pub use self::sum::parse;

/// Where the ConfigMaps are mounted: the release's, and that of the operator, which need not be there.
const FOLDERS: [&str; 2] = ["/etc/tollgate/release", "/etc/tollgate/settings"];

/// How often the files are looked at. Their content is compared: a mounted ConfigMap changes by a swap of symbolic links, which a
/// watch on a file would not see.
pub const LOOK: Duration = Duration::from_secs(5);

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
    /// The configuration files, with what they say now.
    pub source: Source,
}

impl Config {
    /// Reads flags (knob and value), the environment and the configuration files.
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
        let variables: Vec<(String, String)> = variables.into_iter().collect();
        let mut knobs = Knobs::new(flags, variables.clone());
        let everywhere = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let address = knobs.parse("address", everywhere(WEBHOOK_PORT));
        let admin_address = knobs.parse("admin-address", everywhere(ADMIN_PORT));
        let log_level = knobs.parse("log-level", LogLevel::default());
        let log_format = knobs.parse("log-format", LogFormat::default());
        let certificate_dir = knobs.optional("certificate-dir");
        let mut paths = knobs.list("config");
        if paths.is_empty() {
            paths = FOLDERS.map(str::to_owned).into();
        }
        let paths = paths.into_iter().map(PathBuf::from).collect();
        let source = Source::open(paths, variables).map_err(|faults| {
            for fault in faults {
                knobs.fault("config", &fault);
            }
        });
        knobs.finish()?;
        // Without faults there is a source.
        let source = source.map_err(|()| BadConfig(Vec::new()))?;
        Ok(Self {
            address,
            admin_address,
            log_level,
            log_format,
            certificate_dir,
            source,
        })
    }
}

/// The files and folders of the configuration, last seen good.
#[derive(Debug)]
pub struct Source {
    paths: Vec<PathBuf>,
    /// See [`InjectConfig::api_server`].
    api_server: BTreeMap<String, String>,
    seen: Result<Parts, Vec<String>>,
    current: watch::Sender<Arc<InjectConfig>>,
}

impl Source {
    /// Reads them; `environment` is the process's own.
    ///
    /// # Errors
    /// Every fault, each with its file's name.
    pub fn open(
        paths: Vec<PathBuf>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<String>> {
        let api_server = api_server_variables(environment);
        let seen = parts::read(&paths);
        let (current, _) = watch::channel(Arc::new(config_of(&seen, &api_server)?));
        Ok(Self {
            paths,
            api_server,
            seen,
            current,
        })
    }

    /// What they say, now and later.
    #[must_use]
    pub fn current(&self) -> watch::Receiver<Arc<InjectConfig>> {
        self.current.subscribe()
    }

    /// Looks at them for ever.
    pub async fn run(mut self, metrics: Metrics, look: Duration) {
        loop {
            tokio::time::sleep(look).await;
            self.look(&metrics);
        }
    }

    /// Takes them if one has changed and all are good.
    fn look(&mut self, metrics: &Metrics) {
        let seen = parts::read(&self.paths);
        if seen == self.seen {
            return;
        }
        let parsed = config_of(&seen, &self.api_server);
        metrics.reloaded(parsed.is_ok());
        match parsed {
            Ok(config) => {
                self.current.send_replace(Arc::new(config));
                let parts: Vec<&str> = seen
                    .iter()
                    .flatten()
                    .map(|(part, _)| part.as_str())
                    .collect();
                tracing::info!(?parts, "took the changed configuration");
            }
            Err(faults) => {
                let faults = faults.join("; ");
                tracing::error!(%faults, "the changed configuration is refused; the last good one is kept");
            }
        }
        self.seen = seen;
    }
}

/// What was read of the parts, in a pod that finds the API server so.
fn config_of(
    seen: &Result<Parts, Vec<String>>,
    api_server: &BTreeMap<String, String>,
) -> Result<InjectConfig, Vec<String>> {
    let config = parse(seen.as_ref().map_err(Vec::clone)?)?;
    Ok(InjectConfig {
        api_server: api_server.clone(),
        ..config
    })
}

/// Reads files and folders once.
///
/// # Errors
/// Every fault, each with its file's name.
pub fn read(paths: &[PathBuf]) -> Result<InjectConfig, Vec<String>> {
    parse(&parts::read(paths)?)
}

#[cfg(test)]
mod tests;
