//! Connections to the API server: pooled, verified against the cluster's CA (read again when it is replaced), never retried but
//! where a pooled connection was closed before a byte of the request was sent.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tollgate_shared::tls;

use crate::body::CallBody;
use crate::file::{FileError, Fresh};
use crate::names::Names;

/// A server that answers no SYN is not there; the API server is one or two hops away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that vanished without a word is noticed after this long, in the middle of a watch too.
const SILENCE: Duration = Duration::from_secs(30);
/// Below the API server's own 90 s (`apiserver/pkg/server/secure_serving.go`), so that we close first.
const IDLE: Duration = Duration::from_secs(60);
/// Kept for bursts; each is a TLS session in memory.
const IDLE_CONNECTIONS: usize = 16;

type HyperClient = Client<HttpsConnector<HttpConnector<Names>>, CallBody>;

/// The API server did not answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection, or it broke off before the answer.
    #[error("{0}")]
    Connection(String),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

/// The API server.
pub struct Upstream {
    authority: Authority,
    /// The name that its certificate must have, where that is not its host.
    server_name: Option<ServerName<'static>>,
    /// The cluster's CA, where somebody may replace it.
    ca: Option<Fresh<ClientConfig>>,
    names: Names,
    current: Mutex<Current>,
}

struct Current {
    generation: u64,
    client: HyperClient,
}

impl Upstream {
    /// `ca` is a file with the cluster's CA certificates, PEM.
    ///
    /// # Errors
    /// When the file cannot be read or holds no certificate.
    pub fn new(authority: Authority, ca: &Path) -> Result<Self, FileError> {
        let ca = Fresh::open(ca.to_owned(), |pem| {
            tls::client_config(pem.as_bytes(), &[]).map_err(|error| error.to_string())
        })?;
        let (config, generation) = ca.get();
        let mut upstream = Self::fixed(authority, None, &config);
        upstream
            .current
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .generation = generation;
        upstream.ca = Some(ca);
        Ok(upstream)
    }

    /// With certificates that stay.
    #[must_use]
    pub fn fixed(
        authority: Authority,
        server_name: Option<ServerName<'static>>,
        config: &Arc<ClientConfig>,
    ) -> Self {
        let names = Names::default();
        let current = Mutex::new(Current {
            generation: 0,
            client: client(config, names.clone(), server_name.clone()),
        });
        Self {
            authority,
            server_name,
            ca: None,
            names,
            current,
        }
    }

    /// The absolute URI for the bytes that the agent sent as path and query.
    #[must_use]
    pub fn uri(&self, path_and_query: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path_and_query);
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Sends a request whose URI came from [`Self::uri`], and waits for the head of the answer, for `limit` at most.
    ///
    /// # Errors
    /// [`UpstreamError`]; whether the API server saw the request is then unknown.
    pub async fn send(
        &self,
        request: Request<CallBody>,
        limit: Option<Duration>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let answer = self.client().request(request);
        let answer = match limit {
            Some(limit) => tokio::time::timeout(limit, answer)
                .await
                .map_err(|_| UpstreamError::Timeout(limit))?,
            None => answer.await,
        };
        answer.map_err(|error| UpstreamError::Connection(chain(&error)))
    }

    /// The client; a new one, with new connections, after the cluster's CA was replaced.
    fn client(&self) -> HyperClient {
        let ca = self.ca.as_ref().map(Fresh::get);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((config, generation)) = ca
            && current.generation != generation
        {
            *current = Current {
                generation,
                client: client(&config, self.names.clone(), self.server_name.clone()),
            };
        }
        current.client.clone()
    }
}

fn client(
    config: &Arc<ClientConfig>,
    names: Names,
    server_name: Option<ServerName<'static>>,
) -> HyperClient {
    let mut tcp = HttpConnector::new_with_resolver(names);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(SILENCE / 2));
    tcp.set_keepalive_interval(Some(SILENCE / 6));
    tcp.set_keepalive_retries(Some(3));
    tcp.set_tcp_user_timeout(Some(SILENCE));
    let https = HttpsConnectorBuilder::new()
        .with_tls_config((**config).clone())
        .https_only();
    let https = match server_name {
        Some(name) => https.with_server_name_resolver(FixedServerNameResolver::new(name)),
        None => https,
    };
    let https = https.enable_http1();
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .retry_canceled_requests(true)
        .build(https.wrap_connector(tcp))
}

/// An error with its causes: `client error (Connect): tcp connect error: Connection refused`.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
