//! Records against the cluster's audit log.

use super::*;

/// Events of the cluster's log.
#[derive(Default)]
struct Log(String);

const READ: &str = "pods";

impl Log {
    fn event(&mut self, change: impl FnOnce(&mut Value)) {
        let mut value = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "stage": "ResponseComplete",
            "requestURI": "/api/v1/namespaces/demo/pods/p", "verb": "get",
            "user": {"username": "system:serviceaccount:demo:agent", "uid": "u", "groups": ["system:authenticated"],
                     "extra": {"authentication.kubernetes.io/pod-uid": [POD]}},
            "objectRef": {"resource": READ, "namespace": "demo", "name": "p", "apiVersion": "v1", "uid": "x"},
            "responseStatus": {"metadata": {}, "code": 200},
            "requestReceivedTimestamp": "2026-08-01T10:00:00.000000Z", "stageTimestamp": "2026-08-01T10:00:00.000000Z",
        });
        change(&mut value);
        self.0.push_str(&value.to_string());
        self.0.push('\n');
    }

    /// A call with a minted token.
    fn call(&mut self, id: AuditId, jti: u32) {
        self.call_as(id, jti, |_| {});
    }

    fn call_as(&mut self, id: AuditId, jti: u32, change: impl FnOnce(&mut Value)) {
        self.event(|event| {
            event["auditID"] = id.to_string().into();
            event["user"]["extra"]["authentication.kubernetes.io/credential-id"] =
                json!([credential(jti)]);
            change(event);
        });
    }

    /// A TokenRequest, made with the token `with`.
    fn mint(&mut self, id: AuditId, with: u32, issued: u32) {
        self.call_as(id, with, |event| {
            event["verb"] = "create".into();
            event["objectRef"] = json!({"resource": "serviceaccounts", "subresource": "token", "namespace": "demo", "name": "agent"});
            event["annotations"] = json!({"authentication.kubernetes.io/issued-credential-id": credential(issued), "x": "y"});
        });
    }
}

const BOOTSTRAP: u32 = 0xb007;

fn stranger() -> AuditId {
    AuditId::of_opening(&Digest::of(b"stranger"))
}

fn counters(pod: &Pod, log: &Log) -> String {
    let summary = verify(&[&pod.text()], Some(&log.0), false).unwrap();
    assert_eq!(summary.fault_count, 0, "{}", summary.explain());
    let text = summary.to_string();
    assert_eq!(text.matches('=').count(), 6);
    let zero = text.split(' ').filter(|part| !part.ends_with("=0"));
    zero.collect::<Vec<_>>().join(" ")
}

/// A pod with one call, and the log of it.
fn one() -> (Pod, Log, Call) {
    let mut pod = Pod::new(POD);
    let mut log = Log::default();
    let call = pod.call(1);
    log.mint(call.id.for_mint(), BOOTSTRAP, 1);
    log.call(call.id, 1);
    (pod, log, call)
}

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
    let own = |line: &mut Value| {
        line["verb"] = "create".into();
        line["objectRef"] = json!({"resource": "serviceaccounts", "subresource": "token", "namespace": "demo", "name": "agent"});
    };
    for jti in [4, 5] {
        let stocked = pod.open_as(Some(jti), own);
        log.mint(stocked.id.for_mint(), BOOTSTRAP, jti);
        pod.close_as(stocked, "stocked", Some(201), own);
    }
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
    let node = |event: &mut Value| {
        event["user"]["extra"]["authentication.kubernetes.io/pod-uid"] = Value::Null
    };
    log.mint(call.id.for_mint(), BOOTSTRAP, 2);
    log.call_as(call.id, 2, node);
    log.0 = log
        .0
        .replace("\"authentication.kubernetes.io/pod-uid\":null", "\"x\":[]");
    assert_eq!(counters(&pod, &log), "joined=2");
    log.call_as(stranger(), 2, |event| {
        event["user"]["extra"] =
            json!({"authentication.kubernetes.io/credential-id": [credential(2)]});
    });
    assert_eq!(counters(&pod, &log), "joined=2 missing-record=1");
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

/// The first input of the fuzz target: both logs in one file, as a shipper may put them.
#[test]
fn both_logs_may_be_one_file() {
    let both = include_str!("../../../testdata/record.jsonl");
    let summary = verify(&[both], Some(both), false).unwrap();
    assert!(summary.is_good(), "{}", summary.explain());
    assert_eq!((summary.counters.unwrap().joined, summary.foreign), (2, 4));
}
