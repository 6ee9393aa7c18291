//! The local checks: does the request come from a client of this pod, and of which container? `Host` must be a local name
//! (DNS rebinding), a browser's request is refused (CSRF), and the local token names the container. Pure.
//!
//! `Referer` is not looked at: browsers leave it out at will, and what they cannot leave out (`Origin`, `Sec-Fetch-Site`)
//! is. kubectl proxy and the Docker engine check no more than `Host` and `Origin` either.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::Ipv6Addr;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN};
use http::{HeaderName, Version};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tollgate_shared::contract::LocalAuth;
use tollgate_shared::secret::Token;

use crate::headers::{encoded_token, protocols};
use crate::refusal::{Reason, Refusal};

/// Names under which clients reach the API server, the names in the leaf's SANs. IPv6 loopback is compared as an address.
const LOCAL_NAMES: [&str; 6] = [
    "127.0.0.1",
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks version, `Host` and the marks of a browser.
///
/// # Errors
/// [`Reason::BadRequest`] for HTTP/1.0 and for a `Host` that is missing or there twice, [`Reason::ForeignHost`],
/// [`Reason::BrowserRequest`].
pub fn check(version: Version, headers: &HeaderMap) -> Result<(), Refusal> {
    if version != Version::HTTP_11 {
        return Err(Refusal::new(
            Reason::BadRequest,
            "the request is not HTTP/1.1; no other version is served here",
        ));
    }
    let host = single(headers, &HOST)?.ok_or_else(|| {
        Refusal::new(
            Reason::BadRequest,
            "the request has no Host header; name the host it was sent to",
        )
    })?;
    if !is_local(host) {
        return Err(Refusal::new(
            Reason::ForeignHost,
            "the Host header is not a local name; use 127.0.0.1, localhost, [::1] or kubernetes.default.svc",
        ));
    }
    // Only browsers send it; `none` is an address that a person typed.
    if headers
        .get_all(SEC_FETCH_SITE)
        .iter()
        .any(|site| site.as_bytes() != b"none")
    {
        return Err(browser());
    }
    match single(headers, &ORIGIN)? {
        None => Ok(()),
        // Python's websocket-client names the host it connects to, and no page can have that origin but our own.
        Some(origin) if is_origin_of(origin, host) => Ok(()),
        Some(_) => Err(browser()),
    }
}

fn browser() -> Refusal {
    Refusal::new(
        Reason::BrowserRequest,
        "a browser made this request for a web page; use a Kubernetes client, or leave out Origin and Sec-Fetch-Site",
    )
}

/// The only value of a header; not text is no value.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Refusal::new(
            Reason::BadRequest,
            format!("the request has more than one {name} header"),
        ));
    }
    Ok(value.map(|value| value.to_str().unwrap_or_default()))
}

fn is_local(host: &str) -> bool {
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        if address.parse() != Ok(Ipv6Addr::LOCALHOST) {
            return false;
        }
        (None, port)
    } else {
        let end = host.find(':').unwrap_or(host.len());
        let (name, port) = host.split_at(end);
        (Some(name), port)
    };
    let port_is_sound = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
        });
    port_is_sound
        && name.is_none_or(|name| {
            LOCAL_NAMES
                .iter()
                .any(|local| name.eq_ignore_ascii_case(local))
        })
}

fn is_origin_of(origin: &str, host: &str) -> bool {
    ["https://", "http://"].iter().any(|scheme| {
        origin
            .split_at_checked(scheme.len())
            .is_some_and(|(start, rest)| {
                start.eq_ignore_ascii_case(scheme) && rest.eq_ignore_ascii_case(host)
            })
    })
}

/// The local tokens of the agent containers, as digests.
#[derive(Clone)]
pub struct LocalTokens {
    auth: LocalAuth,
    digests: Vec<(String, [u8; 32])>,
}

impl LocalTokens {
    /// Takes container names with their tokens; the tokens themselves are not kept.
    pub fn new<'a>(auth: LocalAuth, tokens: impl IntoIterator<Item = (String, &'a Token)>) -> Self {
        Self {
            auth,
            digests: tokens
                .into_iter()
                .map(|(container, token)| (container, digest(token.expose().as_bytes())))
                .collect(),
        }
    }

    /// The container that made a request. `None` only where no token is required and none of ours was shown.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] for more than one credential, [`Reason::LocalTokenMissing`], [`Reason::LocalTokenWrong`].
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
        let container = match presented(headers)? {
            Presented::Token(token) => self.container_of(&token),
            Presented::Other => None,
            Presented::Nothing if self.auth == LocalAuth::Token => {
                return Err(Refusal::new(
                    Reason::LocalTokenMissing,
                    "the local token is missing; send the file token of the service account folder as a bearer token, as \
                     in-cluster clients do",
                ));
            }
            Presented::Nothing => return Ok(None),
        };
        if container.is_none() && self.auth == LocalAuth::Token {
            return Err(Refusal::new(
                Reason::LocalTokenWrong,
                "the bearer token is not this container's local token; read it again from the service account folder",
            ));
        }
        Ok(container)
    }

    /// Looks at every entry, whichever matches: the time tells nothing about a token.
    fn container_of(&self, token: &[u8]) -> Option<&str> {
        let shown = digest(token);
        let mut found = None;
        for (container, digest) in &self.digests {
            if bool::from(digest.ct_eq(&shown)) {
                found = Some(container.as_str());
            }
        }
        found
    }
}

impl fmt::Debug for LocalTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalTokens")
            .field("auth", &self.auth)
            .field(
                "containers",
                &self
                    .digests
                    .iter()
                    .map(|(container, _)| container)
                    .collect::<Vec<_>>(),
            )
            .finish()
    }
}

/// A credential as it came.
enum Presented {
    Nothing,
    /// A scheme that is not ours, or text that no token has.
    Other,
    Token(Vec<u8>),
}

/// `Authorization` first; without one, the WebSocket subprotocol that browser-like clients use.
fn presented(headers: &HeaderMap) -> Result<Presented, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    if let Some(value) = values.next() {
        return match values.next() {
            Some(_) => Err(twice()),
            None => Ok(bearer(value)),
        };
    }
    let mut tokens = protocols(headers).filter_map(encoded_token);
    match (tokens.next(), tokens.next()) {
        (None, _) => Ok(Presented::Nothing),
        (Some(token), None) => Ok(BASE64_URL_SAFE_NO_PAD
            .decode(token)
            .map_or(Presented::Other, Presented::Token)),
        (Some(_), Some(_)) => Err(twice()),
    }
}

fn twice() -> Refusal {
    Refusal::new(
        Reason::BadRequest,
        "the request has more than one credential; send one",
    )
}

/// RFC 6750; the scheme in any case, as Python clients write `bearer`.
fn bearer(value: &HeaderValue) -> Presented {
    let value = value.as_bytes().trim_ascii();
    if value.is_empty() {
        return Presented::Nothing;
    }
    let Some((scheme, token)) = value.split_at_checked(b"Bearer ".len()) else {
        return Presented::Other;
    };
    if scheme.eq_ignore_ascii_case(b"Bearer ") {
        Presented::Token(token.trim_ascii().to_vec())
    } else {
        Presented::Other
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
