//! One TokenRequest a call: asked for with the sidecar's own credential, bound to this pod (or its node), used once, dropped.
//! `mint: on-demand` asks when the call is there; `mint: ahead` takes the token from a [`stock`].

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};
use tollgate_shared::record::AuditId;
use tollgate_shared::secret::Token;

use crate::body::CallBody;
use crate::config::{Bound, Config, Target};
use crate::credential::{Credential, Shown};
use crate::file::FileError;
use crate::refusal::{Reason, Refusal};
use crate::upstream::{Upstream, UpstreamError};

mod answer;
pub mod own;
pub mod stock;

use answer::Asked;

/// A token for one call.
#[derive(Debug)]
pub struct Minted {
    /// The token.
    pub token: Token,
    /// `JTI=…`, as the API server logs it (`authentication.kubernetes.io/credential-id`).
    pub credential_id: String,
    /// When, in seconds since 1970 by the API server's clock.
    issued: u64,
}

/// Larger than any TokenRequest with its token.
const ANSWER_LIMIT: usize = 64 * 1024;
/// The API server's own tolerance for the times in a token (go-jose's `DefaultLeeway`).
const CLOCK_TOLERANCE: u64 = 60;

/// Mints tokens.
pub struct Mint {
    credential: Credential,
    path: PathAndQuery,
    body: Bytes,
    limit: Duration,
    asked: Asked,
    /// The clocks were seen to differ, and that was said.
    skewed: AtomicBool,
}

impl Mint {
    /// Prepares the one request that is ever made, with this credential.
    ///
    /// # Errors
    /// When the names make no path.
    pub fn new(config: &Config, credential: Credential) -> Result<Self, FileError> {
        let Target {
            namespace, account, ..
        } = &config.target;
        let path = path(namespace, account).map_err(|message| FileError::Content {
            path: Path::new("service-account").to_owned(),
            message,
        })?;
        Ok(Self {
            path,
            body: Bytes::from(request_body(config).to_string()),
            limit: config.mint_timeout,
            asked: Asked {
                target: format!("{namespace}/{account}"),
                seconds: config.settings.token_ttl.seconds(),
                origin: credential.origin,
            },
            skewed: AtomicBool::new(false),
            credential,
        })
    }

    /// Path of the TokenRequest, for the record of a mint that belongs to no call.
    #[must_use]
    pub fn path(&self) -> &PathAndQuery {
        &self.path
    }

    /// Seconds since the API server issued the bootstrap token, if that is what mints. The kubelet renews it at 80 % of its life.
    #[must_use]
    pub fn credential_age(&self) -> Option<f64> {
        let issued = Duration::from_secs(self.credential.issued()?);
        Some(since_1970().as_secs_f64() - issued.as_secs_f64())
    }

    /// Mints a token. `audit_id` goes with the TokenRequest, so that its event is found even if this process dies now.
    ///
    /// # Errors
    /// A refusal for the agent: 429 with the API server's `Retry-After`, or 503.
    pub async fn mint(&self, upstream: &Upstream, audit_id: AuditId) -> Result<Minted, Refusal> {
        let audit_id = &audit_header(audit_id);
        let shown = self.shown(self.credential.get().await)?;
        let minted = match self.ask(upstream, audit_id, &shown).await {
            // A refused request changed nothing.
            Err(refusal) if refusal.reason == Reason::MintCredentialRejected => {
                let renewed = self.credential.renew(&shown).await;
                let Some(shown) = self.shown(renewed)? else {
                    return Err(refusal);
                };
                self.ask(upstream, audit_id, &shown).await?
            }
            answer => answer?,
        };
        self.compare_clocks(minted.issued);
        Ok(minted)
    }

    /// A credential that could not be had refuses the call.
    fn shown<T>(&self, shown: Result<T, String>) -> Result<T, Refusal> {
        shown.map_err(|error| {
            let message = format!(
                "no token could be minted for {}: {error}",
                self.asked.target
            );
            let refusal = Refusal {
                retry_after: Some(5),
                ..Refusal::new(Reason::MintFailed, message)
            };
            tracing::warn!(%refusal, "mint failed");
            refusal
        })
    }

    async fn ask(
        &self,
        upstream: &Upstream,
        audit_id: &HeaderValue,
        shown: &Shown,
    ) -> Result<Minted, Refusal> {
        let upstream = shown.connections.as_deref().unwrap_or(upstream);
        let mut request = Request::new(CallBody::Own(Some(self.body.clone())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = upstream.uri(self.path.clone());
        let headers = request.headers_mut();
        if let Some(bearer) = &shown.bearer {
            headers.insert(AUTHORIZATION, bearer.clone());
        }
        headers.insert("audit-id", audit_id.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("tollgate-sidecar/", env!("CARGO_PKG_VERSION"))),
        );
        let answer = async {
            let response = upstream.send(request, None).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect().await;
            let body = body.map_err(|error| UpstreamError::Connection(error.to_string()))?;
            Ok((head, body.to_bytes()))
        };
        let answer = tokio::time::timeout(self.limit, answer).await;
        let answer = answer.unwrap_or(Err(UpstreamError::Timeout(self.limit)));
        let read = answer
            .map_err(|error| self.asked.unreachable(&error))
            .and_then(|(head, body)| self.asked.read(head.status, &head.headers, &body));
        if let Err(refusal) = &read {
            tracing::warn!(%refusal, "mint failed");
        }
        read
    }

    /// The API server is the judge of its tokens, so nothing is decided by our clock: a wrong one is only said, once.
    fn compare_clocks(&self, issued: u64) {
        let ours = since_1970().as_secs();
        let skewed = ours.abs_diff(issued) > CLOCK_TOLERANCE;
        if skewed != self.skewed.swap(skewed, Ordering::Relaxed) {
            if skewed {
                tracing::warn!(
                    ours,
                    issued,
                    "the clocks of this node and of the API server differ"
                );
            } else {
                tracing::info!("the clocks of this node and of the API server agree again");
            }
        }
    }
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// An `Audit-ID` as a header.
pub fn audit_header(id: AuditId) -> HeaderValue {
    // A UUID is always a header value.
    HeaderValue::from_str(&id.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn path(namespace: &str, account: &str) -> Result<PathAndQuery, String> {
    let plain = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
    };
    if !plain(namespace) || !plain(account) {
        return Err(format!(
            "{namespace:?} and {account:?} are no names of a namespace and a service account"
        ));
    }
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    PathAndQuery::try_from(path).map_err(|error| error.to_string())
}

fn request_body(config: &Config) -> Value {
    let mut spec = json!({
        "audiences": config.settings.audiences,
        "expirationSeconds": config.settings.token_ttl.seconds(),
    });
    let bound = match &config.target.bound {
        Bound::Pod { name, uid } => Some(("Pod", name, Some(uid))),
        Bound::Node(name) => Some(("Node", name, None)),
        Bound::Secret(name) => Some(("Secret", name, None)),
        Bound::Nothing => None,
    };
    if let (Some((kind, name, uid)), Some(spec)) = (bound, spec.as_object_mut()) {
        let mut object = json!({ "apiVersion": "v1", "kind": kind, "name": name });
        if let (Some(uid), Some(object)) = (uid, object.as_object_mut()) {
            object.insert("uid".to_owned(), uid.as_str().into());
        }
        spec.insert("boundObjectRef".to_owned(), object);
    }
    json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_change_the_path_are_refused() {
        assert_eq!(
            path("ns", "sa").unwrap(),
            "/api/v1/namespaces/ns/serviceaccounts/sa/token"
        );
        for (namespace, account) in [
            ("", "sa"),
            ("ns", "../x"),
            ("ns", "a/b"),
            ("n%2f", "a"),
            ("ns", "a?b"),
            ("ns", ""),
        ] {
            assert!(path(namespace, account).is_err(), "{namespace} {account}");
        }
    }
}
