//! The process: binds its ports, then runs until it is told to end. Owns every task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tollgate_shared::admin::Admin;
use tollgate_shared::drain;
use tollgate_shared::ready::Ready;
use tollgate_shared::serve::{self, BindError, Limits, Listener};

use crate::audience;
use crate::certificates::{CertificateError, Certificates, Files};
use crate::client;
use crate::config::{Config, LOOK, Source};
use crate::enable::{BadBuild, Enable};
use crate::events::Events;
use crate::metrics::{Metrics, PREFIX};
use crate::review::Review;

/// How long connections are accepted after the end was signalled: endpoints empty within seconds.
const LINGER: Duration = Duration::from_secs(8);
/// How many connections one address may hold, out of 1,024. An API server opens one for each review that it has under way, and
/// admits 200 changes at a time by default; somebody else's pod shall not take the place of all API servers.
const CONNECTIONS_OF_PEER: usize = 512;
/// How long a connection may wait for its next review: longer than the 90 s after which the API server's client closes it.
const IDLE: Duration = Duration::from_secs(120);
/// How long open reviews may then take. With [`LINGER`] it stays below the Deployment's 30 s of grace.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the process ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A port is taken.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is no way to reach the API server.
    #[error("no access to the Kubernetes API: {0}")]
    Client(Box<kube::Error>),
    /// The certificates cannot be had.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The build is broken.
    #[error(transparent)]
    Build(#[from] BadBuild),
    /// A task that runs for ever has ended.
    #[error("a background task has ended: {0}")]
    Task(String),
}

/// The process with its ports bound, not serving yet.
pub struct Bound {
    listener: Listener,
    admin: Admin,
    certificates: Option<Files>,
    client: Client,
    source: Source,
    metrics: Metrics,
    ready: Ready,
}

impl Bound {
    /// Binds both ports and prepares access to the API server.
    ///
    /// # Errors
    /// A port that is taken; no access.
    pub async fn new(config: Config) -> Result<Self, AppError> {
        let mut registry = Registry::with_prefix(PREFIX);
        let metrics = Metrics::register(&mut registry);
        let connections = serve::Metrics::register(&mut registry);
        let ready = Ready::default();
        let limits = Limits {
            connections_of_peer: CONNECTIONS_OF_PEER,
            idle: IDLE,
            linger: LINGER,
            drain: DRAIN,
            ..Limits::default()
        };
        let listener = Listener::bind(config.address, limits).await?;
        let listener = listener.with_metrics(connections);
        let admin = Admin::bind(config.admin_address, ready.clone(), Arc::new(registry)).await?;
        let certificates = config.certificate_dir.map(Files::open).transpose()?;
        let client = client::default().await;
        Ok(Self {
            listener,
            admin,
            certificates,
            client: client.map_err(|error| AppError::Client(Box::new(error)))?,
            source: config.source,
            metrics,
            ready,
        })
    }

    /// Where reviews are answered.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Where the admin port is.
    #[must_use]
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Runs until `drain` was signalled and every review is answered.
    ///
    /// # Errors
    /// What ended it before.
    pub async fn run(self, drain: drain::Watch) -> Result<(), AppError> {
        // The admin port outlives the drain: probes and the last scrape go on.
        let (_until_return, admin_drain) = drain::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(task(self.admin.serve(admin_drain)));
        tasks.spawn(task(unready_on_drain(self.ready.clone(), drain.clone())));

        let blocked = self.ready.block("our own caBundle and certificate");
        let config = self.source.current();
        let (client, metrics) = (self.client.clone(), self.metrics.clone());
        let address = self.listener.address();
        let (served, vouchers) = if let Some(files) = self.certificates {
            let served = (files.served(), files.vouchers());
            tasks.spawn(task(files.run(client, metrics, address, blocked)));
            served
        } else {
            let mut interrupted = drain.clone();
            let own = tokio::select! {
                started = Certificates::start(client, metrics) => started?,
                () = interrupted.signaled() => return Ok(()),
            };
            let served = (own.served(), own.vouchers());
            tasks.spawn(task(own.run(address, blocked)));
            served
        };
        let listener = self.listener.with_tls(served);
        let enable = Enable::new(self.client.clone(), config.clone(), self.metrics.clone());
        tasks.spawn(task(self.source.run(self.metrics.clone(), LOOK)));
        let (hints, events) =
            Events::new(self.client.clone(), config.clone(), self.metrics.clone());
        tasks.spawn(task(events.run()));
        tasks.spawn(task(audience::run(self.client)));
        tasks.spawn(async move { Ok(enable.run().await?) });

        let review = Review::new(config, vouchers, self.metrics).with_hints(hints);
        let make = move |_peer| {
            let review = review.clone();
            service_fn(move |request| review.clone().answer(request))
        };
        tokio::select! {
            () = listener.serve(make, drain) => Ok(()),
            ended = tasks.join_next() => Err(early(ended)),
        }
    }
}

/// A task that runs for ever; if it returns, the process ends.
async fn task(forever: impl Future<Output = ()>) -> Result<(), AppError> {
    forever.await;
    Ok(())
}

fn early(ended: Option<Result<Result<(), AppError>, tokio::task::JoinError>>) -> AppError {
    match ended {
        Some(Ok(Err(error))) => error,
        Some(Err(error)) => AppError::Task(error.to_string()),
        Some(Ok(Ok(()))) | None => AppError::Task("without an error".to_owned()),
    }
}

async fn unready_on_drain(ready: Ready, mut drain: drain::Watch) {
    drain.signaled().await;
    let _draining = ready.block("the end of the drain");
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// A pod that is killed while it drains loses the reviews that it still had.
    #[test]
    fn the_kubelet_waits_longer_than_the_drain_takes() {
        let manifest = include_str!("../../manifests/base/webhook-deployment.yaml");
        let deployment: Value = serde_saphyr::from_str(manifest).unwrap();
        let grace = &deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
        let grace = Duration::from_secs(grace.as_u64().unwrap());
        assert!(grace >= LINGER + DRAIN + Duration::from_secs(5));
    }
}
