//! The command line: `run`, `probe`, `verify`. Every knob of `run` is a flag and a variable.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use tollgate_shared::contract::{ADMIN_PORT, variable};
use tollgate_shared::duration::GoDuration;
use tollgate_shared::knobs::{BadConfig, EXIT_BAD_CONFIG, EXIT_FAILED_START, EXIT_NO_INPUT, Knobs};
use tollgate_shared::signals::Signals;
use tollgate_shared::{drain, telemetry};

use crate::app::App;
use crate::config::{Config, KNOBS, Place};
use crate::{probe, standalone, verify};

/// How long `probe` waits by default; the webhook gives the startup probe a little more.
const PROBE_LIMIT: u64 = 300;

/// Runs the program with these arguments and this environment.
pub fn main(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Vec<(String, String)>,
) -> ExitCode {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            drop(error.print());
            return if error.use_stderr() {
                ExitCode::from(EXIT_BAD_CONFIG)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match matches.subcommand() {
        Some(("run", matches)) => run(matches, environment),
        Some(("probe", matches)) => probe(matches, environment),
        Some(("verify", matches)) => verify(matches),
        _ => ExitCode::from(EXIT_BAD_CONFIG),
    }
}

fn command() -> Command {
    let run = Command::new("run")
        .about("Serve the Kubernetes API on localhost, one minted token and one record a call")
        .after_help("Each flag is also a variable: --token-ttl is TOLLGATE_TOKEN_TTL. A flag wins.")
        .args(KNOBS.iter().map(|knob| {
            Arg::new(knob.name)
                .long(knob.name)
                .value_name(knob.value)
                .help(knob.help)
                .allow_hyphen_values(true)
        }))
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .num_args(1..)
                .last(true)
                .value_parser(clap::value_parser!(OsString))
                .help("Standalone: run this command behind the proxy, and end with it"),
        );
    let probe = Command::new("probe")
        .about("Wait until the sidecar of this pod is ready")
        .args([
            Arg::new("admin-port")
                .long("admin-port")
                .value_name("PORT")
                .help("The sidecar's admin port [default: 6480]"),
            Arg::new("timeout")
                .long("timeout")
                .value_name("DURATION")
                .help("Give up after this long [default: 300s]"),
        ]);
    Command::new("tollgate-sidecar")
        .about("Lets AI agents use the Kubernetes API without ever holding a credential for it")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([run, probe, verify_command()])
}

fn verify_command() -> Command {
    let file = |name: &'static str| {
        Arg::new(name)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
    };
    Command::new("verify")
        .about("Check that records are whole, and join them with the cluster's audit log")
        .after_help("Exit status: 0 if all is well, 1 if a chain is broken or a record or a call is missing, 64 for bad arguments, 66 if what is given cannot be read or holds nothing to verify.")
        .args([
            file("files").num_args(1..).required(true).help("Files with records, in any order; - is standard input"),
            file("cluster-audit")
                .long("cluster-audit")
                .action(clap::ArgAction::Append)
                .help("The cluster's audit log; may be given again for rotated segments"),
            Arg::new("partial")
                .long("partial")
                .action(clap::ArgAction::SetTrue)
                .help("Accept that the oldest records are gone"),
        ])
}

/// One line of `name=value` on stdout; what is wrong, line by line, on stderr.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the verdict is the program's output"
)]
fn verify(matches: &ArgMatches) -> ExitCode {
    let files = |name: &str| {
        matches
            .get_many::<PathBuf>(name)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    };
    let args = verify::Args {
        files: files("files"),
        cluster_audit: files("cluster-audit"),
        partial: matches.get_flag("partial"),
    };
    match verify::run(&args) {
        Ok(summary) => {
            eprint!("{}", summary.explain());
            println!("{summary}");
            ExitCode::from(u8::from(!summary.is_good()))
        }
        Err(error) => fail(EXIT_NO_INPUT, &error.to_string()),
    }
}

/// The flags that were given.
fn flags<'a>(
    matches: &'a ArgMatches,
    names: impl IntoIterator<Item = &'a str>,
) -> Vec<(&'a str, String)> {
    names
        .into_iter()
        .filter_map(|name| Some((name, matches.get_one::<String>(name)?.clone())))
        .collect()
}

fn run(matches: &ArgMatches, environment: Vec<(String, String)>) -> ExitCode {
    let command = matches.get_many::<OsString>("command");
    let command: Vec<OsString> = command.into_iter().flatten().cloned().collect();
    let config = match Config::read(
        flags(matches, KNOBS.iter().map(|knob| knob.name)),
        environment.clone(),
    ) {
        Ok(config) => config,
        Err(error) => return fail(EXIT_BAD_CONFIG, &error.to_string()),
    };
    if matches!(config.place, Place::Pod { .. }) && !command.is_empty() {
        return fail(
            EXIT_BAD_CONFIG,
            "a command is of standalone mode: it needs --kubeconfig",
        );
    }
    telemetry::init(config.settings.log_level, config.log_format);
    let target = &config.target;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        service_account = format!("{}/{}", target.namespace, target.account),
        bound_to = ?target.bound,
        mint = %config.settings.mint,
        "starting"
    );
    tracing::debug!(?config, "as configured");
    // One thread: a sidecar serves one pod, and a second thread would cost memory in each of them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let served = runtime.block_on(async {
            match &config.place {
                Place::Pod { .. } => serve(&config).await.map(|()| 0),
                Place::Standalone(standalone) => {
                    standalone::run(&config, standalone, &command, &environment).await
                }
            }
        });
        runtime.shutdown_timeout(Duration::from_millis(100));
        served
    });
    match served {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is::<BadConfig>() => fail(EXIT_BAD_CONFIG, &error.to_string()),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the start failed");
            ExitCode::from(EXIT_FAILED_START)
        }
    }
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let signals = Signals::install()?;
    let (drain, watch) = drain::channel();
    let app = App::start(config, watch).await?;
    tracing::info!(proxy = ?app.addresses(), admin = %app.admin_address(), "listening");
    tokio::select! {
        () = app.run() => Ok(()),
        aborted = signals.run(drain) => Err(aborted.into()),
    }
}

fn probe(matches: &ArgMatches, environment: Vec<(String, String)>) -> ExitCode {
    // The probe runs in the sidecar's container and so sees all its variables; only the port concerns it.
    let port = variable("admin-port");
    let environment = environment.into_iter().filter(|(name, _)| *name == port);
    let mut knobs = Knobs::new(flags(matches, ["admin-port", "timeout"]), environment);
    let port = knobs.parse("admin-port", ADMIN_PORT);
    let limit = knobs.parse("timeout", GoDuration::from_secs(PROBE_LIMIT));
    if let Err(error) = knobs.finish() {
        return fail(EXIT_BAD_CONFIG, &error.to_string());
    }
    match probe::wait(port, limit.get()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(EXIT_FAILED_START, &message),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "for the person at the terminal, before there is a log"
)]
fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("tollgate-sidecar: {message}");
    ExitCode::from(code)
}
