//! The command line.

use clap::{Args, Parser};

/// The Tollgate admission webhook.
#[derive(Debug, Parser)]
#[command(name = "tollgate-webhook", version, about)]
pub struct Cli {
    /// What to run.
    #[command(flatten)]
    pub run: Run,
}

/// Flags of the server. Each is also a variable: `--log-level` is `TOLLGATE_LOG_LEVEL`; a flag wins.
#[derive(Debug, Args)]
pub struct Run {
    /// Configuration file [default: /etc/tollgate/config.yaml]
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Where reviews are answered [default: [::]:10250]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Where /livez, /readyz and /metrics are [default: [::]:6480]
    #[arg(long, value_name = "ADDRESS")]
    admin_address: Option<String>,
    /// Folder with tls.crt and tls.key, and a caBundle that another component writes [default: certificates of our own]
    #[arg(long, value_name = "FOLDER")]
    certificate_dir: Option<String>,
    /// error, warn, info or debug; goes to stderr [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// json or text [default: json]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Run {
    /// The given flags, by knob.
    #[must_use]
    pub fn flags(&self) -> Vec<(&'static str, String)> {
        [
            ("config", &self.config),
            ("address", &self.address),
            ("admin-address", &self.admin_address),
            ("certificate-dir", &self.certificate_dir),
            ("log-level", &self.log_level),
            ("log-format", &self.log_format),
        ]
        .into_iter()
        .filter_map(|(knob, value)| Some((knob, value.clone()?)))
        .collect()
    }
}
