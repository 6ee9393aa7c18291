//! The workstation of a test: a folder, kubeconfigs, and the sidecar as a command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_e2e::exec::Output;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::program::{self, SIDECAR};
use tollgate_shared::contract::Injection;

/// A namespace whose accounts `default` and `minter` may do everything in it; and a folder.
pub(crate) struct Desk<'a> {
    pub(crate) namespace: &'a TestNamespace,
    pub(crate) folder: TempDir,
    /// The administrator's kubeconfig.
    pub(crate) admin: Value,
}

impl<'a> Desk<'a> {
    async fn new(namespace: &'a TestNamespace) -> anyhow::Result<Self> {
        namespace
            .allow(json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]))
            .await?;
        let minter =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "minter"}});
        namespace.apply::<ServiceAccount>(&minter).await?;
        let admin = fs::read_to_string(&namespace.cluster.config.kubeconfig)?;
        Ok(Self {
            namespace,
            folder: TempDir::new()?,
            admin: serde_saphyr::from_str(&admin)?,
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A kubeconfig of the same cluster with this user.
    pub(crate) fn kubeconfig(&self, name: &str, user: &Value) -> anyhow::Result<PathBuf> {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "desk",
            "contexts": [{"name": "desk", "context": {"cluster": "desk", "user": "desk", "namespace": self.namespace.name}}],
            "clusters": [{"name": "desk", "cluster": self.admin.pointer("/clusters/0/cluster")}],
            "users": [{"name": "desk", "user": user}],
        });
        let path = self.path(name);
        fs::write(&path, kubeconfig.to_string())?;
        Ok(path)
    }

    /// The kubeconfig of a service account's own token, unbound.
    pub(crate) async fn kubeconfig_of(&self, account: &str) -> anyhow::Result<PathBuf> {
        let token = self.namespace.token(account, None).await?;
        self.kubeconfig(account, &json!({ "token": token.expose() }))
    }

    /// `tollgate-sidecar run` by a kubeconfig, for the account `default`, records in the file `NAME.records`.
    pub(crate) fn sidecar(&self, name: &str, kubeconfig: &Path) -> anyhow::Result<Command> {
        self.sidecar_for(
            &format!("{}/default", self.namespace.name),
            name,
            kubeconfig,
        )
    }

    pub(crate) fn sidecar_for(
        &self,
        account: &str,
        name: &str,
        kubeconfig: &Path,
    ) -> anyhow::Result<Command> {
        let mut command = Command::new(program::path(SIDECAR)?);
        command
            .arg("run")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--service-account", account])
            .arg("--record-file")
            .arg(self.path(&format!("{name}.records")))
            .args(["--log-level", "error"]);
        self.desk(&mut command);
        Ok(command)
    }

    /// What a command finds around it, wrapped or not: the cluster's own kubectl, and a home that knows no cluster.
    pub(crate) fn desk(&self, command: &mut Command) {
        let kubeconfig = &self.namespace.cluster.config.kubeconfig;
        let tools = kubeconfig.parent().unwrap_or_else(|| Path::new("."));
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", tools.display());
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.folder.path())
            .env("TMPDIR", self.folder.path())
            .stdin(Stdio::null());
    }
}

pub(crate) fn run(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    })
}

pub(crate) async fn at_a_desk(
    injection: Option<Injection>,
    test: impl AsyncFnOnce(&Desk<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    TestNamespace::run(injection, async |namespace| {
        test(&Desk::new(namespace).await?).await
    })
    .await
}
