//! The command line: `run` serves, `check` explains.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use tollgate_shared::contract::Injection;

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
    /// Explain what admission says of a file, or what is amiss in a namespace of a live cluster
    #[command(after_help = CHECK)]
    Check(Box<Check>),
}

const CHECK: &str = "\
With -f nothing is asked of a cluster: each pod, or the pod of each workload, is decided upon as if its namespace had the label, and \
printed as it would be stored. The token that the API server adds is counted in, unless the pod says automountServiceAccountToken: false; the \
service account's own flag is not seen. A kind without a known pod template is not-judged. The admission policies inside the API server are not asked.

With --namespace the cluster of the kubeconfig is looked at with your own rights, and each finding is a line: level, code, object, what is \
wrong and what to do. Reported are pods without the sidecar or with an outdated one, Secrets with tokens, metadata addresses \
that no NetworkPolicy closes, missing parts of Tollgate, and who can get round it, by RBAC. What you may not list is a finding. \
Accounts of the control plane (groups system:masters, system:nodes; users system:kube-controller-manager, system:kube-scheduler, \
system:kube-proxy, system:node:*, kube-apiserver-kubelet-client; service accounts of kube-system and tollgate-system) are left out \
but with --all; only `info` findings do not count for the exit status.

Exit status: 0 if nothing is denied or found, 1 if something is, 64 for bad arguments or a bad --config, 66 for a file that cannot be \
read or a cluster that cannot be asked.";

/// Flags of the explanation.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("subject").required(true).args(["file", "namespace"]))]
pub struct Check {
    /// Pods or workloads, YAML or JSON, any number of documents; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Vec<String>,
    /// The label of the namespace, for -f [default: enabled]
    #[arg(long, value_name = "LABEL", conflicts_with = "namespace", value_parser = PossibleValuesParser::new(Injection::WORDS).try_map(|word| word.parse::<Injection>()))]
    pub namespace_label: Option<Injection>,
    /// The namespace to look at
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Configuration of the webhook, files or folders of *.yaml [default: for -f that of a fresh install, for --namespace the deployed one]
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    pub config: Vec<PathBuf>,
    /// How it is printed
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Output,
    /// A principal that is known and meant, as findings name it (group/admins); may be given again
    #[arg(long, value_name = "PRINCIPAL", conflicts_with = "file")]
    pub trust: Vec<String>,
    /// Also what the control plane's own accounts may do
    #[arg(long, conflicts_with = "file")]
    pub all: bool,
    /// As kubectl's [default: $KUBECONFIG, or ~/.kube/config]
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub kubeconfig: Option<PathBuf>,
    /// As kubectl's [default: the current one]
    #[arg(long, value_name = "CONTEXT", conflicts_with = "file")]
    pub context: Option<String>,
}

/// Form of the results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A line for each finding; YAML for pods
    #[default]
    Text,
    /// One list
    Json,
}

/// Flags of the server.
#[derive(Debug, Args)]
pub struct Run {
    /// Files, or folders of *.yaml, that are one configuration [default: /etc/tollgate/release,/etc/tollgate/settings]
    #[arg(long, value_name = "PATH,...")]
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
