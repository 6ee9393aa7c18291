//! The command line: `run` serves, `check` explains.

use clap::{Args, Parser, Subcommand};

/// The Tollgate admission webhook.
#[derive(Debug, Parser)]
#[command(name = "tollgate-webhook", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer the API server's reviews, and bind the grant in managed namespaces
    #[command(
        after_help = "Each flag is also a variable: --log-level is TOLLGATE_LOG_LEVEL. A flag wins."
    )]
    Run(Run),
}

/// Flags of the server.
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
