use proptest::prelude::*;

use super::*;

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    headers
}

fn lines(headers: &HeaderMap) -> Vec<(&str, &str)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect()
}

fn upstream(sent: &[(&str, &str)]) -> HeaderMap {
    let sent = map(sent);
    Hop::of(&sent).unwrap().upstream(
        sent,
        HeaderValue::from_static("Bearer minted"),
        HeaderValue::from_static("our-id"),
    )
}

#[test]
fn strips_credentials_identities_and_the_hop() {
    for name in [
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Impersonate-User",
        "Impersonate-Group",
        "Impersonate-Uid",
        "Impersonate-Extra-Scopes",
        "Impersonate_User",
        "X-Remote-User",
        "X-Remote-Group",
        "X-Remote-Extra-a%2Fb",
        "X_Remote_User",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Client-Cert",
        "X_Forwarded_For",
        "Forwarded",
        "X-Real-Ip",
        "Audit-ID",
        "Audit_ID",
        "Host",
        "Origin",
        "Expect",
        "X-HTTP-Method-Override",
        "X-Original-Url",
        "X-Rewrite-Url",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Upgrade",
        "HTTP2-Settings",
    ] {
        let sent = upstream(&[(name, "agent's"), (name, "twice"), ("Accept", "*/*")]);
        assert_eq!(
            lines(&sent),
            [
                ("accept", "*/*"),
                ("authorization", "Bearer minted"),
                ("audit-id", "our-id"),
            ],
            "{name}"
        );
    }
}

#[test]
fn keeps_what_is_end_to_end() {
    let sent = [
        ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"),
        ("accept-encoding", "gzip"),
        ("content-type", "application/apply-patch+yaml"),
        ("content-length", "12"),
        ("user-agent", "kubectl/v1.37.2"),
        ("kubectl-command", "kubectl get"),
        ("kubectl-session", "6e1b"),
        ("traceparent", "00-a-b-01"),
        ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ("x-stream-protocol-version", "v3.channel.k8s.io"),
        ("if-none-match", "\"x\""),
        ("range", "bytes=0-1"),
        ("x-remotely", "kept"),
        ("forwarded-by", "kept"),
        ("x_custom", "kept"),
    ];
    let mut kept = sent.to_vec();
    kept.extend([("authorization", "Bearer minted"), ("audit-id", "our-id")]);
    let mut found = upstream(&sent);
    let mut found_lines = lines(&found);
    kept.sort_unstable();
    found_lines.sort_unstable();
    assert_eq!(found_lines, kept);
    assert!(found.remove(AUTHORIZATION).unwrap().is_sensitive());
}

#[test]
fn drops_what_connection_names() {
    let sent = upstream(&[
        ("Connection", "close, X-Debug"),
        ("Connection", "x-more ,, TE"),
        ("X-Debug", "1"),
        ("X-More", "1"),
        ("X-Kept", "1"),
        ("TE", "trailers"),
    ]);
    assert_eq!(lines(&sent)[0], ("x-kept", "1"));
    assert_eq!(sent.len(), 3);
}

#[test]
fn passes_upgrades_on() {
    for (connection, protocol, expected) in [
        ("Upgrade", "websocket", Some(Upgrade::WebSocket)),
        ("upgrade", "WebSocket", Some(Upgrade::WebSocket)),
        ("keep-alive, Upgrade", "websocket", Some(Upgrade::WebSocket)),
        ("Upgrade", "SPDY/3.1", Some(Upgrade::Spdy31)),
        ("Upgrade", "spdy/3.1", Some(Upgrade::Spdy31)),
        // A substring counts, as in the API server.
        ("upgrades", "websocket", Some(Upgrade::WebSocket)),
        ("keep-alive", "websocket", None),
        ("Upgrade", "h2c", None),
        ("Upgrade, HTTP2-Settings", "h2c", None),
        ("Upgrade", "TLS/1.0, h2c", None),
        ("Upgrade", "SPDY/3", None),
        ("Upgrade", "websockets", None),
        ("Upgrade", "", None),
    ] {
        let sent = [
            ("Connection", connection),
            ("Upgrade", protocol),
            ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ];
        let hop = Hop::of(&map(&sent)).unwrap();
        assert_eq!(hop.upgrade(), expected, "{connection} {protocol}");
        let sent = upstream(&sent);
        assert_eq!(
            sent.get(UPGRADE).map(HeaderValue::as_bytes),
            expected.map(|upgrade| upgrade.as_str().as_bytes()),
            "{connection} {protocol}"
        );
        assert_eq!(
            sent.get(CONNECTION).map(HeaderValue::as_bytes),
            expected.map(|_| b"Upgrade".as_slice()),
            "{connection} {protocol}"
        );
        assert!(!sent.contains_key("http2-settings"));
    }
    assert_eq!(
        Hop::of(&map(&[("Connection", "Upgrade")]))
            .unwrap()
            .upgrade(),
        None
    );
}

#[test]
fn strips_bearer_subprotocols() {
    let token = "base64url.bearer.authorization.k8s.io.dGdsMV9h";
    for (sent, kept) in [
        (vec!["v5.channel.k8s.io"], vec!["v5.channel.k8s.io"]),
        (vec!["a,b ,  c"], vec!["a,b ,  c"]),
        (vec!["a", "b"], vec!["a", "b"]),
        (vec!["a, TOKEN, b"], vec!["a, b"]),
        (vec!["TOKEN,a"], vec!["a"]),
        (vec!["a", "TOKEN", "b"], vec!["a, b"]),
        (vec!["TOKEN, a", "b, TOKEN"], vec!["a, b"]),
        (
            vec!["a, BASE64URL.Bearer.authorization.k8s.io.x"],
            vec!["a"],
        ),
        (vec!["a, base64url.bearer.authorization.k8s.io."], vec!["a"]),
        (
            vec!["a, base64url.bearer.authorization.k8s.io"],
            vec!["a, base64url.bearer.authorization.k8s.io"],
        ),
    ] {
        let values: Vec<String> = sent
            .iter()
            .map(|value| value.replace("TOKEN", token))
            .collect();
        let lines: Vec<(&str, &str)> = values
            .iter()
            .map(|value| ("Sec-WebSocket-Protocol", value.as_str()))
            .collect();
        let sent = upstream(&lines);
        let found: Vec<&str> = sent
            .get_all("sec-websocket-protocol")
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        assert_eq!(found, kept, "{values:?}");
    }
}

/// Header lines that no call may have.
const REFUSED: &[&[(&str, &str)]] = &[
    &[("Content-Length", "1"), ("Content-Length", "2")],
    &[("Content-Length", "1"), ("Content-Length", "1")],
    &[("Content-Length", "1, 1")],
    &[("Content-Length", "+1")],
    &[("Content-Length", "-1")],
    &[("Content-Length", "0x1")],
    &[("Content-Length", "")],
    &[("Content-Length", "1"), ("Transfer-Encoding", "chunked")],
    &[("Transfer-Encoding", "gzip, chunked")],
    &[("Transfer-Encoding", "identity")],
    &[
        ("Transfer-Encoding", "chunked"),
        ("Transfer-Encoding", "chunked"),
    ],
    &[("Transfer-Encoding", "xchunked")],
    &[("Connection", "authorization")],
    &[("Connection", "close, Authorization")],
    &[("Connection", "audit-id")],
    &[("Connection", "audit_id")],
    &[("Connection", "host")],
    &[("Connection", "content-length")],
    &[("Connection", "User-Agent")],
    &[("Connection", "Sec-WebSocket-Protocol")],
    &[("Connection", "impersonate-user")],
    &[("Connection", "a b")],
    &[("Connection", "\u{e9}")],
    &[("Connection", "Upgrade"), ("Upgrade", "websocket, h2c")],
    &[
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Upgrade", "SPDY/3.1"),
    ],
    &[
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Content-Length", "5"),
    ],
    &[
        ("Connection", "Upgrade"),
        ("Upgrade", "SPDY/3.1"),
        ("Transfer-Encoding", "chunked"),
    ],
    &[("Connection", "Upgrade"), ("Upgrade", "\u{e9}")],
    &[(
        "Sec-WebSocket-Protocol",
        "base64url.bearer.authorization.k8s.io.dGdsMV9h",
    )],
    &[(
        "Sec-WebSocket-Protocol",
        "base64url.bearer.authorization.k8s.io.dGdsMV9h, ,",
    )],
    &[("Sec-WebSocket-Protocol", "\u{e9}")],
];

#[test]
fn refuses_what_two_could_read_differently() {
    for sent in REFUSED {
        let refusal = Hop::of(&map(sent)).expect_err(&format!("{sent:?}"));
        assert_eq!(refusal.reason, Reason::BadRequest, "{sent:?}");
    }
    let many: Vec<(&str, &str)> = vec![("a", "b"); MAX_FIELDS + 1];
    assert!(Hop::of(&map(&many)).is_err());
    assert!(Hop::of(&map(many.get(1..).unwrap())).is_ok());
    assert!(
        Hop::of(&map(&[
            ("Connection", "Upgrade"),
            ("Upgrade", "SPDY/3.1"),
            ("Content-Length", "0"),
        ]))
        .is_ok()
    );
}

#[test]
fn sends_answers_back_without_the_hop() {
    let answer = map(&[
        ("audit-id", "x"),
        ("warning", "299 - \"a\""),
        ("warning", "299 - \"b\""),
        ("retry-after", "1"),
        ("content-encoding", "gzip"),
        ("content-length", "3"),
        ("x-kubernetes-pf-flowschema-uid", "y"),
        ("set-cookie", "a=b"),
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("trailer", "x"),
        ("proxy-authenticate", "Basic"),
        ("upgrade", "h2c"),
    ]);
    let sent = downstream(answer.clone(), None);
    assert_eq!(
        lines(&sent),
        lines(&answer).into_iter().take(8).collect::<Vec<_>>()
    );
    let switched = downstream(
        map(&[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-protocol", "v5.channel.k8s.io"),
        ]),
        Some(Upgrade::WebSocket),
    );
    assert_eq!(
        lines(&switched),
        [
            ("sec-websocket-protocol", "v5.channel.k8s.io"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
        ]
    );
}

fn header() -> impl Strategy<Value = (String, Vec<u8>)> {
    let names = prop::sample::select(vec![
        "connection",
        "upgrade",
        "authorization",
        "audit-id",
        "impersonate-user",
        "x_remote_user",
        "x-forwarded-for",
        "content-length",
        "transfer-encoding",
        "sec-websocket-protocol",
        "cookie",
        "accept",
        "te",
        "x-a",
        "x-b",
    ])
    .prop_map(str::to_owned);
    let values = prop::sample::select(vec![
        "close",
        "x-a, x-b",
        "upgrade",
        "Upgrade, x-a",
        "websocket",
        "SPDY/3.1",
        "h2c",
        "chunked",
        "0",
        "17",
        "base64url.bearer.authorization.k8s.io.YQ, v4.channel.k8s.io",
        "a",
        "",
    ])
    .prop_map(|value| value.as_bytes().to_vec());
    (
        prop_oneof![9 => names, 1 => "[a-z][a-z0-9_-]{0,20}"],
        prop_oneof![9 => values, 1 => prop::collection::vec(32_u8..127, 0..20), 1 => prop::collection::vec(128_u8..=255, 0..5)],
    )
}

proptest! {
    #[test]
    fn nothing_of_the_agents_identity_arrives(sent in prop::collection::vec(header(), 0..12)) {
        let mut headers = HeaderMap::new();
        for (name, value) in &sent {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value).unwrap(),
            );
        }
        let Ok(hop) = Hop::of(&headers) else {
            return Ok(());
        };
        let arrived = hop.upstream(
            headers,
            HeaderValue::from_static("Bearer minted"),
            HeaderValue::from_static("our-id"),
        );
        prop_assert_eq!(arrived.get_all(AUTHORIZATION).iter().collect::<Vec<_>>(), ["Bearer minted"]);
        prop_assert_eq!(arrived.get_all(AUDIT_ID).iter().collect::<Vec<_>>(), ["our-id"]);
        prop_assert_eq!(arrived.contains_key(UPGRADE), hop.upgrade().is_some());
        prop_assert_eq!(arrived.contains_key(CONNECTION), hop.upgrade().is_some());
        for (name, value) in &arrived {
            let name = name.as_str().replace('_', "-");
            prop_assert!(!name.starts_with("impersonate-") && !name.starts_with("x-remote-"));
            prop_assert!(!matches!(name.as_str(), "transfer-encoding" | "te" | "cookie"));
            let value = String::from_utf8_lossy(value.as_bytes()).to_lowercase();
            prop_assert!(name != "sec-websocket-protocol" || !value.contains(BEARER_PROTOCOL));
        }
    }
}
