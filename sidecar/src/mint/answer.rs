//! What the API server's answer to a TokenRequest means: a token, or why there is none and what to do about it. Pure.

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tollgate_shared::secret::Token;

use super::Minted;
use crate::claims;
use crate::credential::Origin;
use crate::refusal::{Reason, Refusal};
use crate::upstream::UpstreamError;

/// What was asked for.
pub(super) struct Asked {
    /// `namespace/name` of the service account.
    pub(super) target: String,
    /// Life of the token.
    pub(super) seconds: u32,
    /// With whose credential.
    pub(super) origin: Origin,
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
    iat: u64,
    exp: u64,
}

impl Asked {
    /// Reads an answer.
    pub(super) fn read(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Minted, Refusal> {
        if status == StatusCode::CREATED {
            return self
                .minted(body)
                .map_err(|message| Refusal::new(Reason::MintFailed, message));
        }
        let retry_after = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Err(self.refused(status, retry_after, &said(body)))
    }

    /// There was no answer.
    pub(super) fn unreachable(&self, error: &UpstreamError) -> Refusal {
        let target = &self.target;
        let message = format!(
            "no token could be minted for {target}: the API server cannot be reached ({error})"
        );
        Refusal {
            retry_after: Some(1),
            ..Refusal::new(Reason::MintUnavailable, message)
        }
    }

    fn refused(&self, status: StatusCode, retry_after: Option<u32>, said: &str) -> Refusal {
        let target = &self.target;
        let (reason, message, retry_after) = match status {
            StatusCode::TOO_MANY_REQUESTS => (
                Reason::MintThrottled,
                format!(
                    "the API server limits the mints for {target}; try again after Retry-After"
                ),
                retry_after.or(Some(1)),
            ),
            StatusCode::UNAUTHORIZED => (
                Reason::MintCredentialRejected,
                self.origin.unauthorized().to_owned(),
                Some(5),
            ),
            StatusCode::FORBIDDEN => (
                Reason::MintForbidden,
                format!("{}: {said}", self.origin.forbidden(target)),
                Some(5),
            ),
            StatusCode::CONFLICT | StatusCode::NOT_FOUND => (
                Reason::MintTargetGone,
                format!("{}: {said}", self.origin.gone(target)),
                None,
            ),
            _ => (
                if status.is_server_error() {
                    Reason::MintUnavailable
                } else {
                    Reason::MintFailed
                },
                format!(
                    "the API server answered the mint for {target} with {}: {said}",
                    status.as_u16()
                ),
                retry_after.or(Some(1)),
            ),
        };
        Refusal {
            reason,
            message,
            retry_after,
        }
    }

    /// Takes the token from the answer, and its id and life from the token. The signature is the API server's business; that it
    /// came over a verified connection is ours. A token that lives longer than what was asked for is no token of one call.
    fn minted(&self, body: &[u8]) -> Result<Minted, String> {
        // serde_json's errors name a position and a type, but may quote a value: they are not passed on.
        let answer: Answer = serde_json::from_slice(body)
            .map_err(|_| "the API server's TokenRequest holds no token")?;
        let token = Token::parse(&answer.status.token)
            .map_err(|error| format!("the API server's TokenRequest: {error}"))?;
        let Claims { jti, iat, exp } = claims::of(&token).ok_or(
            "the minted token does not say jti, iat and exp; Kubernetes 1.32 or later is needed",
        )?;
        if jti.is_empty() || jti.len() > 128 || !jti.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the minted token has an odd jti".to_owned());
        }
        match exp.checked_sub(iat) {
            Some(1..) if exp - iat <= self.seconds.into() => {}
            _ => {
                return Err(format!(
                    "the API server gave a token from {iat} to {exp}, but {} s were asked for",
                    self.seconds
                ));
            }
        }
        Ok(Minted {
            token,
            credential_id: format!("JTI={jti}"),
            issued: iat,
        })
    }
}

/// The message of a `metav1.Status`.
fn said(body: &[u8]) -> String {
    let status: Option<Value> = serde_json::from_slice(body).ok();
    let message = status.as_ref().and_then(|status| status.get("message"));
    message
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn asked() -> Asked {
        Asked {
            target: "agents/default".to_owned(),
            seconds: 600,
            origin: Origin::Pod,
        }
    }

    fn answer(payload: &str) -> Vec<u8> {
        let token = format!("h.{}.s", URL_SAFE_NO_PAD.encode(payload));
        json!({ "status": { "token": token, "expirationTimestamp": "2030-01-01T00:00:00Z" } })
            .to_string()
            .into_bytes()
    }

    #[test]
    fn takes_the_id_from_the_token() {
        // Long ago or far ahead: whose clock is right is the API server's business.
        for iat in [0, 1_700_000_000, 99_999_999_999_u64] {
            let payload = json!({ "jti": "0b7e", "iat": iat, "exp": iat + 600 }).to_string();
            let minted = asked().minted(&answer(&payload)).unwrap();
            assert_eq!((&*minted.credential_id, minted.issued), ("JTI=0b7e", iat));
            assert!(!format!("{minted:?}").contains(minted.token.expose()));
        }
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        let long = format!(r#"{{"jti":"{}","iat":1,"exp":2}}"#, "x".repeat(129));
        for body in [
            b"".to_vec(),
            b"{}".to_vec(),
            br#"{"status":{"token":""}}"#.to_vec(),
            br#"{"status":{"token":"secret secret"}}"#.to_vec(),
            br#"{"status":{"token":"secret"}}"#.to_vec(),
            br#"{"status":{"token":{"secret":1}}}"#.to_vec(),
            answer(r#"{"sub":"secret"}"#),
            answer("{\"jti\":\"a\\nb\",\"iat\":1,\"exp\":2}"),
            answer(&long),
            answer(r#"{"jti":"a"}"#),
            answer(r#"{"jti":"a","iat":1}"#),
            answer(r#"{"jti":"a","iat":1,"exp":"2"}"#),
            answer(r#"{"jti":"a","iat":1,"exp":1}"#),
            answer(r#"{"jti":"a","iat":2,"exp":1}"#),
            answer(r#"{"jti":"a","iat":1,"exp":602}"#),
            answer(r#"{"jti":"a","iat":1700000000,"exp":1731536000}"#),
        ] {
            let status = StatusCode::CREATED;
            let refusal = asked()
                .read(status, &HeaderMap::new(), &body)
                .map(|_| ())
                .unwrap_err();
            let message = refusal.message;
            assert_eq!(refusal.reason, Reason::MintFailed);
            assert!(
                !message.contains("secret") && message.contains("token")
                    || message.contains("TokenRequest"),
                "{message}"
            );
        }
    }

    #[test]
    fn each_status_has_its_reason() {
        use Reason::*;
        for (status, header, reason, retry_after) in [
            (200, None, MintFailed, Some(1)),
            (301, None, MintFailed, Some(1)),
            (400, None, MintFailed, Some(1)),
            (401, None, MintCredentialRejected, Some(5)),
            (403, None, MintForbidden, Some(5)),
            (404, None, MintTargetGone, None),
            (409, None, MintTargetGone, None),
            (422, None, MintFailed, Some(1)),
            (429, None, MintThrottled, Some(1)),
            (429, Some("7"), MintThrottled, Some(7)),
            (
                429,
                Some("Fri, 31 Dec 1999 23:59:59 GMT"),
                MintThrottled,
                Some(1),
            ),
            (429, Some("-1"), MintThrottled, Some(1)),
            (500, None, MintUnavailable, Some(1)),
            (503, Some("3"), MintUnavailable, Some(3)),
            (504, None, MintUnavailable, Some(1)),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(header));
            }
            let status = StatusCode::from_u16(status).unwrap();
            let refusal = asked()
                .read(status, &headers, br#"{"message":"because"}"#)
                .map(|_| ())
                .unwrap_err();
            assert_eq!(
                (refusal.reason, refusal.retry_after),
                (reason, retry_after),
                "{status}"
            );
            let says = refusal.message.contains("because");
            assert_eq!(
                says,
                !matches!(reason, MintThrottled | MintCredentialRejected)
            );
        }
    }
}
