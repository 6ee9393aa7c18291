//! What a pod's volumes would be to a sidecar: folders, and the files that an agent finds there.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use http::header::AUTHORIZATION;
use tempfile::TempDir;
use tollgate_shared::secret::Token;
use tollgate_shared::tls;

use crate::agent::AGENT;

/// The folders that a pod's volumes would be.
pub(super) struct Volumes(TempDir);

impl Volumes {
    pub(super) fn new(bootstrap: &Token, ca_pem: &str) -> anyhow::Result<Self> {
        let volumes = tempfile::tempdir()?;
        for name in ["bootstrap", "agent", "state"] {
            fs::create_dir(volumes.path().join(name))?;
        }
        fs::write(volumes.path().join("bootstrap/token"), bootstrap.expose())?;
        fs::write(volumes.path().join("bootstrap/ca.crt"), ca_pem)?;
        Ok(Self(volumes))
    }

    pub(super) fn flags(&self) -> Vec<OsString> {
        let flag = |name: &str| {
            [
                format!("--{name}-dir").into(),
                self.0.path().join(name).into(),
            ]
        };
        ["bootstrap", "agent", "state"]
            .into_iter()
            .flat_map(flag)
            .collect()
    }

    pub(super) fn files(&self) -> PathBuf {
        self.0.path().join("agent").join(AGENT)
    }

    pub(super) fn local_token(&self) -> anyhow::Result<Token> {
        Ok(Token::parse(&fs::read_to_string(
            self.files().join("token"),
        )?)?)
    }

    /// A client as an agent makes it from its files, but with this token.
    pub(super) fn client(&self, token: &Token) -> anyhow::Result<kube::Client> {
        let kubeconfig = fs::read_to_string(self.files().join("kubeconfig"))?;
        let server = kubeconfig
            .lines()
            .find_map(|line| line.trim().strip_prefix("server: "));
        let mut config =
            kube::Config::new(server.context("a kubeconfig without a server")?.parse()?);
        let roots = tls::certificates(&fs::read(self.files().join("ca.crt"))?, "the sidecar's CA")?;
        config.root_cert = Some(roots.into_iter().map(|root| root.to_vec()).collect());
        config.headers.push((AUTHORIZATION, token.bearer()));
        config.default_retry = false;
        Ok(kube::Client::try_from(config)?)
    }
}
