//! `tollgate-e2e`: proves two claims on a cluster, for people and for scripts. `scan` looks for credentials in agent containers;
//! `join` puts a sidecar's records beside the API server's audit events.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use kube::api::Api;
use tollgate_e2e::cluster::Cluster;
use tollgate_e2e::config::{AuditLogSource, Config};
use tollgate_e2e::records::Records;
use tollgate_e2e::scan::Report;
use tollgate_e2e::{audit, join, scan};

/// Exit code when what was to be proved is false.
const DISPROVED: u8 = 1;
/// Exit code when it could not be found out.
const UNKNOWN: u8 = 2;

/// Proves on a real cluster what Tollgate claims. The cluster is the one that KUBECONFIG or target/kind/kubeconfig names.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 proved, 1 disproved, 2 could not be found out."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Walk the files and the environment of every agent container and name each token that the API server accepts.
    Scan {
        /// The pod.
        pod: String,
        /// Its namespace; that of the kubeconfig's context if not given.
        #[arg(short, long)]
        namespace: Option<String>,
    },
    /// Show the records of a sidecar beside the API server's audit events with the same auditID and credential id.
    Join {
        /// A file of records, or the name of a pod whose sidecar is asked for its logs.
        #[arg(long, value_name = "FILE|POD")]
        records: String,
        /// Namespace of the pod; that of the kubeconfig's context if not given.
        #[arg(short, long)]
        namespace: Option<String>,
        /// The API server's audit log; TOLLGATE_AUDIT_LOG or the file next to the kubeconfig if not given.
        #[arg(long, value_name = "FILE")]
        audit: Option<PathBuf>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let run = match Arguments::parse().command {
        Command::Scan { pod, namespace } => run_scan(&pod, namespace).await,
        Command::Join {
            records,
            namespace,
            audit,
        } => run_join(&records, namespace, audit).await,
    };
    match run {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Nothing can be done about a closed stderr.
            let _ = writeln!(std::io::stderr(), "tollgate-e2e: {error:#}");
            ExitCode::from(UNKNOWN)
        }
    }
}

async fn run_scan(pod: &str, namespace: Option<String>) -> anyhow::Result<u8> {
    let cluster = Cluster::connect().await?;
    let namespace = namespace.unwrap_or_else(|| cluster.connection.default_namespace.clone());
    let report = scan::pod(&cluster, &namespace, pod).await?;
    show_report(&mut std::io::stdout().lock(), &report)?;
    Ok(match report {
        report if !report.findings.is_empty() => DISPROVED,
        report if !report.not_walked.is_empty() => UNKNOWN,
        _ => 0,
    })
}

fn show_report(out: &mut impl std::io::Write, report: &Report) -> std::io::Result<()> {
    for (container, walk) in &report.walked {
        writeln!(
            out,
            "{container}: looked at {} files and process entries; {} distinct strings shaped like a token",
            walk.files,
            walk.tokens.len()
        )?;
    }
    for (container, why) in &report.not_walked {
        writeln!(out, "{container}: COULD NOT BE WALKED: {why}")?;
    }
    for finding in &report.findings {
        writeln!(
            out,
            "{}: FOUND A CREDENTIAL of {} in:",
            finding.container, finding.user
        )?;
        for path in &finding.paths {
            writeln!(out, "  {path}")?;
        }
    }
    if report.is_clean() {
        writeln!(out, "no credential that the API server accepts")?;
    }
    Ok(())
}

async fn run_join(
    records: &str,
    namespace: Option<String>,
    audit: Option<PathBuf>,
) -> anyhow::Result<u8> {
    let audit = match (audit, Config::from_env().audit_log) {
        (Some(path), _) | (None, AuditLogSource::File(path)) => path,
        (None, AuditLogSource::None) => {
            bail!("there is no audit log to join with; name it with --audit")
        }
    };
    let records = if Path::new(records).is_file() {
        Records::of_file(Path::new(records))?
    } else {
        let cluster = Cluster::connect()
            .await
            .with_context(|| format!("{records} is no file, and no pod can be looked for"))?;
        let namespace = namespace.unwrap_or_else(|| cluster.connection.default_namespace.clone());
        Records::of_pod(&Api::namespaced(cluster.client, &namespace), records).await?
    };
    let events = audit::read_file(&audit)?;
    let calls = join::join(&records.lines, &events);
    let mut out = std::io::stdout().lock();
    for call in &calls {
        writeln!(out, "{call}\n")?;
    }
    let count =
        |test: fn(join::Verdict) -> bool| calls.iter().filter(|call| test(call.verdict)).count();
    let failed = count(join::Verdict::is_failure);
    writeln!(
        out,
        "{} calls: {} joined, {} refused by the sidecar, {} still open, {failed} failed",
        calls.len(),
        count(|verdict| verdict == join::Verdict::Joined),
        count(|verdict| verdict == join::Verdict::Refused),
        count(|verdict| verdict == join::Verdict::Open),
    )?;
    if calls.is_empty() {
        bail!("there are no records to join");
    }
    Ok(if failed == 0 { 0 } else { DISPROVED })
}
