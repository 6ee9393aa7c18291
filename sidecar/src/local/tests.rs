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

fn reason(lines: &[(&str, &str)]) -> Option<Reason> {
    check(Version::HTTP_11, &map(lines))
        .err()
        .map(|refusal| refusal.reason)
}

#[test]
fn knows_local_hosts() {
    for host in [
        "127.0.0.1",
        "127.0.0.1:6443",
        "localhost",
        "localhost:6443",
        "LocalHost:1",
        "[::1]",
        "[::1]:6443",
        "[0:0:0:0:0:0:0:1]:6443",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc:443",
        "kubernetes.default.svc.cluster.local:443",
    ] {
        assert_eq!(reason(&[("host", host)]), None, "{host}");
    }
    for host in [
        "",
        "example.com",
        "localhost.example.com",
        "127.0.0.1.nip.io",
        "127.0.0.2",
        "127.1",
        "2130706433",
        "0.0.0.0",
        "10.0.0.1:6443",
        "::1",
        "[::1",
        "[::2]",
        "[::ffff:127.0.0.1]",
        "[::1]x",
        "[::1%lo]",
        "localhost:",
        "localhost:x",
        "localhost:+1",
        "localhost:65536",
        "localhost:1:2",
        "localhost, localhost",
        "user@localhost",
        "localhost/",
        "localhost.",
        "kubernetes.default.svc.example.com",
        "\u{e9}",
    ] {
        assert_eq!(
            reason(&[("host", host)]),
            Some(Reason::ForeignHost),
            "{host}"
        );
    }
}

#[test]
fn wants_one_host_of_http_1_1() {
    assert_eq!(reason(&[]), Some(Reason::BadRequest));
    assert_eq!(
        reason(&[("host", "localhost"), ("host", "localhost")]),
        Some(Reason::BadRequest)
    );
    for version in [Version::HTTP_09, Version::HTTP_10, Version::HTTP_2] {
        let refusal = check(version, &map(&[("host", "localhost")])).unwrap_err();
        assert_eq!(refusal.reason, Reason::BadRequest);
    }
}

#[test]
fn refuses_browsers() {
    let browser = Some(Reason::BrowserRequest);
    for (host, name, value, expected) in [
        ("127.0.0.1:6443", "origin", "https://127.0.0.1:6443", None),
        // Python's websocket-client over a plain URL, and Go's origin in another case.
        ("localhost:6443", "origin", "http://localhost:6443", None),
        ("localhost:6443", "origin", "HTTPS://LOCALHOST:6443", None),
        (
            "localhost:6443",
            "origin",
            "https://127.0.0.1:6443",
            browser,
        ),
        ("localhost:6443", "origin", "http://localhost:3000", browser),
        ("localhost:6443", "origin", "https://localhost", browser),
        (
            "localhost:6443",
            "origin",
            "https://localhost:6443/",
            browser,
        ),
        ("localhost:6443", "origin", "https://example.com", browser),
        ("localhost:6443", "origin", "file://localhost:6443", browser),
        ("localhost:6443", "origin", "null", browser),
        ("localhost:6443", "origin", "", browser),
        ("localhost:6443", "sec-fetch-site", "none", None),
        ("localhost:6443", "sec-fetch-site", "same-origin", browser),
        ("localhost:6443", "sec-fetch-site", "same-site", browser),
        ("localhost:6443", "sec-fetch-site", "cross-site", browser),
        ("localhost:6443", "sec-fetch-site", "", browser),
        // Node's fetch sends this one.
        ("localhost:6443", "sec-fetch-mode", "cors", None),
        ("localhost:6443", "referer", "https://example.com", None),
    ] {
        assert_eq!(
            reason(&[("host", host), (name, value)]),
            expected,
            "{host} {name}: {value}"
        );
    }
    assert_eq!(
        reason(&[
            ("host", "localhost"),
            ("origin", "https://localhost"),
            ("origin", "https://localhost"),
        ]),
        Some(Reason::BadRequest)
    );
}

const PROTOCOL: &str = "sec-websocket-protocol";

fn tokens(auth: LocalAuth) -> LocalTokens {
    let agent = Token::parse("tgl1_agent").unwrap();
    let helper = Token::parse("tgl1_helper").unwrap();
    LocalTokens::new(
        auth,
        [("agent".to_owned(), &agent), ("helper".to_owned(), &helper)],
    )
}

// base64url of tgl1_agent and of tgl1_other.
const AGENT: &str = "base64url.bearer.authorization.k8s.io.dGdsMV9hZ2VudA";
const OTHER: &str = "base64url.bearer.authorization.k8s.io.dGdsMV9vdGhlcg";

type Outcome = Result<Option<&'static str>, Reason>;
const MISSING: Outcome = Err(Reason::LocalTokenMissing);
const WRONG: Outcome = Err(Reason::LocalTokenWrong);

type Lines = &'static [(&'static str, &'static str)];

/// Header lines, and what they are worth where a token is required and where it is not.
const CREDENTIALS: &[(Lines, Outcome, Outcome)] = &[
    (&[], MISSING, Ok(None)),
    (
        &[("authorization", "Bearer tgl1_agent")],
        Ok(Some("agent")),
        Ok(Some("agent")),
    ),
    (
        &[("authorization", "bearer tgl1_helper")],
        Ok(Some("helper")),
        Ok(Some("helper")),
    ),
    (
        &[("authorization", "BEARER   tgl1_agent ")],
        Ok(Some("agent")),
        Ok(Some("agent")),
    ),
    (&[("authorization", "")], MISSING, Ok(None)),
    (&[("authorization", "Bearer tgl1_agen")], WRONG, Ok(None)),
    (&[("authorization", "Bearer tgl1_agent2")], WRONG, Ok(None)),
    (&[("authorization", "Bearer tgl1_agent x")], WRONG, Ok(None)),
    (&[("authorization", "Bearer")], WRONG, Ok(None)),
    (&[("authorization", "Bearer ")], WRONG, Ok(None)),
    (&[("authorization", "Basic tgl1_agent")], WRONG, Ok(None)),
    (&[("authorization", "tgl1_agent")], WRONG, Ok(None)),
    (&[(PROTOCOL, AGENT)], Ok(Some("agent")), Ok(Some("agent"))),
    (
        &[(PROTOCOL, "v5.channel.k8s.io"), (PROTOCOL, AGENT)],
        Ok(Some("agent")),
        Ok(Some("agent")),
    ),
    (&[(PROTOCOL, "v5.channel.k8s.io")], MISSING, Ok(None)),
    (&[(PROTOCOL, OTHER)], WRONG, Ok(None)),
    (
        &[(PROTOCOL, "base64url.bearer.authorization.k8s.io.!")],
        WRONG,
        Ok(None),
    ),
    // Authorization decides; the API server reads it first, too.
    (
        &[("authorization", "Bearer tgl1_helper"), (PROTOCOL, AGENT)],
        Ok(Some("helper")),
        Ok(Some("helper")),
    ),
    (
        &[("authorization", "Bearer x"), (PROTOCOL, AGENT)],
        WRONG,
        Ok(None),
    ),
    (
        &[
            ("authorization", "Bearer tgl1_agent"),
            ("authorization", "Bearer tgl1_agent"),
        ],
        Err(Reason::BadRequest),
        Err(Reason::BadRequest),
    ),
    (
        &[(PROTOCOL, AGENT), (PROTOCOL, AGENT)],
        Err(Reason::BadRequest),
        Err(Reason::BadRequest),
    ),
];

#[test]
fn a_token_names_its_container() {
    for (lines, required, optional) in CREDENTIALS {
        let headers = map(lines);
        for (auth, expected) in [(LocalAuth::Token, required), (LocalAuth::None, optional)] {
            let tokens = tokens(auth);
            let found = tokens
                .authenticate(&headers)
                .map_err(|refusal| refusal.reason);
            assert_eq!(found, *expected, "{lines:?} {auth:?}");
        }
    }
}

#[test]
fn shows_no_token() {
    let shown = format!("{:?}", tokens(LocalAuth::Token));
    assert_eq!(
        shown,
        r#"LocalTokens { auth: Token, containers: ["agent", "helper"] }"#
    );
    let headers = map(&[("authorization", "Bearer tgl1_secret")]);
    let refusal = tokens(LocalAuth::Token).authenticate(&headers).unwrap_err();
    assert!(!format!("{refusal:?}").contains("secret"));
}
