//! Certificate and key from a mounted Secret, for platforms where another component (cert-manager) makes them and writes the
//! `caBundle`. Files that are broken in any way refuse the start; later the last good pair is kept.
//!
//! The files are looked at, not watched (docs/adr/0075): their content is compared, so the kubelet's swap of `..data` needs no care.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use rustls::ServerConfig;
use rustls::server::ParsedCertificate;
use rustls_pki_types::ServerName;
use time::OffsetDateTime;
use tokio::sync::watch;
use tollgate_shared::ready::BlockReady;
use tollgate_shared::tls;

use super::{CertificateError, IMPATIENT, server_names, trust};
use crate::metrics::Metrics;
use crate::voucher::Vouchers;

const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";

/// How often the files and the `caBundle` are looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// The pair of a folder, last seen good.
pub struct Files {
    folder: PathBuf,
    seen: Seen,
    /// Whether what was last seen is what is served.
    is_taken: bool,
    ends: OffsetDateTime,
    served: watch::Sender<Arc<ServerConfig>>,
    vouchers: watch::Sender<Arc<Vouchers>>,
}

/// A good pair: what to serve until when, and what all replicas know.
struct Loaded {
    config: ServerConfig,
    ends: OffsetDateTime,
    vouchers: Vouchers,
}

/// The content of both files, or why one could not be read.
type Seen = Result<[Vec<u8>; 2], FileFault>;

/// One of the files is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct FileFault {
    path: PathBuf,
    problem: String,
}

impl Files {
    /// Reads the pair.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn open(folder: PathBuf) -> Result<Self, CertificateError> {
        let seen = read(&folder);
        let loaded = load(&folder, seen.clone()?, OffsetDateTime::now_utc())?;
        let (served, _) = watch::channel(Arc::new(loaded.config));
        let (vouchers, _) = watch::channel(Arc::new(loaded.vouchers));
        Ok(Self {
            folder,
            seen,
            is_taken: true,
            ends: loaded.ends,
            served,
            vouchers,
        })
    }

    /// What the listener serves, now and later.
    #[must_use]
    pub fn served(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.served.subscribe()
    }

    /// By what replicas know each other, now and later: they mount the same key.
    #[must_use]
    pub fn vouchers(&self) -> watch::Receiver<Arc<Vouchers>> {
        self.vouchers.subscribe()
    }

    /// Looks at the files for ever. Lets go of `ready` once every `caBundle` of our webhook configurations trusts what the
    /// listener at `address` serves.
    pub async fn run(
        mut self,
        client: Client,
        metrics: Metrics,
        address: SocketAddr,
        ready: BlockReady,
    ) {
        let mut ready = Some(ready);
        metrics.leaf_ends(self.ends);
        loop {
            let good = self.look(OffsetDateTime::now_utc(), &metrics);
            let trusted = trusted(&client, address).await;
            metrics.certificates(good && trusted);
            if trusted {
                ready = None;
            }
            let pause = if ready.is_some() { IMPATIENT } else { PERIOD };
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes the pair if it has changed and is good; whether what is served is what the folder has, and still valid.
    fn look(&mut self, now: OffsetDateTime, metrics: &Metrics) -> bool {
        let seen = read(&self.folder);
        if seen != self.seen {
            self.seen.clone_from(&seen);
            self.is_taken = self.take(seen, now, metrics);
        }
        self.is_taken && now < self.ends
    }

    fn take(&mut self, seen: Seen, now: OffsetDateTime, metrics: &Metrics) -> bool {
        match seen.and_then(|pair| load(&self.folder, pair, now)) {
            Ok(loaded) => {
                self.served.send_replace(Arc::new(loaded.config));
                self.vouchers.send_replace(Arc::new(loaded.vouchers));
                self.ends = loaded.ends;
                metrics.leaf_ends(loaded.ends);
                tracing::info!(ends = %loaded.ends, "serving a new certificate");
                true
            }
            Err(fault) => {
                tracing::error!(%fault, "the changed certificate is refused; the last good one is kept");
                false
            }
        }
    }
}

/// Whether the API server can trust what the listener at `address` serves.
async fn trusted(client: &Client, address: SocketAddr) -> bool {
    let asked = async {
        let Some(bundles) = trust::bundles(client).await? else {
            tracing::warn!("our webhook configurations have no caBundle yet");
            return Ok(false);
        };
        let [name] = server_names();
        for bundle in bundles {
            trust::probe(address, &name, &bundle).await?;
        }
        Ok(true)
    };
    asked.await.unwrap_or_else(|error: CertificateError| {
        tracing::warn!(%error, "the API server cannot trust us");
        false
    })
}

/// Reads both files of one version: a kubelet swaps the folder `..data`, and a pair must not come from both sides of a swap.
fn read(folder: &Path) -> Seen {
    let version = folder.join("..data").canonicalize();
    let version = version.unwrap_or_else(|_| folder.to_owned());
    let read = |name: &str| {
        std::fs::read(version.join(name)).map_err(|error| FileFault {
            path: folder.join(name),
            problem: error.to_string(),
        })
    };
    Ok([read(CHAIN)?, read(KEY)?])
}

/// Checks the pair.
fn load(
    folder: &Path,
    [chain, key]: [Vec<u8>; 2],
    now: OffsetDateTime,
) -> Result<Loaded, FileFault> {
    let fault = |name: &str, problem: String| FileFault {
        path: folder.join(name),
        problem,
    };
    let of_chain = |problem: String| fault(CHAIN, problem);
    let chain = tls::certificates(&chain, "chain").map_err(|error| of_chain(error.to_string()))?;
    let leaf = chain
        .first()
        .ok_or_else(|| of_chain("is empty".to_owned()))?;
    let parsed = ParsedCertificate::try_from(leaf).map_err(|error| of_chain(error.to_string()))?;
    for name in server_names() {
        let wanted = ServerName::try_from(name.as_str())
            .map_err(|error| of_chain(format!("{name}: {error}")))?;
        rustls::client::verify_server_name(&parsed, &wanted)
            .map_err(|_| of_chain(format!("is not valid for the name {name}")))?;
    }
    let (_, x509) =
        x509_parser::parse_x509_certificate(leaf).map_err(|error| of_chain(error.to_string()))?;
    let ends = x509.validity().not_after.to_datetime();
    if now >= ends {
        return Err(of_chain(format!("has expired at {ends}")));
    }
    if now < x509.validity().not_before.to_datetime() {
        return Err(of_chain("is not valid yet".to_owned()));
    }
    let key = tls::private_key(&key, "key").map_err(|error| fault(KEY, error.to_string()))?;
    let vouchers = Vouchers::new([key.secret_der()]);
    let config = tls::server_config(chain, key, &[tls::HTTP_1_1])
        .map_err(|error| fault(KEY, error.to_string()))?;
    Ok(Loaded {
        config,
        ends,
        vouchers,
    })
}

#[cfg(test)]
mod tests;
