//! The body of a review: whatever comes, no panic; an answer is an AdmissionReview that the API server takes; and no pod is allowed in
//! which an agent container reaches a credential for the API server, by a judge that shares no code with the webhook.
#![no_main]

mod grow;
#[allow(dead_code, reason = "the tests of the webhook use more of it")]
#[path = "../../tests/admission/judge.rs"]
mod judge;

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use serde_json::{Value, json};
use tollgate_shared::contract::{Injection, POD_LABEL};
use tollgate_webhook::inject::InjectConfig;
use tollgate_webhook::review::reply;

const ALLOWED_AUDIENCE: &str = "sts.amazonaws.com";

static CONFIG: LazyLock<InjectConfig> = LazyLock::new(|| {
    let config = json!({
        "image": "registry.example/tollgate-sidecar@sha256:0123",
        "apiAudiences": ["https://kubernetes.default.svc.cluster.local"],
        "allowedAudiences": [ALLOWED_AUDIENCE],
    });
    serde_json::from_value(config).expect("a configuration")
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    grow::mutate(data, size, max_size, seed)
});

fuzz_target!(|body: &[u8]| {
    for injection in [Injection::OptIn, Injection::Enabled, Injection::Enforced] {
        if let Some(answer) = ask("mutate", injection, body) {
            mutating(injection, body, &answer);
        }
        if let Some(answer) = ask("validate", injection, body) {
            let review = read(body);
            let judged = decision(&review, &answer);
            assert_ne!(judged, Decision::Patched, "validation patches nothing");
            if judged == Decision::Allowed {
                no_credential(injection, &review["request"]);
            }
        }
    }
});

/// The answer, unless it is a 4xx, which says why.
fn ask(stage: &str, injection: Injection, body: &[u8]) -> Option<Value> {
    match reply(&format!("/{stage}/{injection}"), body, &CONFIG) {
        Ok(answer) => Some(answer),
        Err(text) => {
            assert!(!text.is_empty());
            None
        }
    }
}

/// An answered body is JSON.
fn read(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("what was answered is JSON")
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Decision {
    Allowed,
    Patched,
    Denied,
}

/// Checks the form of an answer.
fn decision(review: &Value, answer: &Value) -> Decision {
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    let response = &answer["response"];
    assert_eq!(response["uid"], review["request"]["uid"]);
    let code = response["auditAnnotations"]["reason"].as_str().expect("a reason");
    let patch = response.get("patch");
    assert_eq!(patch.is_some(), response.get("patchType").is_some());
    match (response["allowed"].as_bool().expect("allowed"), patch) {
        (true, Some(_)) => Decision::Patched,
        (true, None) => Decision::Allowed,
        (false, patch) => {
            assert!(patch.is_none());
            let message = response["status"]["message"].as_str().expect("a message");
            assert!(message.starts_with(code));
            Decision::Denied
        }
    }
}

fn mutating(injection: Injection, body: &[u8], answer: &Value) {
    let mut review = read(body);
    match decision(&review, answer) {
        Decision::Denied => return,
        Decision::Allowed => {}
        Decision::Patched => {
            let patch = answer["response"]["patch"].as_str().expect("a text");
            let patch = STANDARD.decode(patch).expect("base64");
            let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a patch");
            json_patch::patch(&mut review["request"]["object"], &patch).expect("a patch that applies");
            let again = serde_json::to_vec(&review).expect("JSON");
            for stage in ["mutate", "validate"] {
                let next = ask(stage, injection, &again).expect("an answer");
                assert_eq!(decision(&review, &next), Decision::Allowed, "{stage} after {patch:?}: {next}");
            }
        }
    }
    no_credential(injection, &review["request"]);
}

/// The pod was allowed: it has no credential in an agent container, unless it is none of ours.
fn no_credential(injection: Injection, request: &Value) {
    let object = &request["object"];
    let is_creation = request["operation"] == "CREATE";
    let is_system = ["kube-system", "tollgate-system"].iter().any(|name| request["namespace"] == *name);
    let label = &object["metadata"]["labels"][POD_LABEL];
    let is_ours = match injection {
        Injection::OptIn => label == "true",
        Injection::Enabled => label != "false",
        Injection::Enforced => true,
    };
    let groups = request["userInfo"]["groups"].as_array();
    let from_node = groups.is_some_and(|groups| groups.iter().any(|group| group == "system:nodes"));
    if !is_creation || is_system || !is_ours || from_node {
        return;
    }
    let mut leaks = judge::leaks(object, &[ALLOWED_AUDIENCE]);
    if label == "false" {
        // Without a sidecar there is nothing that shared processes would reach.
        leaks.retain(|leak| leak != "shareProcessNamespace");
    }
    assert_eq!(leaks, Vec::<String>::new(), "{injection} {object}");
}
