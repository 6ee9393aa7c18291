//! The headers of a call on both legs. Pure: what the agent sent is checked once ([`Hop::of`]), then turned into what the
//! API server gets ([`Hop::upstream`]); the answer's headers take the way back through [`downstream`].
//!
//! Not here: `Host` (dropped with the `Origin` that repeats it; the caller sends the API server's), and the framing of bodies, which is hyper's:
//! `Content-Length` is kept (hyper writes that length), `Transfer-Encoding` is dropped (hyper chunks a body of unknown
//! length anew).

mod checks;
#[cfg(test)]
mod tests;
mod websocket;

use http::header::{AUTHORIZATION, CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};

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

    /// Whether it is this protocol that an answer switches to.
    #[must_use]
    pub fn is_of(self, answer: &HeaderMap) -> bool {
        let protocol = answer.get(UPGRADE).map(HeaderValue::as_bytes);
        protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(self.as_str().as_bytes()))
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
        checks::framing(headers)?;
        websocket::check(headers)?;
        let connection = checks::connection(headers)?;
        let upgrade = if connection.wants_upgrade {
            checks::upgrade(headers)?
        } else {
            None
        };
        Ok(Self {
            upgrade,
            named: connection.named,
        })
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
            | "origin"
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

fn bad(message: &str) -> Refusal {
    Refusal::new(Reason::BadRequest, message)
}
