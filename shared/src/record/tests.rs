//! Lines survive whatever a shipper does to JSON, and nothing else.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// A closing line with every field there is.
const FULL: &str = r#"{"annotations":{
    "tollgate.dev/container":"agent","tollgate.dev/credential-id":"JTI=5f0d","tollgate.dev/decision":"allow",
    "tollgate.dev/mint-audit-id":"00000000-0000-8000-8000-000000000002","tollgate.dev/mint-seconds":"0.003700",
    "tollgate.dev/namespace":"demo","tollgate.dev/outcome":"completed","tollgate.dev/pod":"agent-0",
    "tollgate.dev/pod-uid":"uid-1","tollgate.dev/policy":"p",
    "tollgate.dev/previous-hash":"0000000000000000000000000000000000000000000000000000000000000000",
    "tollgate.dev/reason":"no-policy","tollgate.dev/request-bytes":"0","tollgate.dev/response-bytes":"17",
    "tollgate.dev/rule":"r","tollgate.dev/sequence":"1","tollgate.dev/tier":"none",
    "tollgate.dev/truncated":"requestURI","tollgate.dev/upstream-seconds":"12.000001"},
    "apiVersion":"audit.k8s.io/v1","auditID":"00000000-0000-8000-8000-000000000001","kind":"Event","level":"Metadata",
    "objectRef":{"apiGroup":"apps","apiVersion":"v1","name":"n","namespace":"demo","resource":"deployments","subresource":"scale"},
    "requestReceivedTimestamp":"2026-08-01T10:00:00.000001Z","requestURI":"/apis","responseStatus":{"code":200,"message":"m","reason":"r"},
    "sourceIPs":["127.0.0.1"],"stage":"ResponseComplete","stageTimestamp":"2026-08-01T10:00:01.999999Z",
    "user":{"extra":{"authentication.kubernetes.io/node-name":["n"],"authentication.kubernetes.io/pod-name":["agent-0"],
    "authentication.kubernetes.io/pod-uid":["uid-1"]},"username":"system:serviceaccount:demo:agent"},
    "userAgent":"kubectl","verb":"patch"}"#;

fn sealed(event: &mut Event<'_>) -> String {
    let mut line = Vec::new();
    Chain::default().seal(event, &mut line).unwrap();
    String::from_utf8(line).unwrap()
}

fn full() -> String {
    sealed(&mut parse(FULL).unwrap())
}

/// The same JSON as another program could write it: keys in reverse, spaces, everything escaped that may be.
fn rewritten(value: &Value, out: &mut String) {
    let quote = |text: &str, out: &mut String| {
        out.push('"');
        text.encode_utf16()
            .for_each(|unit| out.push_str(&format!("\\u{unit:04X}")));
        out.push('"');
    };
    match value {
        Value::Object(map) => {
            out.push_str(" {\t");
            for (at, (key, value)) in map.iter().rev().enumerate() {
                out.push_str(if at == 0 { "" } else { " , " });
                quote(key, out);
                out.push_str(" : ");
                rewritten(value, out);
            }
            out.push('}');
        }
        Value::Array(values) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                out.push_str(if at == 0 { " " } else { " ," });
                rewritten(value, out);
            }
            out.push(']');
        }
        Value::String(text) => quote(text, out),
        Value::Number(number) => out.push_str(&format!("{number}.0")),
        other => out.push_str(&other.to_string()),
    }
}

fn holds(line: &str) -> Result<Digest, BadLine> {
    check(line.trim_end(), &mut parse(line)?, &mut Vec::new())
}

#[test]
fn the_keys_are_those_of_the_list_and_the_line_is_canonical() {
    let line = full();
    let value: Value = serde_json::from_str(&line).unwrap();
    let keys: Vec<&String> = value["annotations"].as_object().unwrap().keys().collect();
    assert_eq!(keys, key::ALL);
    let canonical = serde_json_canonicalizer::to_string(&value).unwrap();
    assert_eq!(line, canonical + "\n");
}

#[test]
fn every_changed_value_is_found() {
    let line = full();
    let hash = holds(&line).unwrap();
    let value: Value = serde_json::from_str(&line).unwrap();
    let mut paths = Vec::new();
    leaves(&value, String::new(), &mut paths);
    assert_eq!(paths.len(), 44, "{paths:?}");
    for path in paths {
        let mut changed = value.clone();
        let leaf = changed.pointer_mut(&path).unwrap();
        *leaf = match &*leaf {
            Value::Number(number) => (number.as_u64().unwrap() + 1).into(),
            other => other.as_str().unwrap().replacen(|_| true, "9", 1).into(),
        };
        let error = holds(&changed.to_string()).map(|other| other == hash);
        assert!(error.is_err(), "{path}: {error:?}");
    }
}

fn leaves(value: &Value, path: String, paths: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            leaves(value, format!("{path}/{}", key.replace('/', "~1")), paths);
        }),
        Value::Array(values) => values.iter().enumerate().for_each(|(at, value)| {
            leaves(value, format!("{path}/{at}"), paths);
        }),
        _ => paths.push(path),
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let line = full();
    let line = line.trim_end();
    for (from, to) in [
        (r#""verb":"#, r#""verb":"get","verb":"#),
        (
            r#""tollgate.dev/tier":"#,
            r#""tollgate.dev/tier":"x","tollgate.dev/tier":"#,
        ),
        (r#""verb":"#, r#""verbs":"get","verb":"#),
        (
            r#""tollgate.dev/tier":"#,
            r#""tollgate.dev/other":"x","tollgate.dev/tier":"#,
        ),
        (r#""code":200"#, r#""code":200.5"#),
        (r#""code":200"#, r#""code":"200""#),
        (r#""code":200"#, r#""code":-200"#),
        (r#""code":200"#, r#""code":1e400"#),
        (
            r#""tollgate.dev/sequence":"1""#,
            r#""tollgate.dev/sequence":"01""#,
        ),
        (
            r#""tollgate.dev/sequence":"1""#,
            r#""tollgate.dev/sequence":"+1""#,
        ),
        (
            r#""tollgate.dev/sequence":"1""#,
            r#""tollgate.dev/sequence":1"#,
        ),
        (
            r#""00000000-0000-8000-8000-000000000001""#,
            r#""00000000-0000-8000-8000-00000000000A""#,
        ),
        (r#"12.000001"#, r#"12.00001"#),
        (r#":00.000001Z"#, r#":00.000001+"#),
        (r#"2026-08-01T10:00:00"#, r#"2026-02-30T10:00:00"#),
        (r#""kind":"Event""#, r#""kind":"event""#),
        (r#""verb":"patch"}"#, r#""verb":"patch"} {}"#),
    ] {
        assert!(line.contains(from), "{from}");
        assert!(
            parse(&line.replacen(from, to, 1)).is_err(),
            "{from} -> {to}"
        );
    }
    assert!(matches!(holds(FULL), Err(BadLine::NoHash)));
}

#[test]
fn an_opening_names_itself_and_its_mint() {
    let mut event = parse(FULL).unwrap();
    event.stage = Stage::RequestReceived;
    let line = sealed(&mut event);
    let id = AuditId::of_opening(&holds(&line).unwrap());
    assert_eq!(event.audit_id, Some(id));
    for id in [id, id.for_mint(), id.for_mint().for_mint()] {
        let text = id.to_string();
        assert_eq!((&text[14..15], text.parse()), ("8", Ok(id)), "{text}");
        assert!("89ab".contains(&text[19..20]), "{text}");
    }
    let other = line.replace(&id.to_string(), &id.for_mint().to_string());
    assert!(matches!(holds(&other), Err(BadLine::AuditId)));
}

/// Computed by another program: hashes and identifiers never change.
#[test]
fn identifiers_are_as_they_were() {
    assert_eq!(
        holds(&full()).unwrap().to_string(),
        "6c4f43f186866caf9233d3594a6177aeac3282adcbccff20743dc35f77e12e0c"
    );
    let id = AuditId::of_opening(&Digest::of(b"tollgate"));
    let hash = Digest::of(b"tollgate").to_string();
    assert_eq!(id.to_string().replace('-', "")[..12], hash[..12]);
    assert_eq!(
        id.for_mint().to_string(),
        "f7d8c0eb-1f46-81ff-a8ca-cdd5a7f519fe"
    );
}

#[test]
fn times_are_those_of_kubernetes() {
    let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_785_578_400_000_001);
    let stamp = Timestamp::from(time);
    assert_eq!(stamp.to_string(), "2026-08-01T10:00:00.000001Z");
    assert_eq!(stamp.to_string().parse(), Ok(stamp));
    assert_eq!(SystemTime::from(stamp), time);
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(
        Timestamp::from(before).to_string(),
        "1970-01-01T00:00:00.000000Z"
    );
}

#[test]
fn text_is_cut_between_characters_and_shown_harmlessly() {
    for (text, max, shown, cut) in [
        ("plain", 5, "plain", false),
        ("plain", 4, "plai", true),
        ("a\nb", 4, "a\nb", false),
        ("a\nb", 3, "a\n", true),
        ("a\u{1}b", 7, "a\u{1}", true),
        ("\u{1f600}\u{1f600}", 7, "\u{1f600}", true),
        (
            "a\u{7f}\u{9b}\u{2028}\u{202e}\u{feff}b",
            99,
            "a\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}b",
            false,
        ),
    ] {
        assert_eq!(fit(text, max), (shown.into(), cut), "{text:?} {max}");
    }
}

proptest! {
    #[test]
    fn any_text_gives_one_line_that_survives_rewriting(uri in any::<String>(), name in ".*", agent in proptest::option::of(any::<String>())) {
        let mut event = parse(FULL).unwrap();
        event.request_uri = uri.into();
        event.user_agent = agent.map(Text::from);
        event.annotations.container = Some(name.into());
        let line = sealed(&mut event);
        prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        let hash = holds(&line).unwrap();
        let mut other = String::new();
        rewritten(&serde_json::from_str(&line).unwrap(), &mut other);
        prop_assert_eq!(holds(&other).unwrap(), hash);
        prop_assert_eq!(parse(&other).unwrap(), event);
    }

    #[test]
    fn nothing_makes_the_parser_panic(text in ".*", at in 0_usize..1500, with in any::<char>()) {
        drop(parse(&text));
        let mut line = full();
        let at = at.min(line.len() - 1);
        line.replace_range(at..=at, with.encode_utf8(&mut [0; 4]));
        drop(holds(&line));
    }

    #[test]
    fn fitted_text_fits(text in any::<String>(), max in 0_usize..64) {
        let (fitted, _) = fit(&text, max);
        prop_assert!(serde_json::to_string(&fitted).unwrap().len() <= max + 2);
    }

    #[test]
    fn a_duration_reads_as_it_was_written(micros in any::<u64>()) {
        let text = Micros::from(Duration::from_micros(micros)).to_string();
        prop_assert_eq!(text.parse::<Micros>().unwrap().get(), micros);
    }
}
