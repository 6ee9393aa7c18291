//! The exec plugin of a kubeconfig's user.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::entry::{Entry, Faults, resolve, word};

/// How to run a credential plugin.
pub struct Plugin {
    /// The program: a path, or a name to look up in `PATH`.
    pub command: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables beside our own.
    pub env: Vec<(String, String)>,
    /// The version that both sides speak.
    pub version: ExecVersion,
    /// Whether it wants to know the cluster.
    pub wants_cluster: bool,
    /// What to say where the program is not installed.
    pub install_hint: Option<String>,
}

/// Versions of `client.authentication.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecVersion {
    /// `v1`.
    V1,
    /// `v1beta1`.
    V1Beta1,
}

impl ExecVersion {
    /// As in `apiVersion`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "client.authentication.k8s.io/v1",
            Self::V1Beta1 => "client.authentication.k8s.io/v1beta1",
        }
    }
}

impl Plugin {
    pub(super) fn read(entry: &Entry<'_>, folder: &Path, faults: &mut Faults) -> Option<Self> {
        let before = faults.0.len();
        let version = version(entry, faults);
        interaction(entry, version, faults);
        let command = entry.text("command", faults);
        if command.is_none() {
            entry.fault(faults, "exec.command", "is missing");
        }
        let args = entry
            .list("args", faults)
            .iter()
            .map(word)
            .collect::<Option<_>>();
        if args.is_none() {
            entry.fault(faults, "exec.args", "holds what is no text");
        }
        let env = entry
            .list("env", faults)
            .iter()
            .map(variable)
            .collect::<Option<_>>();
        if env.is_none() {
            entry.fault(faults, "exec.env", "holds an entry without name and value");
        }
        let wants_cluster = entry.flag("provideClusterInfo", faults);
        let install_hint = entry.text("installHint", faults);
        if faults.0.len() > before {
            return None;
        }
        Some(Self {
            command: program(&command?, folder),
            args: args?,
            env: env?,
            version: version?,
            wants_cluster,
            install_hint,
        })
    }
}

/// A path begins at the kubeconfig's folder; a bare name is looked up in `PATH`.
fn program(command: &str, folder: &Path) -> PathBuf {
    if command.contains('/') {
        resolve(command, folder)
    } else {
        command.into()
    }
}

fn variable(entry: &Value) -> Option<(String, String)> {
    let text = |field| entry.get(field).and_then(word);
    let name = text("name").filter(|name| !name.is_empty() && !name.contains(['=', '\0']))?;
    Some((name, text("value")?))
}

fn version(entry: &Entry<'_>, faults: &mut Faults) -> Option<ExecVersion> {
    let text = entry.text("apiVersion", faults);
    let version = [ExecVersion::V1, ExecVersion::V1Beta1]
        .into_iter()
        .find(|version| Some(version.as_str()) == text.as_deref());
    if version.is_none() {
        let message = "is neither client.authentication.k8s.io/v1 nor v1beta1: update the plugin, and let it write the kubeconfig \
                       again";
        entry.fault(faults, "exec.apiVersion", message);
    }
    version
}

/// Nobody is there to talk to a plugin.
fn interaction(entry: &Entry<'_>, version: Option<ExecVersion>, faults: &mut Faults) {
    let message = match entry.text("interactiveMode", faults).as_deref() {
        Some("Never" | "IfAvailable") => return,
        // Required since v1 (`client-go/tools/clientcmd/validation.go`).
        None if version == Some(ExecVersion::V1) => "is missing: Never or IfAvailable",
        None => return,
        Some("Always") => {
            "is Always: nobody is there to answer it; use a plugin that can log in by itself, or name a user with a token"
        }
        Some(_) => "is none of Never, IfAvailable, Always",
    };
    entry.fault(faults, "exec.interactiveMode", message);
}
