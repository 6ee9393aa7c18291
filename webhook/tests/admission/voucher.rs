//! Two replicas of different configurations: what one injects the other judges, and what nobody injects is denied as ever.

use serde_json::{Value, json};
use tollgate_shared::contract::Injection;
use tollgate_webhook::inject::{Context, InjectConfig, inject};
use tollgate_webhook::validate::{Operation, validate};
use tollgate_webhook::voucher::{Vouchers, Vouching};

use crate::api_server::second_pass;
use crate::case::{apply, config, operations, word_of, word_of_verdict};
use crate::drifts::harmed;

const NOW: i64 = 1_800_000_000;
const NAMESPACE: &str = "team-a";
const ANNOTATION: &str = "webhook.tollgate.dev/voucher";

/// One replica of the webhook.
struct Replica {
    config: InjectConfig,
    keys: Vouchers,
}

impl Replica {
    fn new(overrides: &Value) -> Self {
        Self {
            config: config(overrides),
            keys: Vouchers::new([b"shared".as_slice()]),
        }
    }

    fn at(&self, now: i64) -> Context<'_> {
        Context {
            injection: Some(Injection::Enabled),
            namespace: NAMESPACE,
            from_node: false,
            config: &self.config,
            vouching: Some(Vouching {
                keys: &self.keys,
                now,
            }),
        }
    }

    /// The pod as the API server shows it to the second stage.
    fn injects(&self, pod: &Value) -> Value {
        second_pass(apply(pod, &inject(pod, &self.at(NOW))))
    }

    fn judges(&self, pod: &Value) -> String {
        self.judges_at(pod, NOW)
    }

    fn judges_at(&self, pod: &Value, now: i64) -> String {
        word_of_verdict(&validate(Operation::Create, pod, None, &self.at(now)))
    }
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "agent", "image": "i"}], "volumes": []},
    })
}

fn two() -> [Replica; 2] {
    ["old", "new"].map(|image| Replica::new(&json!({"image": image})))
}

fn voucher(pod: &Value) -> &Value {
    &pod["metadata"]["annotations"][ANNOTATION]
}

#[test]
fn replicas_of_other_configurations_accept_what_each_other_injects() {
    for other in [
        json!({"image": "new"}),
        json!({"image": "new", "assignUid": false}),
        json!({"defaults": {"tokenTtl": "20m", "maxCallsPerSecond": 5}}),
        json!({"defaults": {"port": 7443, "adminPort": 7480, "localAuth": "none", "binding": "node"}}),
        json!({"image": "new", "imagePullPolicy": "Never", "defaults": {"logLevel": "error"}}),
    ] {
        let [one, other] = [Replica::new(&json!(null)), Replica::new(&other)];
        for (by, judge) in [(&one, &other), (&other, &one)] {
            let pod = by.injects(&pod());
            assert_eq!(by.judges(&pod), "allow(valid)", "{:?}", by.config);
            assert_eq!(judge.judges(&pod), "allow(vouched)", "{:?}", by.config);
            assert_eq!(judge.judges_at(&pod, NOW + 121), "deny(sidecar-drift)");
            // Asked again, the other one makes the sidecar its own, and vouches for that.
            let again = judge.injects(&pod);
            assert_eq!(judge.judges(&again), "allow(valid)");
            assert_eq!(by.judges(&again), "allow(vouched)");
        }
    }
}

#[test]
fn a_pod_that_is_injected_needs_nothing_until_its_voucher_is_old() {
    let [old, _] = two();
    let injected = old.injects(&pod());
    assert!(voucher(&injected).is_string());
    for age in [-30, 0, 60] {
        let again = inject(&injected, &old.at(NOW + age));
        assert_eq!(word_of(&again), "already", "{age}");
    }
    let later = inject(&injected, &old.at(NOW + 61));
    let changed = operations(&later);
    assert_eq!(changed.as_array().map(Vec::len), Some(1), "{changed}");
    let renewed = apply(&injected, &later);
    assert_eq!(word_of(&inject(&renewed, &old.at(NOW + 61))), "already");
    let [_, new] = two();
    assert_eq!(new.judges_at(&renewed, NOW + 121), "allow(vouched)");
}

/// The same harm that is denied where replicas are alike.
#[test]
fn a_voucher_covers_no_harm() {
    let [old, new] = two();
    let injected = old.injects(&pod());
    let mut count = 0;
    for (line, pod) in harmed(&injected) {
        let verdict = new.judges(&pod);
        assert!(verdict.starts_with("deny("), "{line}: {verdict}");
        count += 1;
    }
    assert!(count > 50, "{count}");
}

#[test]
fn what_a_replica_has_not_written_here_and_now_is_ignored_and_replaced() {
    let [old, new] = two();
    let injected = old.injects(&pod());
    let elsewhere = Context {
        namespace: "team-b",
        ..old.at(NOW)
    };
    let elsewhere = apply(&pod(), &inject(&pod(), &elsewhere));
    let stranger = Replica {
        keys: Vouchers::new([b"another".as_slice()]),
        ..Replica::new(&json!({"image": "old"}))
    };
    let text = voucher(&injected).as_str().unwrap();
    let (payload, mac) = text.split_once('.').unwrap();
    for forged in [
        json!(""),
        json!("."),
        json!("true"),
        json!("a.b"),
        json!("ä.ö"),
        json!(payload),
        json!(format!("{payload}.")),
        json!(format!(".{mac}")),
        json!(format!("{text}=")),
        json!(format!("{mac}.{payload}")),
        json!("A".repeat(200_000)),
        voucher(&elsewhere).clone(),
        voucher(&stranger.injects(&pod())).clone(),
        voucher(&old.injects(&pod()))
            .as_str()
            .map(str::to_uppercase)
            .into(),
    ] {
        let mut pod = injected.clone();
        pod["metadata"]["annotations"][ANNOTATION] = forged.clone();
        assert_eq!(new.judges(&pod), "deny(sidecar-drift)", "{forged:.99}");
        assert_eq!(old.judges(&pod), "allow(valid)", "{forged:.99}");
        let again = inject(&pod, &old.at(NOW));
        let again = apply(&pod, &again);
        assert_eq!(again, injected, "{forged:.99}");
    }
    let mut bare = injected.clone();
    bare["metadata"]["annotations"]
        .as_object_mut()
        .unwrap()
        .remove(ANNOTATION);
    assert_eq!(new.judges(&bare), "deny(sidecar-drift)");
    for no_text in [json!(1), json!(null), json!({}), json!([text])] {
        let mut pod = injected.clone();
        pod["metadata"]["annotations"][ANNOTATION] = no_text.clone();
        assert!(new.judges(&pod).starts_with("deny("), "{no_text}");
    }
}

/// What agents may have is the judge's own to say: it may be a tightening.
#[test]
fn a_voucher_allows_no_audience() {
    let allows = Replica::new(&json!({"image": "old", "allowedAudiences": ["vault"]}));
    let mut pod = pod();
    pod["spec"]["volumes"] = json!([{"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"path": "t", "audience": "vault"}},
    ]}}]);
    let pod = allows.injects(&pod);
    assert_eq!(allows.judges(&pod), "allow(valid)");
    let [_, new] = two();
    assert_eq!(new.judges(&pod), "deny(foreign-token)");
}

#[test]
fn only_injected_pods_get_one_and_only_from_a_webhook() {
    let [old, new] = two();
    for (label, injection) in [("false", Injection::Enabled), ("false", Injection::OptIn)] {
        let mut pod = pod();
        pod["metadata"]["labels"] = json!({"tollgate.dev/inject": label});
        let context = Context {
            injection: Some(injection),
            ..old.at(NOW)
        };
        assert_eq!(operations(&inject(&pod, &context)), json!([]));
    }
    let offline = Context {
        vouching: None,
        ..old.at(NOW)
    };
    let injected = apply(&pod(), &inject(&pod(), &offline));
    assert!(voucher(&injected).is_null());
    assert_eq!(new.judges(&injected), "deny(sidecar-drift)");
    // One that is there is left to those who can read it.
    let copy = old.injects(&pod());
    assert_eq!(word_of(&inject(&copy, &offline)), "already");
}
