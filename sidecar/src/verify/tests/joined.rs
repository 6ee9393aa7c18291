//! Records against the cluster's audit log.

use super::log::*;
use super::*;

#[test]
fn a_call_and_its_event() {
    let (pod, log, _) = one();
    assert_eq!(counters(&pod, &log), "joined=1");
    let summary = verify(&[&pod.text()], Some(&log.0), false).unwrap();
    assert_eq!(
        summary.to_string(),
        "joined=1 aborted=0 unused-mint=0 missing-record=0 missing-call=0 not-logged=0"
    );
    assert!(summary.is_good());
}

#[test]
fn stages_and_several_servers_count_once() {
    let (pod, mut log, call) = one();
    for stage in ["RequestReceived", "ResponseStarted", "ResponseComplete"] {
        log.call_as(call.id, 1, |event| event["stage"] = stage.into());
    }
    assert_eq!(counters(&pod, &log), "joined=1");
}

#[test]
fn what_is_answered_before_it_is_logged_is_not_missing() {
    for (code, expected) in [
        (200, "joined=1 missing-call=1"),
        (500, "joined=1 missing-call=1"),
        (429, "joined=1 not-logged=1"),
        (502, "joined=1 not-logged=1"),
        (503, "joined=1 not-logged=1"),
        (504, "joined=1 not-logged=1"),
    ] {
        let (mut pod, mut log, _) = one();
        let call = pod.open(Some(2));
        pod.close(call, "completed", Some(code));
        log.mint(call.id.for_mint(), BOOTSTRAP, 2);
        assert_eq!(counters(&pod, &log), expected, "{code}");
        log.call(call.id, 2);
        assert_eq!(counters(&pod, &log), "joined=2", "{code}");
    }
}

#[test]
fn a_call_that_ends_after_the_log_is_not_missing() {
    let (mut pod, mut log, _) = one();
    let call = pod.open(Some(2));
    pod.close_as(call, "completed", Some(200), |line| {
        line["stageTimestamp"] = "2026-08-01T10:01:30.000000Z".into();
    });
    log.mint(call.id.for_mint(), BOOTSTRAP, 2);
    assert_eq!(counters(&pod, &log), "joined=1 not-logged=1");
    let said = verify(&[&pod.text()], Some(&log.0), false)
        .unwrap()
        .explain();
    let span = "1 calls lie outside of the cluster's log, which goes from 2026-08-01T10:00:00.000000Z to 2026-08-01T10:00:59.000000Z";
    assert!(said.contains(span), "{said}");
    // A watch that is still open has no event yet where the policy leaves out its begin.
    let watch = pod.open(Some(3));
    pod.line(Some(watch.id), "ResponseStarted", |line| {
        line["annotations"]["tollgate.dev/credential-id"] = credential(3).into();
    });
    assert_eq!(counters(&pod, &log), "joined=1 not-logged=2");
}

#[test]
fn a_log_without_events_is_no_log() {
    let (pod, log, _) = one();
    for text in ["", "\n", "garbage\n", "{\"a\":1}\n", &pod.text()] {
        let error = verify(&[&pod.text()], Some(text), false).unwrap_err();
        assert!(matches!(error, VerifyError::NoEvent(_)), "{error}");
        assert!(error.to_string().contains("audit.log"), "{error}");
    }
    let odd = format!("{}garbage\n{{\n", log.0);
    let summary = verify(&[&pod.text()], Some(&odd), false).unwrap();
    let said = summary.explain();
    assert!(summary.is_good(), "{said}");
    assert!(said.contains("audit.log:4: is no event"), "{said}");
    assert!(said.contains("2 lines"), "{said}");
}

#[test]
fn a_shipper_may_wrap_the_cluster_log_too() {
    let (pod, log, _) = one();
    let wrapped: String = log
        .0
        .lines()
        .map(|line| json!({"message": line, "timestamp": 1}).to_string() + "\n")
        .collect();
    assert_eq!(counters(&pod, &Log(wrapped)), "joined=1");
}

#[test]
fn a_call_that_the_log_should_have_and_one_that_it_leaves_out() {
    let (mut pod, mut log, _) = one();
    pod.call(2);
    assert_eq!(counters(&pod, &log), "joined=1 missing-call=1");
    let quiet = |line: &mut Value| line["objectRef"]["resource"] = "leases".into();
    let call = pod.open_as(Some(3), quiet);
    pod.close_as(call, "completed", Some(200), quiet);
    assert_eq!(counters(&pod, &log), "joined=1 missing-call=1 not-logged=1");
    // The log begins only later.
    log.0 = log.0.replace("10:00:00.", "10:00:30.");
    assert_eq!(counters(&pod, &log), "joined=1 not-logged=2");
}

#[test]
fn a_killed_sidecar_leaves_nothing_unexplained() {
    let (mut pod, mut log, _) = one();
    for (jti, minted, called) in [(2, false, false), (3, true, false), (4, true, true)] {
        let call = pod.open(None);
        pod.close(call, "aborted", None);
        if minted {
            log.mint(call.id.for_mint(), BOOTSTRAP, jti);
        }
        if called {
            log.call(call.id, jti);
        }
    }
    assert_eq!(counters(&pod, &log), "joined=1 aborted=3 unused-mint=1");
    // A second token under the same Audit-ID is somebody else's.
    let call = pod.open(None);
    pod.close(call, "aborted", None);
    log.mint(call.id.for_mint(), BOOTSTRAP, 5);
    log.mint(call.id.for_mint(), 5, 6);
    assert_eq!(
        counters(&pod, &log),
        "joined=1 aborted=4 unused-mint=1 missing-record=2"
    );
}

#[test]
fn tokens_that_were_minted_and_not_used() {
    let (mut pod, mut log, _) = one();
    // The agent went away between mint and answer.
    let call = pod.open(Some(2));
    pod.close(call, "client-disconnected", None);
    log.mint(call.id.for_mint(), BOOTSTRAP, 2);
    // The mint's answer was lost: its record knows no token.
    let call = pod.open(None);
    pod.close(call, "refused", None);
    log.mint(call.id.for_mint(), BOOTSTRAP, 3);
    // Stocked and dropped; stocked and used.
    pod.ahead(4, "unused", &mut log);
    pod.ahead(5, "used", &mut log);
    let call = pod.call(5);
    log.call(call.id, 5);
    assert_eq!(counters(&pod, &log), "joined=2 unused-mint=3");
}

#[test]
fn refusals_need_nothing_and_open_calls_are_known() {
    let (mut pod, mut log, _) = one();
    let deny = |line: &mut Value| line["annotations"]["tollgate.dev/decision"] = "deny".into();
    let call = pod.open_as(None, deny);
    pod.close_as(call, "refused", None, deny);
    // In flight while the files were copied: before and after the mint was known.
    let call = pod.open(None);
    log.mint(call.id.for_mint(), BOOTSTRAP, 2);
    log.call(call.id, 2);
    let watch = pod.open(Some(3));
    log.mint(watch.id.for_mint(), BOOTSTRAP, 3);
    log.call_as(watch.id, 3, |event| {
        event["stage"] = "ResponseStarted".into()
    });
    pod.line(Some(watch.id), "ResponseStarted", |line| {
        line["annotations"]["tollgate.dev/credential-id"] = credential(3).into();
    });
    assert_eq!(counters(&pod, &log), "joined=3");
}

#[test]
fn a_rejected_token_joins_without_its_credential_id() {
    let (mut pod, mut log, _) = one();
    let call = pod.open(Some(2));
    pod.close(call, "completed", Some(401));
    log.mint(call.id.for_mint(), BOOTSTRAP, 2);
    assert_eq!(counters(&pod, &log), "joined=1 missing-call=1");
    log.event(|event| {
        event["auditID"] = call.id.to_string().into();
        event["user"] = json!({});
        event["responseStatus"]["code"] = 401.into();
    });
    assert_eq!(counters(&pod, &log), "joined=2");
}

#[test]
fn node_bound_tokens_are_known_by_their_credential_id() {
    let (mut pod, mut log, _) = one();
    let call = pod.call(2);
    log.mint(call.id.for_mint(), BOOTSTRAP, 2);
    log.call_as(call.id, 2, no_pod);
    assert_eq!(counters(&pod, &log), "joined=2");
    log.call_as(stranger(), 2, no_pod);
    assert_eq!(counters(&pod, &log), "joined=2 missing-record=1");
}

/// Events of such tokens name no pod. The mint says whose the token is, but not for which call it was taken.
#[test]
fn a_call_cut_off_with_a_node_bound_token_of_the_stock_is_known() {
    for (stocked, killed, expected) in [
        ("used", true, "joined=1 aborted=1"),
        // Not only the call's closing line was lost, but that of the token's mint too.
        ("aborted", true, "joined=1 aborted=1"),
        // In flight while the files were copied.
        ("used", false, "joined=2"),
    ] {
        let (mut pod, mut log, _) = one();
        pod.ahead(2, stocked, &mut log);
        let call = pod.open(None);
        if killed {
            pod.close(call, "aborted", None);
        }
        log.call_as(call.id, 2, no_pod);
        assert_eq!(counters(&pod, &log), expected, "{stocked} {killed}");
        // Its stages are one call; the same token for the same object, later, is another one.
        log.call_as(call.id, 2, |event| {
            no_pod(event);
            event["stage"] = "ResponseStarted".into();
        });
        assert_eq!(counters(&pod, &log), expected, "{stocked} {killed}");
        log.call_as(call.id, 2, |event| {
            no_pod(event);
            event["requestReceivedTimestamp"] = "2026-08-01T10:00:09.000000Z".into();
        });
        let found = format!("{expected} missing-record=1");
        assert_eq!(counters(&pod, &log), found, "{stocked} {killed}");
    }
}

/// The first input of the fuzz target: both logs in one file, as a shipper may put them.
#[test]
fn both_logs_may_be_one_file() {
    let both = include_str!("../../../testdata/record.jsonl");
    let summary = verify(&[both], Some(both), false).unwrap();
    assert!(summary.is_good(), "{}", summary.explain());
    assert_eq!((summary.counters.unwrap().joined, summary.foreign), (2, 4));
}
