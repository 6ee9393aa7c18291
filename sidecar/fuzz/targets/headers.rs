//! `name: value` lines: nothing of the agent's identity reaches the API server, nothing of a connection passes it, and no
//! credential but a local token is taken for one.
#![no_main]

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use libfuzzer_sys::fuzz_target;
use tollgate_shared::contract::LocalAuth;
use tollgate_shared::secret::Token;
use tollgate_sidecar::headers::{AUDIT_ID, BEARER_PROTOCOL, Hop, downstream};
use tollgate_sidecar::local::{self, LocalTokens};

fuzz_target!(|bytes: &[u8]| {
    let headers = parse(bytes);
    local_checks(&headers);
    hop_by_hop_is_gone(&downstream(headers.clone(), None));
    let Ok(hop) = Hop::of(&headers) else {
        return;
    };
    assert!(headers.get_all(CONTENT_LENGTH).iter().count() <= 1);
    let sent = hop.upstream(
        headers,
        HeaderValue::from_static("Bearer minted"),
        HeaderValue::from_static("our-id"),
    );
    let all = |name| sent.get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(all(AUTHORIZATION), ["Bearer minted"]);
    assert_eq!(all(AUDIT_ID), ["our-id"]);
    for (name, value) in &sent {
        let name = name.as_str().replace('_', "-");
        for prefix in ["impersonate-", "x-remote-", "x-forwarded-"] {
            assert!(!name.starts_with(prefix), "{name}");
        }
        if name == "sec-websocket-protocol" {
            let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
            assert!(
                !value
                    .split(',')
                    .any(|item| item.trim().starts_with(BEARER_PROTOCOL))
            );
        }
    }
    match hop.upgrade() {
        Some(upgrade) => {
            assert_eq!(all(CONNECTION), ["Upgrade"]);
            assert_eq!(all(UPGRADE), [upgrade.as_str()]);
        }
        None => hop_by_hop_is_gone(&sent),
    }
});

fn parse(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(600) {
        let (name, value) = line
            .iter()
            .position(|byte| *byte == b':')
            .map_or((line, &b""[..]), |at| (&line[..at], &line[at + 1..]));
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_bytes(value.trim_ascii()),
        ) {
            headers.append(name, value);
        }
    }
    headers
}

fn hop_by_hop_is_gone(headers: &HeaderMap) {
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    ] {
        assert!(!headers.contains_key(name), "{name}");
    }
}

fn local_checks(headers: &HeaderMap) {
    if local::check(Version::HTTP_11, headers).is_ok() {
        let host = headers["host"].to_str().expect("a local host is text");
        let host = host.to_ascii_lowercase();
        assert!(
            ["127.0.0.1", "localhost", "kubernetes", "["]
                .iter()
                .any(|start| host.starts_with(start)),
            "{host}"
        );
    }
    let token = Token::parse("tgl1_agent").expect("a token");
    let tokens = LocalTokens::new(LocalAuth::Token, [("agent".to_owned(), &token)]);
    if let Ok(container) = tokens.authenticate(headers) {
        assert_eq!(container, Some("agent"));
        let shown = headers
            .get_all(AUTHORIZATION)
            .iter()
            .chain(headers.get_all("sec-websocket-protocol"))
            .any(|value| {
                let value = String::from_utf8_lossy(value.as_bytes());
                value.contains("tgl1_agent") || value.contains("dGdsMV9hZ2VudA")
            });
        assert!(shown, "authenticated without the token");
    }
}
