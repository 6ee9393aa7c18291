//! `tollgate-e2e`: proves claims on a cluster, for people and for scripts. `scan` looks for credentials in agent containers;
//! `join` puts a sidecar's records beside the API server's audit events; `under-load` shows that a change loses no pod.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use tollgate_e2e::cluster::Cluster;
use tollgate_e2e::config::{AuditLogSource, Config};
use tollgate_e2e::join::Verdict;
use tollgate_e2e::records::Records;
use tollgate_e2e::scan::Report;
use tollgate_e2e::{audit, join, load, scan};

/// Exit code when what was to be proved is false.
const DISPROVED: u8 = 1;
/// Exit code when it could not be found out.
const UNKNOWN: u8 = 2;
/// How long the logs of a living pod are looked at again while something is missing.
const SETTLE: Duration = Duration::from_secs(60);

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
    /// Run a command while pods are created (dry runs, 20 at a time, 500 at least): each must be admitted, with the sidecar in it.
    UnderLoad {
        /// The managed namespace that they are created in.
        #[arg(short, long)]
        namespace: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
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
        Command::UnderLoad { namespace, command } => run_under_load(&namespace, &command).await,
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
    let source = Source::find(records, namespace).await?;
    let start = Instant::now();
    loop {
        let records = source.read().await?;
        let events = audit::read_file(&audit)?;
        let calls = join::join(&records.lines, &events);
        let settled =
            |call: &join::Call<'_>| call.verdict != Verdict::Open && !call.verdict.is_failure();
        // Both logs of a living pod still grow: a call that has just ended may have reached only one of them.
        let may_grow = matches!(source, Source::Pod(..)) && start.elapsed() < SETTLE;
        if may_grow && !calls.iter().all(settled) {
            tokio::time::sleep(Duration::from_millis(500)).await;
            continue;
        }
        return show_calls(&mut std::io::stdout().lock(), &calls);
    }
}

/// Where records come from.
enum Source {
    File(PathBuf),
    Pod(Box<Api<Pod>>, String),
}

impl Source {
    async fn find(records: &str, namespace: Option<String>) -> anyhow::Result<Self> {
        if Path::new(records).is_file() {
            return Ok(Self::File(records.into()));
        }
        let cluster = Cluster::connect()
            .await
            .with_context(|| format!("{records} is no file, and no pod can be looked for"))?;
        let namespace = namespace.unwrap_or_else(|| cluster.connection.default_namespace.clone());
        Ok(Self::Pod(
            Box::new(Api::namespaced(cluster.client, &namespace)),
            records.to_owned(),
        ))
    }

    async fn read(&self) -> anyhow::Result<Records> {
        match self {
            Self::File(path) => Records::of_file(path),
            Self::Pod(pods, name) => Records::of_pod(pods, name).await,
        }
    }
}

fn show_calls(out: &mut impl std::io::Write, calls: &[join::Call<'_>]) -> anyhow::Result<u8> {
    for call in calls {
        writeln!(out, "{call}\n")?;
    }
    let count = |verdict| calls.iter().filter(|call| call.verdict == verdict).count();
    let failed = calls
        .iter()
        .filter(|call| call.verdict.is_failure())
        .count();
    writeln!(
        out,
        "{} calls: {} joined, {} not forwarded, {} minted and not used, {} minted ahead, {} still open, {failed} failed",
        calls.len(),
        count(Verdict::Joined),
        count(Verdict::NotForwarded),
        count(Verdict::Unused),
        count(Verdict::Ahead),
        count(Verdict::Open),
    )?;
    if calls.is_empty() {
        bail!("there are no records to join");
    }
    Ok(if failed == 0 { 0 } else { DISPROVED })
}

async fn run_under_load(namespace: &str, command: &[String]) -> anyhow::Result<u8> {
    let cluster = Cluster::connect().await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client, namespace);
    let change = async {
        let (program, arguments) = command.split_first().context("no command")?;
        let ended = tokio::process::Command::new(program)
            .args(arguments)
            .status()
            .await
            .with_context(|| format!("cannot run {program}"))?;
        anyhow::ensure!(ended.success(), "{program}: {ended}");
        Ok(())
    };
    let injected = load::under_load(&pods, change).await?;
    writeln!(std::io::stdout(), "{injected} pods created, none lost")?;
    Ok(0)
}
