//! The webhook's program. Ends with 64 for bad arguments or a bad configuration, with 1 for a failed start; `check` with 1 for what it
//! finds, and with 66 for what it cannot look at.

use std::process::ExitCode;

use clap::Parser as _;
use tollgate_shared::contract::Injection;
use tollgate_shared::knobs::{EXIT_BAD_CONFIG, EXIT_FAILED_START, EXIT_NO_INPUT};
use tollgate_shared::{drain, signals, telemetry, tls};
use tollgate_webhook::app::Bound;
use tollgate_webhook::check::{BadCluster, Report, check_files, check_namespace};
use tollgate_webhook::cli::{Check, Cli, Command, Run};
use tollgate_webhook::config::Config;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(Cli { command }) => match command {
            Command::Run(arguments) => run(&arguments),
            Command::Check(arguments) => check(&arguments),
        },
        Err(error) => {
            drop(error.print());
            match error.use_stderr() {
                true => ExitCode::from(EXIT_BAD_CONFIG),
                false => ExitCode::SUCCESS,
            }
        }
    }
}

fn run(arguments: &Run) -> ExitCode {
    let config = match Config::read(&arguments.flags()) {
        Ok(config) => config,
        Err(error) => return fail(EXIT_BAD_CONFIG, &error),
    };
    telemetry::init(config.log_level, config.log_format);
    tls::install_provider();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(serve(config)),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FAILED_START, &error),
    }
}

fn check(arguments: &Check) -> ExitCode {
    let Some(namespace) = &arguments.namespace else {
        let label = arguments.namespace_label.unwrap_or(Injection::Enabled);
        let config = &arguments.config;
        return match check_files(&arguments.file, label, config, arguments.output) {
            Ok(report) => say(&report),
            Err(bad) if bad.is_configured => fail(EXIT_NO_INPUT, &bad),
            Err(bad) => fail(EXIT_BAD_CONFIG, &bad),
        };
    };
    tls::install_provider();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let checked = match runtime {
        Ok(runtime) => runtime.block_on(check_namespace(namespace, arguments)),
        Err(error) => return fail(EXIT_FAILED_START, &error),
    };
    match checked {
        Ok(report) => say(&report),
        Err(error @ BadCluster::Arguments(_)) => fail(EXIT_BAD_CONFIG, &error),
        Err(error) => fail(EXIT_NO_INPUT, &error),
    }
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the report is the program's output"
)]
fn say(report: &Report) -> ExitCode {
    print!("{}", report.text);
    eprint!("{}", report.summary);
    ExitCode::from(u8::from(!report.is_good))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let (drain, watch) = drain::channel();
    let signals = signals::Signals::install()?;
    let bound = Bound::new(config).await?;
    tracing::info!(address = %bound.address(), admin = %bound.admin_address(), version = env!("CARGO_PKG_VERSION"), "listening");
    tokio::select! {
        ended = bound.run(watch) => Ok(ended?),
        aborted = signals.run(drain) => Err(aborted.into()),
    }
}

#[expect(clippy::print_stderr, reason = "logging may not have begun")]
fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("tollgate-webhook: {error}");
    ExitCode::from(code)
}
