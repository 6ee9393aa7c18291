//! `docs/operations.md` has a table of all settings and one of all annotations: both are what the code takes.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may panic, and so may what it calls"
)]

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tollgate_shared::contract::{Injection, annotation};
use tollgate_webhook::config::parse;
use tollgate_webhook::inject::{Context, Decision, InjectConfig, inject};

const PAGE: &str = include_str!("../../docs/operations.md");

/// A row: the name, the column of values, and the default.
struct Row {
    name: String,
    values: Vec<String>,
    default: Option<String>,
}

/// What stands between backticks.
fn words(cell: &str) -> Vec<String> {
    let words = cell.split('`').skip(1).step_by(2);
    words.map(str::to_owned).collect()
}

/// The table whose first column has this head.
fn table(head: &str) -> Vec<Row> {
    let start = format!("\n| {head} |");
    let (_, rest) = PAGE.split_once(&start).unwrap();
    let rows = rest
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let [name, values, default] = cells[..] else {
            panic!("no three cells: {line}");
        };
        Row {
            name: words(name).concat(),
            values: words(values),
            default: words(default).pop(),
        }
    };
    rows.map(row).collect()
}

fn names(rows: &[Row]) -> BTreeSet<&str> {
    rows.iter().map(|row| row.name.as_str()).collect()
}

/// A configuration with one setting more than an image.
fn with(place: &str, value: &str) -> Result<InjectConfig, Vec<String>> {
    let text = match place.split_once('.') {
        None if place == "image" => format!("image: {value}\n"),
        None => format!("image: i\n{place}: {value}\n"),
        Some((parent, key)) => format!("image: i\n{parent}:\n  {key}: {value}\n"),
    };
    parse(&[("part".to_owned(), text.into_bytes())].into())
}

/// What serde says that it would take instead.
fn known(parent: &str) -> BTreeSet<String> {
    let faults = with(&format!("{parent}nope"), "1").unwrap_err().concat();
    let (_, listed) = faults.split_once("expected one of").unwrap();
    let listed = words(listed).into_iter();
    listed.map(|key| format!("{parent}{key}")).collect()
}

#[test]
fn every_setting_stands_in_the_table_with_its_default_and_its_values() {
    let rows = table("setting");
    let mut settings = known("");
    settings.remove("defaults");
    settings.extend(known("defaults."));
    assert_eq!(names(&rows), settings.iter().map(String::as_str).collect());
    let plain = InjectConfig::with_image("i");
    for row in &rows {
        if let Some(default) = &row.default {
            let config = with(&row.name, default).unwrap();
            assert_eq!(config, plain, "{} is not {default} by default", row.name);
        }
        for value in &row.values {
            if let Err(faults) = with(&row.name, value) {
                panic!("{}: {value}: {faults:?}", row.name);
            }
        }
    }
    for (place, refused) in [
        ("image", "''"),
        ("imagePullPolicy", "Sometimes"),
        ("allowedAudiences", "['']"),
        ("apiAudiences", "['']"),
        ("assignUid", "5"),
        ("defaults.port", "1023"),
        ("defaults.port", "65536"),
        ("defaults.port", "6480"),
        ("defaults.adminPort", "1023"),
        ("defaults.adminPort", "65536"),
        ("defaults.adminPort", "6443"),
        ("defaults.tokenTtl", "599s"),
        ("defaults.tokenTtl", "1h1s"),
        ("defaults.mint", "never"),
        ("defaults.binding", "none"),
        ("defaults.audiences", "['']"),
        ("defaults.localAuth", "password"),
        ("defaults.maxCallsPerSecond", "0"),
        ("defaults.maxCallsPerSecond", "4294967296"),
        ("defaults.logLevel", "trace"),
    ] {
        assert!(with(place, refused).is_err(), "{place}: {refused}");
        settings.remove(place);
    }
    assert_eq!(settings, BTreeSet::new(), "nothing is refused");
}

/// Why a pod with this annotation is denied, if it is.
fn denial(key: &str, value: &str) -> Option<String> {
    let annotations: Map<String, Value> = [(key.to_owned(), json!(value))].into_iter().collect();
    let pod = json!({
        "metadata": {"name": "p", "annotations": annotations},
        "spec": {"serviceAccountName": "own", "containers": [{"name": "a", "image": "a"}]},
    });
    let config = InjectConfig::with_image("i");
    let context = Context::unvouched(Injection::Enabled, "n", &config);
    match inject(&pod, &context) {
        Decision::Deny(denial) => Some(denial.to_string()),
        Decision::Patch { .. } => None,
        Decision::Skip(reason) => panic!("skipped: {reason:?}"),
    }
}

#[test]
fn every_annotation_stands_in_the_table_with_its_values() {
    let rows = table("annotation");
    assert_eq!(names(&rows), annotation::ALL.into());
    let settings = table("setting");
    for row in &rows {
        assert!(!row.values.is_empty(), "{}", row.name);
        for value in &row.values {
            assert_eq!(denial(&row.name, value), None, "{}: {value}", row.name);
        }
        if let Some(default) = &row.default {
            assert!(names(&settings).contains(default.as_str()), "{default}");
        }
    }
    for (key, refused) in [
        (annotation::TOKEN_TTL, ["599s", "3601s"]),
        (annotation::MINT, ["never", ""]),
        (annotation::SERVICE_ACCOUNT, ["Other", "a/b"]),
        (annotation::PORT, ["1023", "6480"]),
        (annotation::LOCAL_AUTH, ["password", ""]),
        (annotation::LOG_LEVEL, ["trace", ""]),
        (annotation::CPU, ["500u", "4001m"]),
        (annotation::MEMORY, ["31Mi", "4097Mi"]),
    ] {
        for value in refused {
            let denial = denial(key, value).unwrap_or_default();
            assert!(denial.contains(key), "{key}: {value}: {denial}");
        }
    }
}
