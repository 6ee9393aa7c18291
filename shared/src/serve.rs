//! The one serving loop of both binaries: accept, limit, TLS, HTTP/1.1 with upgrades, drain. It knows nothing of what is
//! served, buffers no body, and every task that it starts ends with its connection.
//!
//! Only HTTP/1.1: upgrades need it, and the API server's webhook client offers nothing else
//! (`apiserver/pkg/util/webhook/client.go`, `NextProtos`).

mod connection;
mod framing;
mod idle;
mod metrics;
mod peers;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};

use crate::drain;

use self::metrics::Cause;
use self::peers::{Peer, Peers};

pub use self::metrics::Metrics;

/// What a body or a service may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long to wait after the kernel refused a connection (usually: no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// What the kernel said.
    pub source: io::Error,
}

/// Limits of one listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time, upgraded ones included. Further ones wait in the kernel's queue.
    pub connections: usize,
    /// Connections of one address at a time. Further ones are closed at once.
    pub connections_of_peer: usize,
    /// From the accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a request to the end of its headers.
    pub head: Duration,
    /// Between two requests on a connection. Longer than clients keep their idle connections (Go: 90 s, OkHttp: 5 min),
    /// so that the client closes first and no request meets a closing connection.
    pub idle: Duration,
    /// Header fields of a request; more get a 431.
    pub headers: usize,
    /// Request line and headers together, in bytes, at least 8192; more get a 431.
    pub head_bytes: usize,
    /// How long connections are still accepted once the drain was signalled, with `Connection: close` on every answer:
    /// the time that it takes until nobody is sent here any more.
    pub linger: Duration,
    /// How long open connections, upgraded ones included, may then go on.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_of_peer: usize::MAX,
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(10),
            idle: Duration::from_mins(10),
            headers: 100,
            head_bytes: 64 * 1024,
            linger: Duration::ZERO,
            drain: Duration::from_secs(20),
        }
    }
}

/// A bound socket, ready to serve.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    limits: Limits,
    metrics: Metrics,
}

impl Listener {
    /// Binds an address for plain HTTP; port 0 takes a free one. `[::]` is every address of both families, and every IPv4
    /// address where the kernel has no IPv6.
    ///
    /// # Errors
    /// [`BindError`], which names the address.
    pub async fn bind(address: SocketAddr, limits: Limits) -> Result<Self, BindError> {
        let mut bound = TcpListener::bind(address).await;
        if bound.is_err() && address.ip() == Ipv6Addr::UNSPECIFIED && !has_ipv6().await {
            bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await;
        }
        let named = bound.and_then(|tcp| Ok((tcp.local_addr()?, tcp)));
        let (address, tcp) = named.map_err(|source| BindError { address, source })?;
        Ok(Self {
            tcp,
            address,
            tls: None,
            limits,
            metrics: Metrics::default(),
        })
    }

    /// Speaks TLS with the newest configuration of `config`; each connection keeps the one it began with.
    #[must_use]
    pub fn with_tls(self, config: watch::Receiver<Arc<ServerConfig>>) -> Self {
        Self {
            tls: Some(config),
            ..self
        }
    }

    /// Counts connections in `metrics`.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// The real address, after port 0 was resolved.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the drain was signalled and every connection has ended, or their time is up. `make` gives the service
    /// of one connection from the address of its peer. A service that panics ends its own connection only.
    pub async fn serve<M, S, B>(self, make: M, drain: drain::Watch)
    where
        M: Fn(SocketAddr) -> S,
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let permits = Arc::new(Semaphore::new(self.limits.connections));
        let peers = Peers::new(self.limits.connections_of_peer);
        let (close, closing) = drain::channel();
        let mut tasks = JoinSet::new();
        let mut stop = std::pin::pin!(stop(drain.clone(), self.limits.linger));
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(ended) = tasks.join_next() => report(ended),
                (stream, address, peer, permit) = self.accept(&permits, &peers) => {
                    let connection = connection::Connection {
                        stream,
                        guard: self.metrics.opened(permit, peer),
                        tls: self.tls.as_ref().map(|config| Arc::clone(&config.borrow())),
                        limits: self.limits.clone(),
                        metrics: self.metrics.clone(),
                        draining: drain.clone(),
                        closing: closing.clone(),
                    };
                    tasks.spawn(connection.run(make(address)));
                }
            }
        }
        drop(self.tcp);
        close.signal();
        let rest = async {
            while let Some(ended) = tasks.join_next().await {
                report(ended);
            }
            // An upgraded connection has left its task, but still holds its permit.
            let all = u32::try_from(self.limits.connections).unwrap_or(u32::MAX);
            drop(permits.acquire_many(all).await);
        };
        if tokio::time::timeout(self.limits.drain, rest).await.is_err() {
            tracing::warn!(address = %self.address, "connections were cut at the end of the drain");
        }
        tasks.shutdown().await;
    }

    /// The next connection, once there is room for it.
    async fn accept(
        &self,
        permits: &Arc<Semaphore>,
        peers: &Peers,
    ) -> (TcpStream, SocketAddr, Peer, OwnedSemaphorePermit) {
        loop {
            let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
                // The semaphore is never closed.
                std::future::pending::<()>().await;
                continue;
            };
            match self.tcp.accept().await {
                Ok((stream, address)) => match peers.enter(address.ip()) {
                    Some(peer) => return (stream, address, peer, permit),
                    None => self.metrics.turned_away(Cause::TooManyOfPeer),
                },
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    tracing::warn!(address = %self.address, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await.is_ok()
}

async fn stop(mut drain: drain::Watch, linger: Duration) {
    drain.signaled().await;
    tokio::time::sleep(linger).await;
}

/// Whether a failed accept says something of one peer only: accept(2) hands on errors of a connection that is gone already.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        // The panic hook has written where; its message may hold what a peer sent.
        tracing::error!("a connection ended in a panic");
    }
}

#[cfg(test)]
mod tests;
