//! What is believed, and all that is not.

use proptest::prelude::*;

use super::*;
use crate::inject::InjectConfig;

const NOW: i64 = 1_800_000_000;
const SECRET: &[u8] = b"a private key";

impl Vouchers {
    /// Whether a replica with these keys believes one with those of `other`.
    pub(crate) fn believe(&self, other: &Self) -> bool {
        let by = |keys| Vouching { keys, now: NOW };
        let voucher = by(other).issue("n", shape());
        voucher.is_some_and(|voucher| by(self).believe(&voucher, "n").is_some())
    }
}

fn shape() -> Shape {
    InjectConfig::with_image("sidecar@sha256:1").shape()
}

fn keys(secrets: &[&[u8]]) -> Vouchers {
    Vouchers::new(secrets.iter().copied())
}

fn issued(namespace: &str) -> String {
    let keys = &keys(&[SECRET]);
    let vouching = Vouching { keys, now: NOW };
    vouching.issue(namespace, shape()).unwrap()
}

fn believed(voucher: &str, now: i64) -> Option<Shape> {
    let keys = &keys(&[SECRET]);
    Vouching { keys, now }.believe(voucher, "n")
}

#[test]
fn it_counts_for_two_minutes_and_is_fresh_for_one() {
    let keys = &keys(&[SECRET]);
    for (age, counts, fresh) in [
        (-31, false, false),
        (-30, true, true),
        (0, true, true),
        (60, true, true),
        (61, true, false),
        (120, true, false),
        (121, false, false),
        (i64::MAX - NOW, false, false),
        (i64::MIN, false, false),
    ] {
        let now = NOW.wrapping_add(age);
        let (voucher, vouching) = (issued("n"), Vouching { keys, now });
        let believed = vouching.believe(&voucher, "n");
        assert_eq!(believed, counts.then(shape), "{age}");
        assert_eq!(vouching.is_fresh(&voucher, "n", &shape()), fresh, "{age}");
        let other = InjectConfig::with_image("other").shape();
        assert!(!vouching.is_fresh(&voucher, "n", &other), "{age}");
    }
}

#[test]
fn it_counts_in_its_namespace_alone() {
    for namespace in ["m", "nn", "", "n/", "/n"] {
        assert_eq!(believed(&issued(namespace), NOW), None, "{namespace}");
    }
    assert_eq!(believed(&issued("n"), NOW), Some(shape()));
}

#[test]
fn the_first_key_vouches_and_all_are_believed() {
    let (a, b, both) = (keys(&[b"a"]), keys(&[b"b"]), keys(&[b"a", b"b"]));
    for (judge, by, believes) in [
        (&a, &a, true),
        (&both, &a, true),
        (&both, &b, true),
        (&a, &both, true),
        (&b, &both, false),
        (&a, &b, false),
        (&keys(&[]), &a, false),
        (&a, &keys(&[]), false),
    ] {
        assert_eq!(judge.believe(by), believes, "{judge:?} {by:?}");
    }
}

#[test]
fn one_other_character_anywhere_and_it_counts_no_more() {
    let voucher = issued("n");
    for at in 0..voucher.len() {
        for other in ['A', 'z', '.', '=', ' ', 'ä'] {
            let (before, rest) = voucher.split_at(at);
            let mut rest = rest.chars();
            if rest.next() != Some(other) {
                let changed = format!("{before}{other}{}", rest.as_str());
                assert_eq!(believed(&changed, NOW), None, "{changed}");
            }
        }
    }
    for changed in [
        voucher.to_uppercase(),
        format!("{voucher}\n"),
        format!(" {voucher}"),
        format!("{voucher}.{voucher}"),
        voucher.repeat(2000),
    ] {
        assert_eq!(believed(&changed, NOW), None, "{changed:.99}");
    }
}

/// A release with more to say is not half understood.
#[test]
fn what_a_replica_wrote_in_another_form_is_not_believed() {
    let signed = |payload: &str| {
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let mac = hmac::sign(&keys(&[SECRET]).0[0], &signed("n", &payload));
        format!("{payload}.{}", URL_SAFE_NO_PAD.encode(mac))
    };
    let good =
        format!(r#"{{"at":{NOW},"sidecar":{{"image":"sidecar@sha256:1","assignUid":true}}}}"#);
    assert_eq!(issued("n"), signed(&good));
    for (from, to) in [
        ("", "x"),
        (r#"{"at""#, r#"{"more":1,"at""#),
        (r#"{"image""#, r#"{"more":1,"image""#),
        (r#":true"#, r#":true,"defaults":{"more":1}"#),
        (r#":true"#, r#":true,"defaults":{"port":65536}"#),
        (r#","assignUid":true"#, ""),
        (&NOW.to_string(), "1e99"),
    ] {
        let payload = good.replacen(from, to, 1);
        assert_eq!(believed(&signed(&payload), NOW), None, "{payload}");
    }
}

#[test]
fn every_setting_of_a_sidecar_survives() {
    let config = serde_json::json!({"image": "i", "assignUid": false, "defaults": {
        "port": 7443, "adminPort": 7480, "tokenTtl": "15m", "mint": "ahead", "binding": "node", "audiences": ["a"],
        "localAuth": "none", "maxCallsPerSecond": 7, "logLevel": "debug",
    }});
    let config: InjectConfig = serde_json::from_value(config).unwrap();
    let keys = &keys(&[SECRET]);
    let voucher = Vouching { keys, now: NOW }.issue("n", config.shape());
    let theirs = believed(&voucher.unwrap(), NOW).unwrap();
    let ours = InjectConfig::with_image("ours");
    assert_eq!(ours.with_shape(theirs), config);
}

#[test]
fn keys_show_nothing_of_themselves() {
    let keys = keys(&[SECRET, b"another"]);
    assert_eq!(format!("{keys:?}"), "Vouchers(2 keys)");
}

proptest! {
    #[test]
    fn nothing_else_is_believed(voucher in ".{0,200}", payload in "[A-Za-z0-9_-]{0,80}", mac in "[A-Za-z0-9_-]{43}") {
        prop_assert_eq!(believed(&voucher, NOW), None);
        prop_assert_eq!(believed(&format!("{payload}.{mac}"), NOW), None);
    }
}
