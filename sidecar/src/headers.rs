//! The headers of a call on both legs. Pure: what the agent sent is checked once ([`Hop::of`]), then turned into what the
//! API server gets ([`Hop::upstream`]); the answer's headers take the way back through [`downstream`].
//!
//! Not here: `Host` (dropped; the caller sends the API server's), and the framing of bodies, which is hyper's:
//! `Content-Length` is kept (hyper writes that length), `Transfer-Encoding` is dropped (hyper chunks a body of unknown
//! length anew).

#[cfg(test)]
mod tests;
mod websocket;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING, UPGRADE,
};

use crate::refusal::{Reason, Refusal};

pub use websocket::BEARER_PROTOCOL;
pub(crate) use websocket::{encoded_token, protocols};

/// More header fields than any client sends; keeps a [`HeaderMap`] far from the size at which it panics.
const MAX_FIELDS: usize = 512;
/// The header by which the API server takes over our id for its audit event (`filters/audit_init.go`).
pub const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// A protocol that a connection may be switched to. Any other, `h2c` above all, is dropped and the call goes on as a plain
/// one, as RFC 9110 section 7.8 allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// exec, attach, port-forward, logs and watches of newer clients.
    WebSocket,
    /// exec, attach and port-forward of older clients.
    Spdy31,
}

impl Upgrade {
    /// The value of the `Upgrade` header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Spdy31 => "SPDY/3.1",
        }
    }
}

/// What an agent's headers say about its own connection. Its existence means that they are sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    upgrade: Option<Upgrade>,
    named: Vec<HeaderName>,
}

impl Hop {
    /// Checks the agent's headers. Call it before anything is minted.
    ///
    /// # Errors
    /// [`Reason::BadRequest`]: too many fields, a body length that could be read in two ways, a `Connection` that would
    /// remove what we rely on, an upgrade that is two at once or has a body, a WebSocket that offers nothing but a bearer
    /// token.
    pub fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        if headers.len() > MAX_FIELDS {
            return Err(bad("the request has more than 512 header fields"));
        }
        framing(headers)?;
        let mut wants_upgrade = false;
        let mut named = Vec::new();
        for value in headers.get_all(CONNECTION) {
            let value = value
                .to_str()
                .map_err(|_| bad("the Connection header is not plain text"))?;
            // A substring, as `httpstream.IsUpgradeRequest` has it.
            wants_upgrade |= contains_upgrade(value);
            for option in value.split(',').map(str::trim) {
                named.extend(named_field(option)?);
            }
        }
        let upgrade = if wants_upgrade {
            upgrade(headers)?
        } else {
            None
        };
        websocket::check(headers)?;
        Ok(Self { upgrade, named })
    }

    /// The protocol that the agent wants to switch to.
    #[must_use]
    pub const fn upgrade(&self) -> Option<Upgrade> {
        self.upgrade
    }

    /// The headers for the API server: the agent's without credentials, identities and hop-by-hop fields, with ours.
    ///
    /// Dropped besides what design 5.8 lists: `Cookie` and `Proxy-Authorization` (no Kubernetes client sends them, front
    /// ends of some platforms authenticate with them), `Expect` (hyper answers it on this hop), and the headers by which
    /// some front ends replace method or path. A `_` counts as a `-`, as it does behind some front ends.
    #[must_use]
    pub fn upstream(
        &self,
        mut headers: HeaderMap,
        mut authorization: HeaderValue,
        audit_id: HeaderValue,
    ) -> HeaderMap {
        remove(&mut headers, |name| {
            hop_by_hop(name) || folded(name, identity) || self.names(name)
        });
        websocket::strip(&mut headers);
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(AUDIT_ID, audit_id);
        if let Some(upgrade) = self.upgrade {
            switch(&mut headers, upgrade);
        }
        headers
    }

    fn names(&self, name: &HeaderName) -> bool {
        self.named.contains(name)
    }
}

/// The headers for the agent. `switched` is the protocol of a 101; for any other answer pass `None`. All but hop-by-hop
/// fields stays, byte for byte: `Warning`, `Retry-After`, `Audit-Id`, `X-Kubernetes-Pf-*`, `Content-Encoding`.
#[must_use]
pub fn downstream(mut headers: HeaderMap, switched: Option<Upgrade>) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|option| HeaderName::from_bytes(option.trim().as_bytes()).ok())
        .collect();
    remove(&mut headers, |name| {
        hop_by_hop(name) || named.contains(name)
    });
    if let Some(upgrade) = switched {
        switch(&mut headers, upgrade);
    }
    headers
}

/// Whether a header would make the API server act as somebody else. Case and `_` do not matter.
#[must_use]
pub fn impersonates(name: &HeaderName) -> bool {
    folded(name, |name| name.starts_with("impersonate-"))
}

fn switch(headers: &mut HeaderMap, upgrade: Upgrade) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(upgrade.as_str()));
}

fn remove(headers: &mut HeaderMap, doomed: impl Fn(&HeaderName) -> bool) {
    let doomed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| doomed(name))
        .cloned()
        .collect();
    for name in doomed {
        headers.remove(name);
    }
}

/// RFC 9110 section 7.6.1, with the fields of older practice (RFC 2616 section 13.5.1, RFC 7540 section 3.2.1).
fn hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "te"
            | "trailer"
            | "trailers"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Credentials, identities, and what else a front end may take for the truth about a request.
fn identity(name: &str) -> bool {
    matches!(
        name,
        "authorization"
            | "proxy-authorization"
            | "cookie"
            | "cookie2"
            | "audit-id"
            | "host"
            | "expect"
            | "forwarded"
            | "x-real-ip"
            | "x-http-method"
            | "x-http-method-override"
            | "x-method-override"
            | "x-original-url"
            | "x-rewrite-url"
    ) || ["impersonate-", "x-remote-", "x-forwarded-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Asks about a name with `_` read as `-`. Names of a [`HeaderMap`] are lower-case already.
fn folded(name: &HeaderName, asks: impl Fn(&str) -> bool) -> bool {
    let name = name.as_str();
    if name.contains('_') {
        asks(&name.replace('_', "-"))
    } else {
        asks(name)
    }
}

/// One body length at most. hyper refuses most of these shapes itself; this holds for those that it leaves visible.
fn framing(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(bad("the request has more than one Content-Length"));
    }
    if length
        .is_some_and(|value| value.is_empty() || !value.as_bytes().iter().all(u8::is_ascii_digit))
    {
        return Err(bad("the Content-Length is not a number"));
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if length.is_some() {
            return Err(bad(
                "the request has both a Content-Length and a Transfer-Encoding",
            ));
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(bad("the only Transfer-Encoding that is taken is chunked"));
        }
    }
    Ok(())
}

/// The field that an option of `Connection` names, if it is one that would pass otherwise.
fn named_field(option: &str) -> Result<Option<HeaderName>, Refusal> {
    // By far the most common ones, without an allocation.
    if option.is_empty()
        || ["close", "keep-alive", "upgrade"]
            .iter()
            .any(|known| option.eq_ignore_ascii_case(known))
    {
        return Ok(None);
    }
    let name = HeaderName::from_bytes(option.as_bytes())
        .map_err(|_| bad("the Connection header names something that is no header"))?;
    // We set, read or rely on these: a peer that obeyed the agent would lose them.
    if folded(&name, identity)
        || matches!(name.as_str(), "content-length" | "transfer-encoding")
        || name.as_str().starts_with("sec-websocket-")
    {
        return Err(bad(
            "the Connection header names a header that is not the connection's",
        ));
    }
    Ok((!hop_by_hop(&name)).then_some(name))
}

fn contains_upgrade(value: &str) -> bool {
    value
        .as_bytes()
        .windows(b"upgrade".len())
        .any(|window| window.eq_ignore_ascii_case(b"upgrade"))
}

fn upgrade(headers: &HeaderMap) -> Result<Option<Upgrade>, Refusal> {
    let mut offered = 0_usize;
    let mut upgrade = None;
    for value in headers.get_all(UPGRADE) {
        let value = value
            .to_str()
            .map_err(|_| bad("the Upgrade header is not plain text"))?;
        for protocol in value.split(',').map(str::trim) {
            offered = offered.saturating_add(1);
            for known in [Upgrade::WebSocket, Upgrade::Spdy31] {
                if protocol.eq_ignore_ascii_case(known.as_str()) {
                    upgrade = Some(known);
                }
            }
        }
    }
    if upgrade.is_some() && offered > 1 {
        return Err(bad("the Upgrade header offers more than one protocol"));
    }
    // Bytes of a body would be read as the first ones of the new protocol.
    let body = headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0'));
    if upgrade.is_some() && body {
        return Err(bad("a request that switches protocols has no body"));
    }
    Ok(upgrade)
}

fn bad(message: &str) -> Refusal {
    Refusal::new(Reason::BadRequest, message)
}
