//! What is read is what serde_json reads, and what two parsers could read differently is not.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(text: &str) -> Value {
    Tree::parse(text.as_bytes()).unwrap().root().to_value()
}

#[test]
fn reads_what_serde_json_reads() {
    for text in [
        "null",
        "true",
        "-1",
        "0",
        "-0",
        "18446744073709551615",
        "-9223372036854775808",
        "18446744073709551616",
        "1.5e3",
        r#""a\u00e9\n""#,
        r#""\ud83d\ude00 😀""#,
        r#""""#,
        "[]",
        "{}",
        r#" {"a":[1,{"b":null}],"c":{"a":""},"":{"\n":[[],{}]}} "#,
    ] {
        assert_eq!(parse(text), serde_json::from_str::<Value>(text).unwrap());
    }
}

#[test]
fn refuses_what_could_be_read_in_two_ways() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_objects = r#"{"a":"#.repeat(10_000);
    for (text, part) in [
        (r#"{"a":1,"a":2}"#, "\"a\" is there twice"),
        (r#"{"b":1,"a":1,"c":{},"a":1}"#, "\"a\" is there twice"),
        (
            r#"[{"x":{"a":1,"b":2,"\u0061":3}}]"#,
            "\"a\" is there twice",
        ),
        (r#"{"\u0061":1,"\u0061":2}"#, "\"a\" is there twice"),
        (r#"{"":1,"":2}"#, "\"\" is there twice"),
        (&deep, "recursion limit"),
        (&deep_objects, "recursion limit"),
        ("", "EOF"),
        ("{} {}", "trailing"),
        ("{'a':1}", "key must be a string"),
        ("{1:1}", "key must be a string"),
        ("1e999", "out of range"),
        ("{\"a\":1,}", "trailing comma"),
        ("\u{feff}{}", "expected value"),
    ] {
        let error = Tree::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    for bytes in [&b"\"\xff\""[..], b"{\"\xc3\":1}", b"[\"\xed\xa0\x80\"]"] {
        let error = Tree::parse(bytes).unwrap_err().to_string();
        assert!(error.contains("utf-8"), "{error}");
    }
}

#[test]
fn as_deep_as_serde_json_goes_and_no_deeper() {
    for (depth, is_read) in [(127, true), (128, false)] {
        let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(Tree::parse(text.as_bytes()).is_ok(), is_read, "{depth}");
        assert_eq!(serde_json::from_str::<Value>(&text).is_ok(), is_read);
    }
}

/// Memory is bounded by the number of values, whatever their sizes.
#[test]
fn a_review_of_too_many_values_is_refused() {
    let list = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
    // A list's items are there twice at its end.
    let most = 8 * 1024 * 1024 / 12;
    assert!(Tree::parse(list(most / 2).as_bytes()).is_ok());
    let error = Tree::parse(list(most + 1).as_bytes()).unwrap_err();
    assert!(error.to_string().contains("too many values"), "{error}");
}

#[test]
fn finds_every_member_and_no_other() {
    let tree = Tree::parse(br#"{"b":{"c":1,"\u0061":[true,"x\ty"]},"a":null,"":"z"}"#).unwrap();
    let root = tree.root();
    assert!(root.get("a").unwrap().is_null());
    assert_eq!(root.get("").unwrap().as_str(), Some("z"));
    assert_eq!(root.pointer("/b/c").unwrap().kind(), Kind::Number(1.into()));
    let list = root.pointer("/b/a").and_then(Json::as_list).unwrap();
    let strings: Vec<_> = list.iter().map(Json::as_str).collect();
    assert_eq!(strings, [None, Some("x\ty")]);
    for path in ["/c", "/b/d", "/a/x", "/b/a/0", "/b/c/x"] {
        assert_eq!(root.pointer(path), None, "{path}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let string = || prop_oneof!["[a-c\"\\\\/\n\u{1}é😀]{0,4}", any::<String>()];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        string().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        let members = prop::collection::btree_map(string(), inner.clone(), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::from),
            members.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The same JSON with every character of every string as an escape.
fn escaped(value: &Value) -> String {
    let string = |text: &str| {
        let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
        format!("\"{}\"", units.collect::<String>())
    };
    match value {
        Value::String(text) => string(text),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(escaped).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(members) => {
            let member = |(key, value): (&String, _)| format!("{}:{}", string(key), escaped(value));
            let members: Vec<_> = members.iter().map(member).collect();
            format!("{{{}}}", members.join(","))
        }
        other => other.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_value_is_what_serde_json_reads(value in any_json()) {
        for text in [value.to_string(), escaped(&value), serde_json::to_string_pretty(&value).unwrap()] {
            let wanted: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(parse(&text), wanted);
        }
        let tree = Tree::of(&value).unwrap();
        prop_assert_eq!(tree.root().to_value(), value);
    }

    #[test]
    fn values_are_equal_as_serde_jsons_are(a in any_json(), b in any_json()) {
        let (text_a, text_b) = (a.to_string(), b.to_string());
        let (tree_a, tree_b) = (Tree::parse(text_a.as_bytes()).unwrap(), Tree::parse(text_b.as_bytes()).unwrap());
        prop_assert_eq!(tree_a.root() == tree_b.root(), parse(&text_a) == parse(&text_b));
        prop_assert!(tree_a.root() == Tree::parse(escaped(&a).as_bytes()).unwrap().root());
    }

    /// Any text at all: what is read, serde_json reads alike; what is refused, it refuses, or the text repeats a key.
    #[test]
    fn any_text_is_read_alike_or_refused(text in "[\\[\\]{}:,\"ab1. tru\\\\]{0,12}") {
        let read = Tree::parse(text.as_bytes());
        match (read, serde_json::from_str::<Value>(&text)) {
            (Ok(tree), wanted) => prop_assert_eq!(Some(tree.root().to_value()), wanted.ok()),
            (Err(error), wanted) => prop_assert!(wanted.is_err() || error.to_string().contains("twice")),
        }
    }
}

#[test]
fn a_member_of_an_object_is_found_among_many() {
    let members = (0..500).map(|n| (format!("k{}", n * 7919 % 500), json!(n)));
    let value = Value::Object(members.collect());
    let text = value.to_string();
    let tree = Tree::parse(text.as_bytes()).unwrap();
    for (key, number) in value.as_object().unwrap() {
        assert_eq!(
            tree.root().get(key).map(Json::to_value).as_ref(),
            Some(number)
        );
    }
    assert_eq!(tree.root().get("k500"), None);
}
