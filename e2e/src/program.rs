//! The sidecar's program, built from this work tree, and its subcommand `verify`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::Context as _;

/// Builds the program once and says where it is: cargo knows, whatever the target directory is.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = PROGRAM.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build() -> anyhow::Result<PathBuf> {
    let output = Command::new("cargo")
        .args([
            "build",
            "--locked",
            "--quiet",
            "--package",
            "tollgate-sidecar",
            "--bin",
            "tollgate-sidecar",
        ])
        .args(["--message-format", "json-render-diagnostics"])
        .output()
        .context("cannot run cargo")?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut executables = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    let built = executables.next_back();
    built.with_context(|| {
        format!(
            "cannot build the sidecar: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// What `verify` said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its exit status.
    pub code: Option<i32>,
    /// Its one line of `name=value`.
    pub line: String,
    /// What it wrote for people.
    pub said: String,
}

impl Verified {
    /// The number of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn count(&self, name: &str) -> anyhow::Result<u64> {
        let mut pairs = self.line.split(' ').filter_map(|pair| pair.split_once('='));
        let (_, number) = pairs
            .find(|(known, _)| *known == name)
            .with_context(|| format!("no {name} in {self:?}"))?;
        Ok(number.parse()?)
    }
}

/// Runs `tollgate-sidecar verify` over these files.
///
/// # Errors
/// It could not be run.
pub fn verify(records: &[PathBuf], cluster_audit: Option<&Path>) -> anyhow::Result<Verified> {
    let cluster = cluster_audit.map(|path| [OsString::from("--cluster-audit"), path.into()]);
    let output = Command::new(program()?)
        .arg("verify")
        .args(records)
        .args(cluster.into_iter().flatten())
        .env_clear()
        .output()
        .context("cannot run verify")?;
    Ok(Verified {
        code: output.status.code(),
        line: String::from_utf8(output.stdout)?.trim_end().to_owned(),
        said: String::from_utf8(output.stderr)?,
    })
}
