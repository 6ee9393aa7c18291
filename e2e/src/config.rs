//! Where the cluster is: the only place of this crate that reads the environment.

use std::path::{Path, PathBuf};

/// Path list of a kubeconfig, as kubectl knows it.
pub const KUBECONFIG: &str = "KUBECONFIG";
/// Path of the API server's audit log, or `none` where the cluster has none that can be read.
pub const AUDIT_LOG: &str = "TOLLGATE_AUDIT_LOG";
/// Image of the agent container: an unmodified kubectl, `sh`, `tar` and `sleep`.
pub const AGENT_IMAGE: &str = "TOLLGATE_AGENT_IMAGE";

/// What the environment says about the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The kubeconfig; never the user's own `~/.kube/config` unless `KUBECONFIG` names it.
    pub kubeconfig: PathBuf,
    /// The API server's audit log.
    pub audit_log: AuditLogSource,
    /// Image of the agent container.
    pub agent_image: String,
}

/// Where the API server's audit log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditLogSource {
    /// A file that grows while the API server runs.
    File(PathBuf),
    /// The suite was told that there is none.
    None,
}

impl Config {
    /// Reads the environment.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the crate's config module"
    )]
    pub fn from_env() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        // Cargo sets the variable for tests; an installed program looks below the working directory.
        let root =
            text("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, |dir| Path::new(&dir).join(".."));
        Self::new(&root, text(KUBECONFIG), text(AUDIT_LOG), text(AGENT_IMAGE))
    }

    /// `root` is the work tree; the other values are those of the variables.
    #[must_use]
    pub fn new(
        root: &Path,
        kubeconfig: Option<String>,
        audit_log: Option<String>,
        agent_image: Option<String>,
    ) -> Self {
        let kubeconfig =
            kubeconfig.map_or_else(|| root.join("target/kind/kubeconfig"), PathBuf::from);
        let audit_log = match audit_log.as_deref() {
            Some("none") => AuditLogSource::None,
            Some(path) => AuditLogSource::File(path.into()),
            None => AuditLogSource::File(kubeconfig.with_file_name("audit.log")),
        };
        Self {
            kubeconfig,
            audit_log,
            agent_image: agent_image.unwrap_or_else(|| "tollgate-e2e/agent:dev".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audit_log_lies_next_to_the_kubeconfig() {
        let file = |path: &str| AuditLogSource::File(path.into());
        for (kubeconfig, audit_log, config, log) in [
            (
                None,
                None,
                "/w/target/kind/kubeconfig",
                file("/w/target/kind/audit.log"),
            ),
            (Some("/k/config"), None, "/k/config", file("/k/audit.log")),
            (
                Some("/k/config"),
                Some("/a.log"),
                "/k/config",
                file("/a.log"),
            ),
            (
                None,
                Some("none"),
                "/w/target/kind/kubeconfig",
                AuditLogSource::None,
            ),
        ] {
            let read = Config::new(
                Path::new("/w"),
                kubeconfig.map(str::to_owned),
                audit_log.map(str::to_owned),
                None,
            );
            assert_eq!(read.kubeconfig, Path::new(config));
            assert_eq!(read.audit_log, log);
        }
    }
}
