//! The cluster under test: a client and, where it can be read, the API server's audit log.

use std::path::Path;

use anyhow::{Context as _, bail};
use http::header::AUTHORIZATION;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use tollgate_shared::secret::Token;

use crate::audit::AuditLog;
use crate::config::{AUDIT_LOG, AuditLogSource, Config, KUBECONFIG};

/// A cluster and what is known of it.
#[derive(Clone)]
pub struct Cluster {
    /// Client with the rights of the kubeconfig's user, who must be an administrator.
    pub client: kube::Client,
    /// Settings of that client: address and CA of the API server.
    pub connection: kube::Config,
    /// Where it was found.
    pub config: Config,
}

impl Cluster {
    /// Connects to the cluster that `KUBECONFIG` or `target/kind/kubeconfig` names.
    ///
    /// # Errors
    /// There is no kubeconfig, or it makes no client.
    pub async fn connect() -> anyhow::Result<Self> {
        Self::with(Config::from_env()).await
    }

    /// Connects to a given cluster.
    ///
    /// # Errors
    /// There is no kubeconfig, or it makes no client.
    pub async fn with(config: Config) -> anyhow::Result<Self> {
        let kubeconfig = read_kubeconfig(&config.kubeconfig)?;
        let mut connection =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // A hidden second try would spoil every count of calls.
        connection.default_retry = false;
        let client = kube::Client::try_from(connection.clone())?;
        Ok(Self {
            client,
            connection,
            config,
        })
    }

    /// A client with the same API server and another credential: this bearer token, or none at all.
    ///
    /// # Errors
    /// The text can be no header.
    pub fn client_as(&self, token: Option<&str>) -> anyhow::Result<kube::Client> {
        let mut connection = self.connection.clone();
        connection.auth_info = AuthInfo::default();
        if let Some(token) = token {
            let bearer = Token::parse(token)?.bearer();
            connection.headers.push((AUTHORIZATION, bearer));
        }
        Ok(kube::Client::try_from(connection)?)
    }

    /// The audit log from now on; `None` only if the suite was told that this cluster has none.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn audit_log(&self) -> anyhow::Result<Option<AuditLog>> {
        match &self.config.audit_log {
            AuditLogSource::None => Ok(None),
            AuditLogSource::File(path) => {
                let log = AuditLog::from_now(path).with_context(|| {
                    format!(
                        "this needs the API server's audit log, and {} cannot be read; \
                         set {AUDIT_LOG} to its path, or to `none` if this cluster has none",
                        path.display()
                    )
                })?;
                Ok(Some(log))
            }
        }
    }

    /// The API server's minor version: 37 of 1.37.
    ///
    /// # Errors
    /// It does not say.
    pub async fn minor(&self) -> anyhow::Result<u32> {
        let version = self.client.apiserver_version().await?;
        let minor = version.minor.trim_end_matches('+').parse();
        minor.with_context(|| format!("no minor version: {}", version.minor))
    }

    /// The name of a node.
    ///
    /// # Errors
    /// There is none.
    pub async fn node(&self) -> anyhow::Result<String> {
        let nodes = Api::<Node>::all(self.client.clone());
        let list = nodes.list(&ListParams::default().limit(1)).await?;
        let first = list.items.into_iter().next().context("no node")?;
        Ok(first.name_any())
    }

    /// Whom the API server takes the bearer of `token` for, if it accepts the token at all.
    ///
    /// # Errors
    /// The TokenReview itself failed.
    pub async fn review(&self, token: &str) -> anyhow::Result<Option<String>> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: None,
            },
            ..TokenReview::default()
        };
        // The error could repeat the request: keep only its kind.
        let answer = Api::all(self.client.clone())
            .create(&PostParams::default(), &review)
            .await;
        let Ok(TokenReview { status, .. }) = answer else {
            bail!("the API server did not answer a TokenReview");
        };
        let status = status.unwrap_or_default();
        if status.authenticated != Some(true) {
            return Ok(None);
        }
        let name = status.user.and_then(|user| user.username);
        Ok(Some(name.unwrap_or_default()))
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn read_kubeconfig(path: &Path) -> anyhow::Result<Kubeconfig> {
    Kubeconfig::read_from(path).with_context(|| {
        format!(
            "no cluster: cannot read {}; run `make kind-up`, or set {KUBECONFIG}",
            path.display()
        )
    })
}
