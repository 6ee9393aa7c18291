//! The cluster's audit log, as an API server writes it.

use super::*;

/// Events of the cluster's log.
#[derive(Default)]
pub(super) struct Log(pub(super) String);

pub(super) const READ: &str = "pods";

impl Log {
    pub(super) fn event(&mut self, change: impl FnOnce(&mut Value)) {
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
    pub(super) fn call(&mut self, id: AuditId, jti: u32) {
        self.call_as(id, jti, |_| {});
    }

    pub(super) fn call_as(&mut self, id: AuditId, jti: u32, change: impl FnOnce(&mut Value)) {
        self.event(|event| {
            event["auditID"] = id.to_string().into();
            event["user"]["extra"]["authentication.kubernetes.io/credential-id"] =
                json!([credential(jti)]);
            change(event);
        });
    }

    /// A TokenRequest, made with the token `with`.
    pub(super) fn mint(&mut self, id: AuditId, with: u32, issued: u32) {
        self.call_as(id, with, |event| {
            event["verb"] = "create".into();
            event["objectRef"] = json!({"resource": "serviceaccounts", "subresource": "token", "namespace": "demo", "name": "agent"});
            event["annotations"] = json!({"authentication.kubernetes.io/issued-credential-id": credential(issued), "x": "y"});
        });
    }
}

/// Makes an event that of a token which is bound to a node.
pub(super) fn no_pod(event: &mut Value) {
    let extra = event["user"]["extra"].as_object_mut().unwrap();
    extra.remove("authentication.kubernetes.io/pod-uid");
}

pub(super) const BOOTSTRAP: u32 = 0xb007;

impl Pod {
    /// A token minted ahead.
    pub(super) fn ahead(&mut self, jti: u32, outcome: &str, log: &mut Log) {
        let own = |line: &mut Value| {
            line["verb"] = "create".into();
            line["objectRef"] = json!({"resource": "serviceaccounts", "subresource": "token", "namespace": "demo", "name": "agent"});
        };
        let known = (outcome != "aborted").then_some(jti);
        let mint = self.open_as(known, own);
        log.mint(mint.id.for_mint(), BOOTSTRAP, jti);
        self.close_as(mint, outcome, None, own);
    }
}

pub(super) fn stranger() -> AuditId {
    AuditId::of_opening(&Digest::of(b"stranger"))
}

pub(super) fn counters(pod: &Pod, log: &Log) -> String {
    let summary = verify(&[&pod.text()], Some(&log.0), false).unwrap();
    assert_eq!(summary.fault_count, 0, "{}", summary.explain());
    let text = summary.to_string();
    assert_eq!(text.matches('=').count(), 6);
    let zero = text.split(' ').filter(|part| !part.ends_with("=0"));
    zero.collect::<Vec<_>>().join(" ")
}

/// A pod with one call, and the log of it.
pub(super) fn one() -> (Pod, Log, Call) {
    let mut pod = Pod::new(POD);
    let mut log = Log::default();
    let call = pod.call(1);
    log.mint(call.id.for_mint(), BOOTSTRAP, 1);
    log.call(call.id, 1);
    // Somebody's event shows that the log goes on beyond the calls.
    log.event(|event| {
        event["auditID"] = "x".into();
        event["stageTimestamp"] = "2026-08-01T10:00:59.000000Z".into();
        event["user"] = json!({"username": "alice"});
        event["objectRef"]["resource"] = "nodes".into();
    });
    (pod, log, call)
}
