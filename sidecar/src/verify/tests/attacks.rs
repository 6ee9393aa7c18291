//! What somebody may do with tokens, records and ids, and what shows of it.

use super::log::*;
use super::*;

#[test]
fn a_second_request_under_the_same_id_is_another_call() {
    let at = |second: u32, event: &mut Value| {
        event["requestReceivedTimestamp"] = format!("2026-08-01T10:00:{second:02}.000000Z").into();
        event["stageTimestamp"] = format!("2026-08-01T10:00:{second:02}.500000Z").into();
    };
    let (pod, mut log, call) = one();
    log.call_as(call.id, 1, |event| at(5, event));
    assert_eq!(counters(&pod, &log), "joined=1 missing-record=1");
    // Its stages, and the same file twice, are still one.
    log.call_as(call.id, 1, |event| {
        at(5, event);
        event["stage"] = "ResponseStarted".into();
        event["stageTimestamp"] = "2026-08-01T10:00:05.100000Z".into();
    });
    log.0 = log.0.repeat(2);
    assert_eq!(counters(&pod, &log), "joined=1 missing-record=1");
}

#[test]
fn an_aggregated_api_server_logs_what_went_through_it() {
    let metrics = |event: &mut Value| {
        event["objectRef"]["apiGroup"] = "metrics.k8s.io".into();
    };
    let (mut pod, mut log, _) = one();
    let call = pod.open_as(Some(2), metrics);
    pod.close_as(call, "completed", Some(200), metrics);
    log.mint(call.id.for_mint(), BOOTSTRAP, 2);
    for (received, made) in [
        ("10:00:01.000000", "10:00:02.000000"),
        ("10:00:01.200000", "10:00:01.800000"),
    ] {
        log.call_as(call.id, 2, |event| {
            metrics(event);
            event["requestReceivedTimestamp"] = format!("2026-08-01T{received}Z").into();
            event["stageTimestamp"] = format!("2026-08-01T{made}Z").into();
        });
    }
    assert_eq!(counters(&pod, &log), "joined=2");
    // What comes when the call is over did not go through it.
    log.call_as(call.id, 2, |event| {
        metrics(event);
        event["requestReceivedTimestamp"] = "2026-08-01T10:00:09.000000Z".into();
        event["stageTimestamp"] = "2026-08-01T10:00:09.100000Z".into();
    });
    assert_eq!(counters(&pod, &log), "joined=2 missing-record=1");
}

#[test]
fn a_record_that_claims_the_token_of_another_call_is_forged() {
    // Whoever has a leaked token and writes the log pipeline: a chain of his own, begun after the real one.
    let (mut pod, mut log, _) = one();
    let mut forged = Pod::new(POD);
    let call = forged.open_as(Some(1), |line| line["userAgent"] = "mine".into());
    forged.close_as(call, "completed", Some(200), |line| {
        line["userAgent"] = "mine".into();
    });
    log.call_as(call.id, 1, |event| {
        event["requestReceivedTimestamp"] = "2026-08-01T10:00:07.000000Z".into()
    });
    pod.lines.extend(forged.lines);
    assert_eq!(counters(&pod, &log), "joined=2 missing-record=1");
}

#[test]
fn a_refused_call_was_not_made() {
    // No token could be minted. Somebody uses its Audit-ID with a token of another call.
    let (mut pod, mut log, _) = one();
    let call = pod.open(None);
    pod.close(call, "refused", None);
    log.call(call.id, 1);
    assert_eq!(counters(&pod, &log), "joined=1 missing-record=1");
    // Nor does a token that was minted under another Audit-ID belong to a call that was killed.
    let call = pod.open(None);
    pod.close(call, "aborted", None);
    log.mint(stranger(), BOOTSTRAP, 2);
    log.call(call.id, 2);
    assert_eq!(counters(&pod, &log), "joined=1 aborted=1 missing-record=2");
}

/// A call that was killed is no cover for other uses of leaked tokens that name no pod.
#[test]
fn a_call_that_was_killed_covers_no_other() {
    type Change = fn(&mut Value);
    let other: Change = |event| event["objectRef"]["name"] = "other".into();
    for (what, ended, stocked, change, missing) in [
        ("as it was", "aborted", "used", no_pod as Change, 0),
        ("for another object", "aborted", "used", other, 1),
        ("a token that was dropped", "aborted", "unused", no_pod, 1),
        ("a call that was refused", "refused", "used", no_pod, 1),
    ] {
        let (mut pod, mut log, _) = one();
        pod.ahead(2, stocked, &mut log);
        let call = pod.open(None);
        pod.close(call, ended, None);
        log.call_as(call.id, 2, |event| {
            no_pod(event);
            change(event);
        });
        let summary = verify(&[&pod.text()], Some(&log.0), false).unwrap();
        let counters = summary.counters.unwrap();
        assert_eq!(counters.missing_record, missing, "{what}");
    }
    // The token of another call, and a second one of the stock.
    let (mut pod, mut log, _) = one();
    let call = pod.open(None);
    pod.close(call, "aborted", None);
    for (jti, found) in [
        (1, "joined=1 aborted=1 missing-record=1"),
        (2, "joined=1 aborted=1 missing-record=1"),
        (3, "joined=1 aborted=1 missing-record=2"),
    ] {
        if jti > 1 {
            pod.ahead(jti, "used", &mut log);
        }
        log.call_as(call.id, jti, no_pod);
        assert_eq!(counters(&pod, &log), found, "{jti}");
    }
}

#[test]
fn a_chain_made_anew_does_not_join() {
    // One call is taken out of three, and the rest is hashed again: nothing is wrong with the chain itself.
    let (mut pod, mut log, _) = one();
    let mut forged = Pod::new(POD);
    forged.call(1);
    for jti in [2, 3] {
        let call = pod.call(jti);
        log.mint(call.id.for_mint(), BOOTSTRAP, jti);
        log.call(call.id, jti);
    }
    forged.call(3);
    assert_eq!(counters(&pod, &log), "joined=3");
    let alone = verify(&[&forged.text()], None, false).unwrap();
    assert!(alone.is_good(), "{}", alone.explain());
    // The call before the gap is as it was; the one after it has another id, and the API server knows neither that nor its mint.
    assert_eq!(
        counters(&forged, &log),
        "joined=1 missing-record=4 missing-call=1"
    );
}

#[test]
fn pods_without_records_are_named() {
    let (pod, mut log, _) = one();
    for issued in [0xa, 0xb] {
        log.mint(stranger(), BOOTSTRAP, issued);
    }
    log.0 = log
        .0
        .lines()
        .map(|line| {
            if line.contains(&stranger().to_string()) {
                line.replace(POD, OTHER_POD) + "\n"
            } else {
                line.to_owned() + "\n"
            }
        })
        .collect();
    let summary = verify(&[&pod.text()], Some(&log.0), false).unwrap();
    let said = summary.explain();
    assert!(summary.is_good(), "{said}");
    assert!(
        said.contains(&format!(
            "not covered: pod demo/ ({OTHER_POD}) minted 2 tokens"
        )),
        "{said}"
    );
}

#[test]
fn a_leaked_token_is_found_whatever_it_claims() {
    let (pod, mut log, call) = one();
    log.call(stranger(), 1);
    assert_eq!(counters(&pod, &log), "joined=1 missing-record=1");
    // Under the Audit-ID of the call, but for something else.
    log.call_as(call.id, 1, |event| {
        event["objectRef"]["name"] = "other".into()
    });
    log.call_as(call.id, 1, |event| event["verb"] = "delete".into());
    assert_eq!(counters(&pod, &log), "joined=1 missing-record=3");
    // It mints for itself, and uses that.
    log.mint(call.id.for_mint(), 1, 7);
    log.call(stranger(), 7);
    assert_eq!(counters(&pod, &log), "joined=1 missing-record=6");
}

#[test]
fn a_mint_outside_of_a_call_is_found() {
    let (pod, mut log, _) = one();
    log.mint(stranger(), BOOTSTRAP, 9);
    assert_eq!(counters(&pod, &log), "joined=1 missing-record=1");
    // With the pod's own token, whatever it is, but without a record.
    log.call(stranger(), 10);
    assert_eq!(counters(&pod, &log), "joined=1 missing-record=2");
}

#[test]
fn a_deleted_record_is_missing_twice() {
    let (mut pod, mut log, _) = one();
    let call = pod.call(2);
    log.mint(call.id.for_mint(), BOOTSTRAP, 2);
    log.call(call.id, 2);
    pod.lines.truncate(2);
    let summary = verify(&[&pod.text()], Some(&log.0), false).unwrap();
    assert!(!summary.is_good());
    assert_eq!(counters(&pod, &log), "joined=1 missing-record=2");
    assert!(
        summary.explain().contains(&call.id.to_string()),
        "{}",
        summary.explain()
    );
}

#[test]
fn others_and_the_bootstrap_token_need_no_record() {
    let (pod, mut log, call) = one();
    // Anybody may send any Audit-ID.
    log.call_as(call.id, 20, |event| {
        event["user"] = json!({"username": "alice"})
    });
    log.call_as(call.id, 21, |event| {
        event["user"]["extra"]["authentication.kubernetes.io/pod-uid"] = json!([OTHER_POD]);
    });
    log.call_as(stranger(), BOOTSTRAP, |event| {
        event["verb"] = "watch".into();
        event["objectRef"] = json!({"resource": "egresspolicies", "apiGroup": "tollgate.dev", "apiVersion": "v1alpha1"});
    });
    // A mint that was refused issues nothing.
    log.mint(stranger(), BOOTSTRAP, 0);
    log.0 = log.0.replace(&format!("\"{}\"", credential(0)), "null");
    log.0.push_str("{\"kind\":\"Event\",\"cut short");
    assert_eq!(counters(&pod, &log), "joined=1");
}
