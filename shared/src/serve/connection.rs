//! The life of one connection: look at its first byte, shake hands, serve requests, end in time.

use std::io;
use std::sync::Arc;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::metrics::{Cause, Guard};
use super::{BoxError, Limits, Metrics, idle};
use crate::drain;

/// What a peer gets that speaks plain HTTP where HTTPS is spoken.
const PLAIN_HTTP: &str = "this port speaks HTTPS: use https:// instead of http://\n";

/// Bytes of a plain request that are read before the connection is closed: unread ones would reset it under the answer.
const PLAIN_HTTP_BYTES: u64 = 64 * 1024;

/// One accepted connection.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) guard: Guard,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    pub(super) draining: drain::Watch,
    pub(super) closing: drain::Watch,
}

impl Connection {
    /// Serves the connection to its end; what goes wrong concerns this peer only.
    pub(super) async fn run<S, B>(self, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let Self {
            stream,
            guard,
            tls,
            limits,
            metrics,
            draining,
            mut closing,
        } = self;
        // Answers are small and awaited; without it Nagle's algorithm would hold them back. A failure costs only that.
        drop(stream.set_nodelay(true));
        let Some(config) = tls else {
            return http(stream, guard, &limits, service, draining, closing).await;
        };
        let handshake = tokio::select! {
            ended = tokio::time::timeout(limits.handshake, Box::pin(handshake(stream, config))) => ended,
            // A peer that has not finished its handshake has asked for nothing yet.
            () = closing.signaled() => return,
        };
        match handshake {
            Ok(Ok(Greeted::Tls(stream))) => {
                http(*stream, guard, &limits, service, draining, closing).await;
            }
            Ok(Ok(Greeted::PlainHttp)) => metrics.turned_away(Cause::PlainHttp),
            Ok(Ok(Greeted::Closed)) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                metrics.turned_away(Cause::Handshake);
            }
            Err(_) => metrics.turned_away(Cause::HandshakeTimeout),
        }
    }
}

enum Greeted {
    Tls(Box<TlsStream<TcpStream>>),
    PlainHttp,
    Closed,
}

async fn handshake(mut stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<Greeted> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(Greeted::Closed);
    }
    // A TLS handshake record begins with 22, an HTTP request with the first letter of its method.
    if first.iter().all(u8::is_ascii_alphabetic) {
        refuse_plain_http(&mut stream).await?;
        return Ok(Greeted::PlainHttp);
    }
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    Ok(Greeted::Tls(Box::new(stream)))
}

async fn refuse_plain_http(stream: &mut TcpStream) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{PLAIN_HTTP}",
        PLAIN_HTTP.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(PLAIN_HTTP_BYTES);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

async fn http<T, S, B>(
    stream: T,
    guard: Guard,
    limits: &Limits,
    service: S,
    draining: drain::Watch,
    mut closing: drain::Watch,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let (stream, clock, switched) = idle::watch(stream, guard, limits.head);
    let service = service_fn(move |request| {
        let answer = service.call(request);
        let (draining, switched) = (draining.clone(), switched.clone());
        async move {
            let mut response = answer.await?;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                switched.set();
            } else if draining.is_signaled() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, S::Error>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(clock)
        .header_read_timeout(limits.idle)
        .max_headers(limits.headers)
        .max_header_size(limits.head_bytes)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = closing.signaled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection failed");
    }
}
