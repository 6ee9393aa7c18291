//! `Sec-WebSocket-Protocol`: the API server also takes a bearer token from it
//! (`apiserver/pkg/authentication/request/websocket/protocol.go`), and passes it on towards the kubelet if our own bearer
//! token was accepted first. So it never leaves the pod.

use http::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL};

use crate::refusal::{Reason, Refusal};

/// Prefix of the element that carries a token, in unpadded base64url.
pub const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Every element of every `Sec-WebSocket-Protocol`, in order; what is not plain text is left out.
pub(crate) fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// The encoded token of an element. The API server compares the prefix with case, we without: what is stripped must be all
/// that anybody could read as a token.
pub(crate) fn encoded_token(protocol: &str) -> Option<&str> {
    let (prefix, token) = protocol.split_at_checked(BEARER_PROTOCOL.len())?;
    prefix
        .eq_ignore_ascii_case(BEARER_PROTOCOL)
        .then_some(token)
}

/// A server must choose one of the offered protocols, and a token cannot be it: the API server refuses such a request, too.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .any(|value| value.to_str().is_err())
    {
        return Err(bad("the Sec-WebSocket-Protocol header is not plain text"));
    }
    let (mut tokens, mut others) = (false, false);
    for protocol in protocols(headers) {
        if encoded_token(protocol).is_some() {
            tokens = true;
        } else {
            others |= !protocol.is_empty();
        }
    }
    if tokens && !others {
        return Err(bad(
            "Sec-WebSocket-Protocol offers only a bearer token; offer a protocol such as v5.channel.k8s.io besides it",
        ));
    }
    Ok(())
}

/// Removes every token; the other protocols keep their order. Without a token the header stays as it was.
pub(super) fn strip(headers: &mut HeaderMap) {
    if !protocols(headers).any(|protocol| encoded_token(protocol).is_some()) {
        return;
    }
    let kept: Vec<&str> = protocols(headers)
        .filter(|protocol| encoded_token(protocol).is_none() && !protocol.is_empty())
        .collect();
    // Made of parts of header values, so it is one.
    match HeaderValue::from_str(&kept.join(", ")) {
        Ok(value) if !value.is_empty() => headers.insert(SEC_WEBSOCKET_PROTOCOL, value),
        _ => headers.remove(SEC_WEBSOCKET_PROTOCOL),
    };
}

fn bad(message: &str) -> Refusal {
    Refusal::new(Reason::BadRequest, message)
}
