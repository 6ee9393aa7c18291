//! A relay between a sidecar and the real API server that sees every request and every token. It changes nothing: what happens
//! behind it is real. Only so can a test know the tokens that must appear nowhere, and read their claims.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HOST};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tollgate_shared::tls;

use crate::jwt::{self, Jwt};

/// One request that went through.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method, path and query.
    pub line: String,
    /// Its `Audit-ID`.
    pub audit_id: String,
    /// The token that it carried.
    pub bearer: Jwt,
    /// The token in the answer, if it was a TokenRequest that succeeded.
    pub minted: Option<Jwt>,
    /// HTTP status of the answer.
    pub status: u16,
}

/// Claims of a service account's token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// Its id.
    pub jti: String,
    /// When it was issued, in seconds since 1970.
    pub iat: u64,
    /// When it ends.
    pub exp: u64,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
}

/// The private claims of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Bound {
    /// Namespace of the service account.
    pub namespace: String,
    /// The pod, if it is bound to one.
    pub pod: Option<Reference>,
}

/// An object by name and UID.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Reads the claims of a token; its signature is the API server's business.
///
/// # Errors
/// It is no token of a service account; the message does not repeat it.
pub fn claims(token: &Jwt) -> anyhow::Result<Claims> {
    let payload = token.expose().split('.').nth(1).unwrap_or_default();
    let json = URL_SAFE_NO_PAD
        .decode(payload)
        .ok()
        .context("the claims are not in base64")?;
    // serde_json's messages may quote what they do not understand.
    serde_json::from_slice(&json)
        .ok()
        .context("not the claims of a service account's token")
}

/// The relay; it ends with the runtime of its test.
#[derive(Clone, Debug)]
pub struct Spy {
    /// `https://127.0.0.1:PORT`
    pub url: String,
    /// The CA to trust it by, PEM.
    pub ca_pem: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Spy {
    /// Starts to relay to the API server that `upstream` talks to; `upstream` must have no credential of its own.
    ///
    /// # Errors
    /// There is no port to be had.
    pub async fn start(upstream: kube::Client) -> anyhow::Result<Self> {
        let (ca_pem, acceptor) = identity()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", listener.local_addr()?);
        let seen = Arc::default();
        let spy = Self { url, ca_pem, seen };
        let relay = spy.clone();
        tokio::spawn(async move {
            // A refused connection shows in the test as what it is.
            while let Ok((stream, _)) = listener.accept().await {
                let (relay, upstream, acceptor) =
                    (relay.clone(), upstream.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await?;
                    let service =
                        service_fn(move |request| relay.clone().relay(upstream.clone(), request));
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await?;
                    anyhow::Ok(())
                });
            }
        });
        Ok(spy)
    }

    /// Everything so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn relay(
        self,
        upstream: kube::Client,
        request: Request<Incoming>,
    ) -> anyhow::Result<Response<Body>> {
        let (mut head, body) = request.into_parts();
        let text = |name: &str| {
            let value = head.headers.get(name);
            value
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let bearer = jwt::find(text(AUTHORIZATION.as_str()).as_bytes());
        let mut seen = Seen {
            line: format!("{} {}", head.method, head.uri),
            audit_id: text("audit-id"),
            bearer: bearer
                .into_iter()
                .next()
                .context("a request without a token")?,
            minted: None,
            status: 0,
        };
        head.headers.remove(HOST);
        let body = body.collect().await?.to_bytes();
        let answer = upstream
            .send(Request::from_parts(head, Body::from(body.to_vec())))
            .await?;
        let (head, mut body) = answer.into_parts();
        seen.status = head.status.as_u16();
        if seen.line.starts_with("POST ") && seen.line.ends_with("/token") {
            let bytes = body.collect().await?.to_bytes();
            seen.minted = jwt::find(&bytes).into_iter().next();
            body = Body::from(bytes.to_vec());
        }
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(seen);
        Ok(Response::from_parts(head, body))
    }
}

/// A CA and a server that it vouches for.
fn identity() -> anyhow::Result<(String, TlsAcceptor)> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate()?;
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&key, &issuer)?;
    let key = tls::private_key(key.serialize_pem().as_bytes(), "key of the spy")?;
    let server = tls::server_config(vec![leaf.into()], key, &[tls::HTTP_1_1])?;
    Ok((ca_certificate.pem(), TlsAcceptor::from(Arc::new(server))))
}
