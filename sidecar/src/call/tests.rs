use proptest::prelude::*;

use super::*;

/// Shared with the end-to-end tests, which send the same lines to a real API server.
const TABLE: &str = include_str!("../../testdata/paths.tsv");

/// Outcome, verb, group, version, resource, subresource, namespace and name, in the table's spelling.
fn columns(method: &str, target: &str) -> Vec<String> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let cells = match Call::resolve(&method, target) {
        Ok(call) => vec![
            "ok".to_owned(),
            call.verb.to_string(),
            call.group,
            call.version,
            call.resource,
            call.subresource,
            call.namespace,
            call.name,
        ],
        Err(refusal) => {
            let mut cells = vec![refusal.reason.code().to_owned()];
            cells.resize(8, String::new());
            cells
        }
    };
    cells
        .into_iter()
        .map(|cell| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                cell
            }
        })
        .collect()
}

#[test]
fn resolves_as_the_api_server_does() {
    let mut wrong = Vec::new();
    let mut lines = 0;
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        lines += 1;
        let cells: Vec<&str> = line.split('\t').collect();
        assert_eq!(cells.len(), 11, "{line}");
        let found = columns(cells[0], cells[1]);
        if found != cells[2..10] {
            wrong.push(format!("{line}\n    found {found:?}"));
        }
    }
    assert!(lines >= 150, "only {lines} lines");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn get(target: &str) -> Call {
    Call::resolve(&Method::GET, target).unwrap()
}

#[test]
fn keeps_the_path_decoded_and_the_target_raw() {
    let call = get("/api/v1/namespaces/a/pods/x%20y/?a=%41");
    assert_eq!(call.path, "/api/v1/namespaces/a/pods/x y/");
    assert_eq!(call.target(), "/api/v1/namespaces/a/pods/x%20y/?a=%41");
    assert_eq!(call.api_prefix, "api");
    assert!(call.resource_request);
    assert!(!get("/healthz").resource_request);
}

#[test]
fn shows_the_query() {
    let call = get(
        "/api/v1/namespaces/a/pods/x/exec?container=a&command=sh&command=-c&command=a+b%0A&container=b",
    );
    assert_eq!(call.containers().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(call.commands().collect::<Vec<_>>(), ["sh", "-c", "a b\n"]);
    assert_eq!(call.query_first("container"), Some("a"));
    assert_eq!(call.query_first("Container"), None);
    assert_eq!(call.query_all("command").count(), 3);
    let proxied = get("/api/v1/namespaces/a/services/x/proxy/?container=a");
    assert_eq!(proxied.query_first("container"), None);
}

#[test]
fn knows_what_runs_long() {
    for (target, long) in [
        ("/api/v1/pods?watch=1", true),
        ("/api/v1/watch/pods", true),
        ("/api/v1/namespaces/a/pods/x/log", true),
        ("/api/v1/namespaces/a/pods/x/exec", true),
        ("/api/v1/namespaces/a/pods/x/attach", true),
        ("/api/v1/namespaces/a/pods/x/portforward", true),
        ("/api/v1/namespaces/a/services/x/proxy/a", true),
        ("/api/v1/namespaces/a/pods/x/status", false),
        ("/api/v1/pods", false),
        ("/healthz", false),
    ] {
        assert_eq!(get(target).is_long_running(), long, "{target}");
    }
}

#[test]
fn redacts_commands() {
    let exec = "/api/v1/namespaces/a/pods/x/exec";
    for (query, shown) in [
        ("", ""),
        ("?container=c", "?container=c"),
        ("?command=ls", "?command=REDACTED"),
        (
            "?command=mysql&command=-psecret&container=c&stdin=true",
            "?command=REDACTED&command=REDACTED&container=c&stdin=true",
        ),
        ("?%63ommand=secret&x", "?%63ommand=REDACTED&x"),
        ("?command&command=", "?command&command=REDACTED"),
        ("?a=command=x&", "?a=command=x&"),
        ("?Command=x", "?Command=x"),
    ] {
        assert_eq!(
            redact_commands(&format!("{exec}{query}")),
            format!("{exec}{shown}"),
            "{query}"
        );
    }
    assert_eq!(
        redact_commands("/api//exec?command=secret;command=secret&a=b"),
        "/api//exec?command=REDACTED;command=REDACTED&a=b"
    );
}

#[test]
fn takes_origin_form_only() {
    for (uri, reason) in [
        ("/api/v1/pods?watch=1", None),
        (
            "https://127.0.0.1:6443/api/v1/pods",
            Some(Reason::BadRequest),
        ),
        ("127.0.0.1:6443", Some(Reason::BadRequest)),
        ("*", Some(Reason::AmbiguousPath)),
    ] {
        let found = Call::of_request(&Method::GET, &uri.parse().unwrap());
        assert_eq!(found.err().map(|refusal| refusal.reason), reason, "{uri}");
    }
}

#[test]
fn limits_the_number_of_parameters() {
    let query = |pairs: usize| format!("/api/v1/pods?{}", "a&".repeat(pairs - 1));
    assert!(Call::resolve(&Method::GET, &query(10_000)).is_ok());
    assert_eq!(
        Call::resolve(&Method::GET, &query(10_001))
            .unwrap_err()
            .reason,
        Reason::BadRequest
    );
}

#[test]
fn names_its_methods_as_the_authorizer_does() {
    for verb in [Verb::Get, Verb::List, Verb::Watch, Verb::Head] {
        assert!(!verb.writes(), "{verb}");
    }
    for verb in [
        Verb::Create,
        Verb::Update,
        Verb::Patch,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Post,
        Verb::Put,
    ] {
        assert!(verb.writes(), "{verb}");
    }
}

/// Reads a raw path as eagerly as any proxy might: split first, parameters cut off, decoded twice, slashes and backslashes
/// in what was decoded split again, empty segments and dots resolved.
fn eager(raw: &str) -> Vec<String> {
    let decode = |text: &str| {
        percent_encoding::percent_decode_str(text)
            .decode_utf8_lossy()
            .into_owned()
    };
    let mut segments: Vec<String> = Vec::new();
    for part in raw.split('/') {
        let once = decode(part);
        let bare = once.split(';').next().unwrap_or_default();
        for segment in decode(bare).split(['/', '\\', '?', '#']) {
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop();
                }
                segment => segments.push(segment.to_owned()),
            }
        }
    }
    segments
}

/// How many segments of a proxied call come before the backend's: prefix, group, version, namespace, resource, name, proxy.
fn own_segments(call: &Call) -> usize {
    5 + usize::from(call.api_prefix == "apis") + if call.namespace.is_empty() { 0 } else { 2 }
}

fn fragment() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "api",
        "apis",
        "v1",
        "apps",
        "namespaces",
        "a",
        "pods",
        "services",
        "x",
        "watch",
        "proxy",
        "status",
        "exec",
        "token",
        "..",
        ".",
        "%2e",
        "%2E%2e",
        "%2F",
        "%252F",
        "%5C",
        "%",
        "%zz",
        "%25",
        ";",
        "..;",
        "?",
        "#",
        "&",
        "=",
        "watch=1",
        "%00",
        "%0A",
        "é",
        "%C3%A9",
        "%FF",
        "\\",
        " ",
        "+",
        "*",
        "",
    ])
    .prop_map(str::to_owned);
    prop_oneof![9 => words, 1 => any::<String>()]
}

fn target() -> impl Strategy<Value = String> {
    let joined = (
        prop::sample::select(vec![
            "/api/v1",
            "/apis/apps/v1",
            "/api/v1/namespaces/a",
            "",
            "/",
        ]),
        prop::collection::vec(
            (fragment(), prop::sample::select(vec!["/", "/", "/", ""])),
            0..8,
        ),
    )
        .prop_map(|(start, parts)| {
            parts
                .into_iter()
                .fold(format!("{start}/"), |path, (part, end)| path + &part + end)
        });
    prop_oneof![4 => joined, 1 => any::<String>()]
}

fn method() -> impl Strategy<Value = Method> {
    prop::sample::select(vec![
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_accepted_reads_the_same_to_everybody(method in method(), target in target()) {
        let Ok(call) = Call::resolve(&method, &target) else {
            return Ok(());
        };
        let raw = target.split('?').next().unwrap();
        // No slash appeared by decoding, none went missing.
        prop_assert_eq!(call.path.matches('/').count(), raw.matches('/').count());
        prop_assert!(!call.path.contains('\\') && !call.path.chars().any(char::is_control));
        for part in [&call.group, &call.version, &call.resource, &call.subresource, &call.namespace] {
            prop_assert!(!part.contains(['/', '%', ';', '?', '#']), "{}", part);
            prop_assert!(part != "." && part != "..");
        }
        prop_assert!(!call.name.contains(['/', '%']));
        // Raw bytes are what is forwarded, and they mean the same again.
        prop_assert_eq!(call.target(), &target);
        prop_assert_eq!(&Call::resolve(&method, call.target()).unwrap(), &call);
        // The most eager normaliser finds the same segments, up to the backend's own.
        let mut plain: Vec<String> = call.path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let mut eager = eager(raw);
        if call.subresource == "proxy" {
            let own = own_segments(&call);
            plain.truncate(own);
            eager.truncate(own);
        }
        prop_assert_eq!(eager, plain);
    }
}
