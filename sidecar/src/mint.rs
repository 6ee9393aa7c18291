//! One TokenRequest a call: asked for with the sidecar's own credential, bound to this pod (or its node), used once, dropped.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_shared::secret::Token;

use crate::body::CallBody;
use crate::config::{Bound, Config, Target};
use crate::credential::{Credential, Shown};
use crate::file::FileError;
use crate::refusal::{Reason, Refusal};
use crate::upstream::{Upstream, UpstreamError};

/// A token for one call.
#[derive(Debug)]
pub struct Minted {
    /// The token.
    pub token: Token,
    /// `JTI=…`, as the API server logs it (`authentication.kubernetes.io/credential-id`).
    pub credential_id: String,
}

/// Larger than any TokenRequest with its token.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Mints tokens.
pub struct Mint {
    credential: Credential,
    path: PathAndQuery,
    body: Bytes,
    limit: Duration,
    target: String,
}

#[derive(Deserialize)]
struct Answer {
    status: AnswerStatus,
}

/// Has no `Debug`: it holds a token.
#[derive(Deserialize)]
struct AnswerStatus {
    token: String,
}

#[derive(Deserialize)]
struct Claims {
    jti: String,
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
            credential,
            path,
            body: Bytes::from(request_body(config).to_string()),
            limit: config.mint_timeout,
            target: format!("{namespace}/{account}"),
        })
    }

    /// Path of the TokenRequest, for the record of a mint that belongs to no call.
    #[must_use]
    pub fn path(&self) -> &PathAndQuery {
        &self.path
    }

    /// Mints a token. `audit_id` goes with the TokenRequest, so that its event is found even if this process dies now.
    ///
    /// # Errors
    /// A refusal for the agent: 429 with the API server's `Retry-After`, or 503.
    pub async fn mint(
        &self,
        upstream: &Upstream,
        audit_id: &HeaderValue,
    ) -> Result<Minted, Refusal> {
        let shown = self.credential.get();
        match self.ask(upstream, audit_id, &shown).await {
            // A refused request changed nothing.
            Err(refused) if refused.status == Some(StatusCode::UNAUTHORIZED) => {
                let Some(shown) = self.credential.renew(&shown) else {
                    return Err(refused.refusal);
                };
                self.ask(upstream, audit_id, &shown)
                    .await
                    .map_err(|refused| refused.refusal)
            }
            answer => answer.map_err(|refused| refused.refusal),
        }
    }

    async fn ask(
        &self,
        upstream: &Upstream,
        audit_id: &HeaderValue,
        shown: &Shown,
    ) -> Result<Minted, Refused> {
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
        let (head, body) = match answer.unwrap_or(Err(UpstreamError::Timeout(self.limit))) {
            Ok(answer) => answer,
            Err(error) => return Err(self.unreachable(&error)),
        };
        if head.status != StatusCode::CREATED {
            return Err(self.refused(head.status, &head.headers, &body));
        }
        parse(&body)
            .map_err(|message| Refused::new(None, Refusal::new(Reason::MintFailed, message)))
    }

    fn unreachable(&self, error: &UpstreamError) -> Refused {
        tracing::warn!(%error, target = self.target, "mint failed");
        let message = format!(
            "no token could be minted for {}: the API server cannot be reached ({error})",
            self.target
        );
        Refused::new(
            None,
            Refusal {
                retry_after: Some(1),
                ..Refusal::new(Reason::MintFailed, message)
            },
        )
    }

    /// What the API server's answer means and what to do about it.
    fn refused(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refused {
        let said = serde_json::from_slice::<Value>(body).ok();
        let said = said
            .as_ref()
            .and_then(|status| status.get("message")?.as_str())
            .unwrap_or_default();
        tracing::warn!(
            status = status.as_u16(),
            said,
            target = self.target,
            "mint refused"
        );
        let retry_after = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let target = &self.target;
        let (reason, message, retry_after) = match status {
            StatusCode::TOO_MANY_REQUESTS => {
                let message = format!(
                    "the API server limits the mints for {target}; try again after Retry-After"
                );
                (Reason::MintThrottled, message, retry_after.or(Some(1)))
            }
            StatusCode::UNAUTHORIZED => {
                let message = "the API server does not accept the bootstrap token (expired, or the pod or its service \
                               account was replaced); if this lasts, delete the pod";
                (Reason::MintFailed, message.to_owned(), Some(5))
            }
            StatusCode::FORBIDDEN => {
                let message = format!(
                    "the API server does not let this pod mint for {target}; check the label tollgate.dev/injection of the \
                     namespace and its RoleBinding tollgate: {said}"
                );
                (Reason::MintFailed, message, Some(5))
            }
            StatusCode::CONFLICT | StatusCode::NOT_FOUND => {
                let message = format!(
                    "the pod or the service account {target} was deleted or replaced: {said}"
                );
                (Reason::MintFailed, message, None)
            }
            _ => {
                let message = format!(
                    "the API server answered the mint for {target} with {}: {said}",
                    status.as_u16()
                );
                (Reason::MintFailed, message, retry_after.or(Some(1)))
            }
        };
        Refused::new(
            Some(status),
            Refusal {
                reason,
                message,
                retry_after,
            },
        )
    }
}

/// A mint that gave no token, with the API server's status if it answered.
struct Refused {
    status: Option<StatusCode>,
    refusal: Refusal,
}

impl Refused {
    fn new(status: Option<StatusCode>, refusal: Refusal) -> Self {
        Self { status, refusal }
    }
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
        Bound::Pod { name, uid } => {
            json!({ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid })
        }
        Bound::Node(name) => json!({ "apiVersion": "v1", "kind": "Node", "name": name }),
    };
    if let Some(spec) = spec.as_object_mut() {
        spec.insert("boundObjectRef".to_owned(), bound);
    }
    json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": spec,
    })
}

/// Takes the token from the answer and its id from the token. The signature is the API server's business; that it came over a
/// verified connection is ours.
fn parse(body: &[u8]) -> Result<Minted, String> {
    // serde_json's errors name a position and a type, but may quote a value: they are not passed on.
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| "the API server's TokenRequest holds no token")?;
    let token = Token::parse(&answer.status.token)
        .map_err(|error| format!("the API server's TokenRequest: {error}"))?;
    let claims = token
        .expose()
        .split('.')
        .nth(1)
        .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims: Option<Claims> = claims.and_then(|json| serde_json::from_slice(&json).ok());
    let jti = claims
        .map(|claims| claims.jti)
        .ok_or("the minted token has no jti; Kubernetes 1.32 or later is needed")?;
    if jti.is_empty() || jti.len() > 128 || !jti.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the minted token has an odd jti".to_owned());
    }
    Ok(Minted {
        token,
        credential_id: format!("JTI={jti}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(payload: &str) -> Vec<u8> {
        let token = format!("h.{}.s", URL_SAFE_NO_PAD.encode(payload));
        json!({ "status": { "token": token, "expirationTimestamp": "2030-01-01T00:00:00Z" } })
            .to_string()
            .into_bytes()
    }

    #[test]
    fn takes_the_id_from_the_token() {
        let minted = parse(&answer(r#"{"jti":"0b7e"}"#)).unwrap();
        assert_eq!(minted.credential_id, "JTI=0b7e");
        assert!(!format!("{minted:?}").contains(minted.token.expose()));
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        let long = format!(r#"{{"jti":"{}"}}"#, "x".repeat(129));
        for body in [
            b"".to_vec(),
            b"{}".to_vec(),
            br#"{"status":{"token":""}}"#.to_vec(),
            br#"{"status":{"token":"secret secret"}}"#.to_vec(),
            br#"{"status":{"token":"secret"}}"#.to_vec(),
            br#"{"status":{"token":{"secret":1}}}"#.to_vec(),
            answer(r#"{"sub":"secret"}"#),
            answer("{\"jti\":\"a\\nb\"}"),
            answer(&long),
        ] {
            let message = parse(&body).unwrap_err();
            assert!(
                !message.contains("secret") && message.contains("token")
                    || message.contains("TokenRequest"),
                "{message}"
            );
        }
    }

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
