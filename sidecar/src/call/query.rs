//! The query of a call, read as Go's `url.ParseQuery` reads it. What Go drops without a word (pairs with `;` or a bad
//! escape, everything past its limit of parameters) is refused: another parser would keep it.

use std::borrow::Cow;

use super::path::escaped;
use crate::refusal::{Reason, Refusal};

/// Go's limit (`defaultMaxParams` in `net/url`, since 1.26); beyond it Go reads no parameter at all, older releases read all.
const MAX_PAIRS: usize = 10_000;
/// What stands in a record for the value of a `command`.
const REDACTED: &str = "REDACTED";

/// Decoded pairs in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(raw: &str) -> Result<Self, Refusal> {
        printable(raw)?;
        if raw.is_empty() {
            return Ok(Self::default());
        }
        if raw.contains(';') {
            return Err(bad(
                "the query holds a raw ; which some parsers take for &; write %3B",
            ));
        }
        if raw.bytes().filter(|byte| *byte == b'&').count() >= MAX_PAIRS {
            return Err(bad("the query holds more than 10000 parameters"));
        }
        raw.split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((unescape(key)?, unescape(value)?))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The query of a proxied backend: checked for raw bytes that break a request line, and not read.
    pub(super) fn opaque(raw: &str) -> Result<Self, Refusal> {
        printable(raw)?;
        Ok(Self::default())
    }

    pub(super) fn all<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }
}

/// Replaces the value of every `command` parameter of a raw path and query. For records: also of requests that were
/// refused before they were resolved, whose path cannot be trusted to say that it is an exec.
#[must_use]
pub fn redact_commands(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?') else {
        return Cow::Borrowed(target);
    };
    if !query.split(['&', ';']).any(is_command) {
        return Cow::Borrowed(target);
    }
    let mut shown = String::with_capacity(target.len());
    shown.push_str(path);
    let mut separator = '?';
    let mut rest = query;
    loop {
        shown.push(separator);
        let end = rest.find(['&', ';']);
        let (pair, after) = end.map_or((rest, None), |end| {
            let (pair, after) = rest.split_at(end);
            (pair, Some(after))
        });
        match pair.split_once('=') {
            Some((key, _)) if is_command(pair) => {
                shown.push_str(key);
                shown.push('=');
                shown.push_str(REDACTED);
            }
            _ => shown.push_str(pair),
        }
        let mut chars = match after {
            Some(after) => after.chars(),
            None => return Cow::Owned(shown),
        };
        separator = chars.next().unwrap_or('&');
        rest = chars.as_str();
    }
}

/// Whether a raw pair has the key `command`, however it is escaped.
fn is_command(pair: &str) -> bool {
    let key = pair.split_once('=').map_or(pair, |(key, _)| key);
    key == "command" || (key.contains('%') && unescape(key).is_ok_and(|key| key == "command"))
}

fn printable(raw: &str) -> Result<(), Refusal> {
    if raw
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        Ok(())
    } else {
        Err(bad(
            "the query holds a raw byte that must be percent-encoded",
        ))
    }
}

/// `url.QueryUnescape`.
fn unescape(raw: &str) -> Result<String, Refusal> {
    if !raw.contains(['%', '+']) {
        return Ok(raw.to_owned());
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => escaped(bytes.next(), bytes.next())
                .ok_or_else(|| bad("the query holds a % without two hexadecimal digits"))?,
            b'+' => b' ',
            byte => byte,
        });
    }
    // Nothing that Kubernetes takes holds a NUL, and C code would end the text there.
    if decoded.contains(&0) {
        return Err(bad("the query holds an encoded NUL"));
    }
    String::from_utf8(decoded).map_err(|_| bad("the query is not UTF-8 once decoded"))
}

fn bad(message: &str) -> Refusal {
    Refusal::new(Reason::BadRequest, message)
}
