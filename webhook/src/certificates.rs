//! Keeps the webhook trusted without any other component: the authority's Secret, this replica's leaf, the `caBundle` of our
//! own webhook configurations. Everything is read anew in each period, so that replicas, clock jumps and other people's edits
//! need no special cases; races between replicas are resolved by the API server.

mod authority;
mod files;
mod trust;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use rustls::ServerConfig;
use time::OffsetDateTime;
use tokio::sync::watch;
use tollgate_shared::contract::{PART_OF, SYSTEM_NAMESPACE, WEBHOOK_NAME};
use tollgate_shared::ready::BlockReady;
use tollgate_shared::tls;

use self::authority::{Authority, BadAuthority, CannotIssue, Leaf};
use self::trust::Trust;
use crate::metrics::Metrics;
use crate::voucher::Vouchers;

pub use self::files::{FileFault, Files};

/// Name of the Secret with the authority.
pub const SECRET: &str = "tollgate-webhook-ca";

/// How often everything is looked at. Authorities are trusted ten minutes before they sign, so this may be slow.
const PERIOD: Duration = Duration::from_secs(30);
/// How often until the webhook is trusted for the first time, and after an error.
const IMPATIENT: Duration = Duration::from_secs(2);

/// The certificates are not as they must be.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The Secret holds something else than what we wrote.
    #[error("Secret {SYSTEM_NAMESPACE}/{SECRET}: {0}")]
    Secret(String),
    /// The API server did not answer, or refused.
    #[error("{doing}: {source}")]
    Api {
        /// What was tried.
        doing: &'static str,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// No certificate could be made.
    #[error("{0}")]
    Issue(String),
    /// The certificate cannot be served.
    #[error("{0}")]
    Tls(#[from] tls::TlsError),
    /// A mounted certificate or key is of no use.
    #[error(transparent)]
    File(#[from] FileFault),
    /// Our own listener does not answer as the API server would want it.
    #[error("the listener does not answer: {0}")]
    Listener(std::io::Error),
}

impl From<BadAuthority> for CertificateError {
    fn from(error: BadAuthority) -> Self {
        Self::Secret(error.to_string())
    }
}

impl From<CannotIssue> for CertificateError {
    fn from(error: CannotIssue) -> Self {
        Self::Issue(error.to_string())
    }
}

fn api(doing: &'static str) -> impl Fn(kube::Error) -> CertificateError {
    move |source| CertificateError::Api {
        doing,
        source: Box::new(source),
    }
}

/// Makes and renews the certificates of one replica.
pub struct Certificates {
    client: Client,
    metrics: Metrics,
    authority: Authority,
    leaf: Leaf,
    served: watch::Sender<Arc<ServerConfig>>,
    vouchers: watch::Sender<Arc<Vouchers>>,
}

impl Certificates {
    /// Reads or makes the authority and issues the first leaf. While the API server does not answer it tries again.
    ///
    /// # Errors
    /// A Secret that we did not write: a start with it would end in a webhook that nobody trusts.
    pub async fn start(client: Client, metrics: Metrics) -> Result<Self, CertificateError> {
        loop {
            match Self::try_start(client.clone(), metrics.clone()).await {
                Err(error @ CertificateError::Api { .. }) => {
                    tracing::warn!(%error, "the certificate authority is not there yet");
                    tokio::time::sleep(IMPATIENT).await;
                }
                done => return done,
            }
        }
    }

    async fn try_start(client: Client, metrics: Metrics) -> Result<Self, CertificateError> {
        let now = OffsetDateTime::now_utc();
        let authority = stored(&client, None, now).await?;
        let leaf = authority.leaf(&server_names(), now)?;
        let (served, _) = watch::channel(Arc::new(config(&leaf)?));
        let (vouchers, _) = watch::channel(Arc::new(authority.vouchers(None)));
        metrics.leaf_ends(leaf.ends);
        Ok(Self {
            client,
            metrics,
            authority,
            leaf,
            served,
            vouchers,
        })
    }

    /// What the listener serves, now and later.
    #[must_use]
    pub fn served(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.served.subscribe()
    }

    /// By what replicas know each other, now and later.
    #[must_use]
    pub fn vouchers(&self) -> watch::Receiver<Arc<Vouchers>> {
        self.vouchers.subscribe()
    }

    /// Runs for ever. Lets go of `ready` once our webhook configurations trust our authority and the listener at `address`
    /// answers with a leaf of it.
    pub async fn run(mut self, address: SocketAddr, ready: BlockReady) {
        let mut ready = Some(ready);
        loop {
            let pause = self
                .look(address, &mut ready, OffsetDateTime::now_utc())
                .await;
            tokio::time::sleep(pause).await;
        }
    }

    /// One look at everything; how long until the next.
    async fn look(
        &mut self,
        address: SocketAddr,
        ready: &mut Option<BlockReady>,
        now: OffsetDateTime,
    ) -> Duration {
        let passed = self.pass(address, ready.is_some(), now).await;
        self.metrics.certificates(passed.is_ok());
        match passed {
            Ok(Trust::Stood) => *ready = None,
            Ok(Trust::Written) => return IMPATIENT,
            Ok(Trust::Missing) => {}
            Err(error) => {
                tracing::error!(%error, "the certificates could not be looked after; the last good ones are kept");
                return IMPATIENT;
            }
        }
        if ready.is_some() { IMPATIENT } else { PERIOD }
    }

    async fn pass(
        &mut self,
        address: SocketAddr,
        probe: bool,
        now: OffsetDateTime,
    ) -> Result<Trust, CertificateError> {
        let authority = stored(&self.client, Some(&self.authority), now).await?;
        let vouchers = authority.vouchers(Some(&self.authority));
        self.vouchers.send_replace(Arc::new(vouchers));
        self.authority = authority;
        let bundle = self.authority.bundle();
        let trust = trust::ensure(&self.client, &bundle).await?;
        // A caBundle that was just written has not reached every API server: a leaf that they trust serves until the next look.
        let can_wait = trust == Trust::Written && self.authority.trusts(&self.leaf);
        if !self.leaf.is_good(&self.authority, now) && !can_wait {
            let leaf = self.authority.leaf(&server_names(), now)?;
            self.served.send_replace(Arc::new(config(&leaf)?));
            tracing::info!(ends = %leaf.ends, "serving a new certificate");
            self.metrics.leaf_ends(leaf.ends);
            self.leaf = leaf;
        }
        if trust == Trust::Stood && probe {
            let [name] = server_names();
            trust::probe(address, &name, &bundle).await?;
        }
        Ok(trust)
    }
}

/// What the API server calls us.
fn server_names() -> [String; 1] {
    [format!("{WEBHOOK_NAME}.{SYSTEM_NAMESPACE}.svc")]
}

fn config(leaf: &Leaf) -> Result<ServerConfig, tls::TlsError> {
    tls::server_config(leaf.chain.clone(), leaf.key.clone_key(), &[tls::HTTP_1_1])
}

/// The authority as the Secret has it, made or moved on if the time asks for it. A Secret that somebody deleted is written
/// again from `held`, and one that somebody replaced, or made anew, goes on trusting what served so far: what was trusted never
/// ceases to be while a replica serves it.
async fn stored(
    client: &Client,
    held: Option<&Authority>,
    now: OffsetDateTime,
) -> Result<Authority, CertificateError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    loop {
        let found = secrets.get_opt(SECRET).await;
        let found = found.map_err(api("cannot read the Secret of the authority"))?;
        let data = found.as_ref().and_then(|secret| secret.data.as_ref());
        let data = data.filter(|data| !data.is_empty());
        let mut authority = match (data, held) {
            (Some(data), _) => Authority::from_secret(data)?,
            (None, Some(held)) => Authority::from_secret(&held.to_secret())?,
            (None, None) => first(client, now).await?,
        };
        let is_stored = data.is_some();
        let advanced = authority.advance(now)?;
        let kept = held.is_some_and(|held| authority.keep(held, now));
        if is_stored && !advanced && !kept {
            return Ok(authority);
        }
        let secret = secret(found, &authority);
        let written = match secret.metadata.resource_version {
            Some(_) => {
                secrets
                    .replace(SECRET, &PostParams::default(), &secret)
                    .await
            }
            None => secrets.create(&PostParams::default(), &secret).await,
        };
        match written {
            Ok(_) => {
                tracing::info!("wrote the Secret of the certificate authority");
                return Ok(authority);
            }
            // Another replica was first: AlreadyExists, Conflict, or it is gone again.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(source) => return Err(api("cannot write the Secret of the authority")(source)),
        }
    }
}

/// A new authority, beside the one that our webhook configurations trust already: other replicas may still serve its leaves.
async fn first(client: &Client, now: OffsetDateTime) -> Result<Authority, CertificateError> {
    let mut authority = Authority::new(now)?;
    for bundle in trust::bundles(client).await?.into_iter().flatten() {
        authority.keep_bundle(&bundle, now);
    }
    Ok(authority)
}

/// The Secret to write: the one that was found, with its resource version, or a new one.
fn secret(found: Option<Secret>, authority: &Authority) -> Secret {
    let mut secret = found.unwrap_or_else(|| Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            labels: Some([(PART_OF.0.to_owned(), PART_OF.1.to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    });
    secret.data = Some(authority.to_secret());
    secret
}

#[cfg(test)]
mod tests;
