//! The sidecar's program: reads flags and environment, starts, serves, ends. Exit codes: 64 for a bad configuration, 1 for a
//! start that failed for another reason, and what `probe` and `verify` say.

use std::process::ExitCode;

use tollgate_sidecar::cli;

fn main() -> ExitCode {
    cli::main(std::env::args_os(), environment())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the environment enters; config.rs reads it"
)]
fn environment() -> Vec<(String, String)> {
    // What is not UTF-8 cannot be one of ours.
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
