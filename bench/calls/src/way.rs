//! Ways to the API server: one connection, one call at a time.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::uri::Authority;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tollgate_shared::secret::Token;
use tollgate_shared::tls;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Something that serves the Kubernetes API.
pub(crate) struct Target {
    pub(crate) authority: Authority,
    /// Without one it speaks plain HTTP.
    pub(crate) ca_pem: Option<String>,
    pub(crate) bearer: Option<Token>,
}

/// A connection to a target, or a share of one.
pub(crate) struct Way<'a> {
    target: &'a Target,
    sender: Sender,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl<'a> Way<'a> {
    pub(crate) async fn open(target: &'a Target, protocol: Protocol) -> anyhow::Result<Self> {
        let host = target.authority.host();
        let port = target.authority.port_u16().unwrap_or(443);
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        let sender = match &target.ca_pem {
            None => handshake(tcp, protocol).await?,
            Some(ca_pem) => {
                let name: &[u8] = match protocol {
                    Protocol::Http1 => tls::HTTP_1_1,
                    Protocol::Http2 => b"h2",
                };
                let config = tls::client_config(ca_pem.as_bytes(), &[name])?;
                let name = ServerName::try_from(host.to_owned())?;
                let tls = TlsConnector::from(Arc::new(config))
                    .connect(name, tcp)
                    .await?;
                handshake(tls, protocol).await?
            }
        };
        Ok(Self { target, sender })
    }

    /// As many as that: each its own connection, or all of them streams of one.
    pub(crate) async fn open_many(
        target: &'a Target,
        protocol: Protocol,
        count: usize,
    ) -> anyhow::Result<Vec<Self>> {
        let mut ways = vec![Self::open(target, protocol).await?];
        while ways.len() < count {
            let shared = ways.first().and_then(|way| match &way.sender {
                Sender::Http2(sender) => Some(Sender::Http2(sender.clone())),
                Sender::Http1(_) => None,
            });
            ways.push(match shared {
                Some(sender) => Self { target, sender },
                None => Self::open(target, protocol).await?,
            });
        }
        Ok(ways)
    }

    /// A GET that must succeed, to the end of its body.
    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<()> {
        self.begin(path).await?.into_body().collect().await?;
        Ok(())
    }

    /// A GET that must succeed, to the head of its answer.
    pub(crate) async fn begin(&mut self, path: &str) -> anyhow::Result<Response<Incoming>> {
        let mut request = match &self.sender {
            Sender::Http1(_) => Request::get(path).header(HOST, self.target.authority.as_str()),
            Sender::Http2(_) => Request::get(format!("https://{}{path}", self.target.authority))
                .version(Version::HTTP_2),
        };
        if let Some(token) = &self.target.bearer {
            request = request.header(AUTHORIZATION, token.bearer());
        }
        let request = request.body(Empty::new())?;
        let answer = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        ensure!(answer.status() == 200, "{path}: {}", answer.status());
        Ok(answer)
    }
}

async fn handshake<T>(io: T, protocol: Protocol) -> anyhow::Result<Sender>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(io);
    Ok(match protocol {
        Protocol::Http1 => {
            let (sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            Sender::Http1(sender)
        }
        Protocol::Http2 => {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            Sender::Http2(sender)
        }
    })
}

/// A running `kubectl proxy`, with the rights of the kubeconfig's user.
pub(crate) struct KubectlProxy {
    child: Child,
    target: Target,
}

impl KubectlProxy {
    pub(crate) fn start(kubectl: &Path, kubeconfig: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(kubectl)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["proxy", "--port=0"])
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", kubectl.display()))?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().unwrap_or_default();
        let target = Target {
            authority: address
                .parse()
                .with_context(|| format!("kubectl proxy says {line:?}"))?,
            ca_pem: None,
            bearer: None,
        };
        Ok(Self { child, target })
    }

    pub(crate) const fn target(&self) -> &Target {
        &self.target
    }
}

impl Drop for KubectlProxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
