//! The admin port, plain HTTP: `/livez`, `/readyz` (what is waited for), `/metrics` (OpenMetrics text). It shows no secret
//! and changes nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use prometheus_client::registry::Registry;

use crate::drain;
use crate::ready::Ready;
use crate::serve::{BindError, Limits, Listener};

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The bound admin port.
#[derive(Debug)]
pub struct Admin {
    listener: Listener,
    ready: Ready,
    registry: Arc<Registry>,
}

impl Admin {
    /// Binds the admin port.
    ///
    /// # Errors
    /// [`BindError`], which names the address.
    pub async fn bind(
        address: SocketAddr,
        ready: Ready,
        registry: Arc<Registry>,
    ) -> Result<Self, BindError> {
        let limits = Limits {
            connections: 64,
            idle: Duration::from_mins(2),
            head_bytes: 8192,
            drain: Duration::from_secs(1),
            ..Limits::default()
        };
        let listener = Listener::bind(address, limits).await?;
        Ok(Self {
            listener,
            ready,
            registry,
        })
    }

    /// The real address.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until the drain was signalled. Let that be the last one of the process: probes go on while it drains.
    pub async fn serve(self, drain: drain::Watch) {
        let Self {
            listener,
            ready,
            registry,
        } = self;
        let make = |_peer| {
            let (ready, registry) = (ready.clone(), Arc::clone(&registry));
            service_fn(move |request| {
                let response = answer(&request, &ready, &registry);
                async move { Ok::<_, Infallible>(response) }
            })
        };
        listener.serve(make, drain).await;
    }
}

fn answer<B>(request: &Request<B>, ready: &Ready, registry: &Registry) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => readiness(ready),
        "/metrics" => metrics(registry),
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /livez, /readyz and /metrics\n",
        ),
    }
}

fn readiness(ready: &Ready) -> Response<Full<Bytes>> {
    let waiting = ready.waiting_for();
    if waiting.is_empty() {
        return text(StatusCode::OK, "ok\n");
    }
    let list = format!("waiting for: {}\n", waiting.join(", "));
    text(StatusCode::SERVICE_UNAVAILABLE, list)
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut page = String::new();
    match prometheus_client::encoding::text::encode(&mut page, registry) {
        Ok(()) => respond(StatusCode::OK, OPEN_METRICS, page),
        Err(error) => {
            tracing::error!(%error, "cannot write the metrics");
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "cannot write the metrics\n",
            )
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond(status, TEXT, body)
}

fn respond(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use prometheus_client::metrics::counter::Counter;

    async fn ask(method: &str, path: &str, ready: &Ready) -> (u16, String) {
        let mut registry = Registry::default();
        registry.register("calls", "Calls", Counter::<u64>::default());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(())
            .unwrap();
        let response = answer(&request, ready, &registry);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn answers_each_page() {
        let ready = Ready::default();
        let blocked = Ready::default();
        let _guards = (blocked.block("mint"), blocked.block("policies"));
        for (method, path, ready, status, part) in [
            ("GET", "/livez", &blocked, 200, "ok"),
            ("GET", "/readyz", &ready, 200, "ok"),
            (
                "GET",
                "/readyz",
                &blocked,
                503,
                "waiting for: mint, policies",
            ),
            ("GET", "/metrics", &ready, 200, "calls_total 0"),
            ("GET", "/metrics", &ready, 200, "# EOF"),
            ("HEAD", "/livez", &ready, 200, ""),
            ("POST", "/livez", &ready, 405, "GET"),
            ("GET", "/debug/pprof", &ready, 404, "/metrics"),
        ] {
            let (got, body) = ask(method, path, ready).await;
            assert_eq!(got, status, "{method} {path}");
            assert!(body.contains(part), "{method} {path}: {body}");
        }
    }
}
