//! What an agent's headers may say about the message and its connection: one body length, connection options that take
//! nothing away from us, one protocol to switch to.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, TRANSFER_ENCODING, UPGRADE};

use super::{Upgrade, bad, folded, hop_by_hop, identity};
use crate::refusal::Refusal;

/// One body length at most. hyper refuses most of these shapes itself; this holds for those that it leaves visible.
pub(super) fn framing(headers: &HeaderMap) -> Result<(), Refusal> {
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

/// What the `Connection` headers say.
pub(super) struct Connection {
    pub(super) wants_upgrade: bool,
    /// Fields that are this connection's because they are named, and not by their nature.
    pub(super) named: Vec<HeaderName>,
}

pub(super) fn connection(headers: &HeaderMap) -> Result<Connection, Refusal> {
    let mut connection = Connection {
        wants_upgrade: false,
        named: Vec::new(),
    };
    for value in headers.get_all(CONNECTION) {
        let value = value
            .to_str()
            .map_err(|_| bad("the Connection header is not plain text"))?;
        // A substring, as `httpstream.IsUpgradeRequest` has it.
        connection.wants_upgrade |= contains_upgrade(value);
        for option in value.split(',').map(str::trim) {
            connection.named.extend(named_field(option)?);
        }
    }
    Ok(connection)
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
        || matches!(
            name.as_str(),
            "content-length" | "transfer-encoding" | "user-agent"
        )
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

/// The one protocol that is offered, if it is one that we pass on.
pub(super) fn upgrade(headers: &HeaderMap) -> Result<Option<Upgrade>, Refusal> {
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
