//! The programs under test, built from this work tree, and the sidecar's subcommand `verify`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;

/// The sidecar's package and program.
pub const SIDECAR: &str = "tollgate-sidecar";

/// Builds a package's program once and says where it is: cargo knows, whatever the target directory is.
///
/// # Errors
/// It does not build.
pub fn path(package: &str) -> anyhow::Result<PathBuf> {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut programs = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = programs.get(package) {
        return Ok(path.clone());
    }
    let path = build(package)?;
    programs.insert(package.to_owned(), path.clone());
    Ok(path)
}

fn build(package: &str) -> anyhow::Result<PathBuf> {
    let output = Command::new("cargo")
        .args(["build", "--locked", "--quiet"])
        .args(["--package", package, "--bin", package])
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
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("cannot build {package}: {errors}")
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
    let output = Command::new(path(SIDECAR)?)
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
