//! The path of a call: decoded once, checked, and cut into the parts that `RequestInfo` knows. Refuses every spelling that
//! a proxy in front of the API server, or the API server itself, could read as another path.
//!
//! Allowed on purpose: one trailing slash (the API server trims it), names with any printable ASCII but `% ; ? # \`
//! (names of RBAC objects may hold spaces and colons), letters and digits of any script, and, behind the subresource
//! `proxy`, empty segments and nearly any text: that part is the backend's, and the resource before it stays what it is.

use crate::refusal::{Reason, Refusal};

/// What a path leads to.
pub(super) enum Route<'a> {
    /// A resource of an API group.
    Resource(Resource<'a>),
    /// Discovery, health, version and whatever else has no resource.
    Plain,
}

impl Route<'_> {
    /// Whether the query belongs to a backend, and the API server does not read it.
    pub(super) fn opaque_query(&self) -> bool {
        matches!(self, Self::Resource(resource) if resource.proxied())
    }
}

/// The parts of a resource path.
pub(super) struct Resource<'a> {
    pub(super) prefix: &'a str,
    pub(super) group: &'a str,
    pub(super) version: &'a str,
    pub(super) watch_prefix: bool,
    pub(super) namespace: &'a str,
    pub(super) resource: &'a str,
    pub(super) name: &'a str,
    pub(super) subresource: &'a str,
    /// How many segments follow the subresource.
    tail: usize,
}

impl Resource<'_> {
    /// A named object's `proxy`: what follows goes to a backend.
    fn proxied(&self) -> bool {
        self.subresource == "proxy" && !self.watch_prefix
    }
}

/// Decodes a raw path once.
///
/// Refused: anything but origin form, bytes outside of printable ASCII, `\` and `#` raw or encoded where they would end or
/// split a path elsewhere, bad escapes, encoded slashes (Go decodes before it splits, others split first), control
/// characters, and what is not UTF-8.
pub(super) fn decode(raw: &str) -> Result<String, Refusal> {
    if !raw.starts_with('/') {
        return Err(bad("the path does not start with /"));
    }
    if raw
        .bytes()
        .any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'\\' | b'#'))
    {
        return Err(bad(
            "the path holds a raw byte that must be percent-encoded",
        ));
    }
    if !raw.contains('%') {
        return Ok(raw.to_owned());
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let byte = escaped(bytes.next(), bytes.next())
            .ok_or_else(|| bad("the path holds a % without two hexadecimal digits"))?;
        match byte {
            b'/' => return Err(bad("the path holds an encoded slash (%2F)")),
            b'\\' => return Err(bad("the path holds an encoded backslash (%5C)")),
            byte if byte.is_ascii_control() => {
                return Err(bad("the path holds an encoded control character"));
            }
            byte => decoded.push(byte),
        }
    }
    let decoded =
        String::from_utf8(decoded).map_err(|_| bad("the path is not UTF-8 once decoded"))?;
    if decoded.chars().any(char::is_control) {
        return Err(bad("the path holds an encoded control character"));
    }
    Ok(decoded)
}

/// The byte that two hexadecimal digits spell.
pub(super) fn escaped(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: Option<u8>| {
        byte.and_then(|byte| char::from(byte).to_digit(16))
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some((digit(high)? << 4) | digit(low)?)
}

/// Cuts a decoded path as `NewRequestInfo` does, and checks every segment.
pub(super) fn route(decoded: &str) -> Result<Route<'_>, Refusal> {
    let inner = decoded.strip_prefix('/').unwrap_or(decoded);
    if inner.is_empty() {
        return Ok(Route::Plain);
    }
    let segments: Vec<&str> = inner
        .strip_suffix('/')
        .unwrap_or(inner)
        .split('/')
        .collect();
    let (route, tail) = match segments.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => {
            let resource = resource("api", "", version, rest)?;
            let tail = if resource.proxied() { resource.tail } else { 0 };
            (Route::Resource(resource), tail)
        }
        ["apis", group, version, rest @ ..] if !rest.is_empty() => {
            let resource = resource("apis", group, version, rest)?;
            let tail = if resource.proxied() { resource.tail } else { 0 };
            (Route::Resource(resource), tail)
        }
        _ => (Route::Plain, 0),
    };
    let (own, backend) = segments.split_at(segments.len().saturating_sub(tail));
    own.iter().try_for_each(|segment| strict(segment))?;
    backend.iter().try_for_each(|segment| loose(segment))?;
    Ok(route)
}

fn resource<'a>(
    prefix: &'a str,
    group: &'a str,
    version: &'a str,
    rest: &[&'a str],
) -> Result<Resource<'a>, Refusal> {
    let (watch_prefix, rest) = match rest {
        ["watch"] => return Err(bad("the path ends after watch; name a resource")),
        ["watch", rest @ ..] => (true, rest),
        // Removed from the API server long ago, but its RequestInfo still makes a verb of it.
        ["proxy", ..] => {
            return Err(bad(
                "the proxy verb is gone from Kubernetes; use the subresource, as in services/name/proxy/",
            ));
        }
        rest => (false, rest),
    };
    // status and finalize are subresources of a namespace, anything else there is a resource in it.
    let (namespace, parts) = match rest {
        ["namespaces", namespace, inside @ ..]
            if !matches!(inside, [] | ["status" | "finalize", ..]) =>
        {
            (*namespace, inside)
        }
        ["namespaces", namespace, ..] => (*namespace, rest),
        rest => ("", rest),
    };
    let (resource, name, subresource, tail) = match parts {
        [resource, name, subresource, tail @ ..] => (*resource, *name, *subresource, tail.len()),
        [resource, name] => (*resource, *name, "", 0),
        [resource] => (*resource, "", "", 0),
        [] => ("", "", "", 0),
    };
    Ok(Resource {
        prefix,
        group,
        version,
        watch_prefix,
        namespace,
        resource,
        name,
        subresource,
        tail,
    })
}

/// A segment that decides what the call is.
fn strict(segment: &str) -> Result<(), Refusal> {
    if segment.is_empty() {
        return Err(bad("the path holds an empty segment (//)"));
    }
    dots(segment)?;
    for char in segment.chars() {
        let sound = match char {
            // A second decoding would find an escape, a parameter, a query or a fragment.
            '%' | ';' | '?' | '#' | '\\' => false,
            char if char.is_ascii() => !char.is_ascii_control(),
            // Letters and digits have no compatibility form that is a slash, a dot or a percent sign.
            char => char.is_alphanumeric(),
        };
        if !sound {
            return Err(bad(
                "the path holds a character that another parser could take for a separator",
            ));
        }
    }
    Ok(())
}

/// A segment behind `proxy`: it may be anything that no proxy in between folds into the part before it.
fn loose(segment: &str) -> Result<(), Refusal> {
    dots(segment)?;
    let mut rest = segment;
    while let Some((_, after)) = rest.split_once('%') {
        let mut bytes = after.bytes();
        if let Some(byte) = escaped(bytes.next(), bytes.next())
            && (matches!(byte, b'/' | b'\\' | b'.' | b'%' | b';' | b'?' | b'#')
                || byte.is_ascii_control())
        {
            return Err(bad(
                "the path is encoded twice around a separator; encode it once",
            ));
        }
        rest = after;
    }
    Ok(())
}

/// `.` and `..`, also before a parameter or what a second decoding would take for a query or a fragment: some proxies
/// resolve them, the API server does not.
fn dots(segment: &str) -> Result<(), Refusal> {
    let bare = segment.split([';', '?', '#']).next();
    if matches!(bare, Some("." | "..")) {
        return Err(bad("the path holds a . or .. segment; send it resolved"));
    }
    Ok(())
}

fn bad(message: &str) -> Refusal {
    Refusal::new(Reason::AmbiguousPath, message)
}
