//! Reviews, good and bad, without HTTP.

use base64::Engine as _;

use super::*;

fn config() -> InjectConfig {
    InjectConfig::with_image("sidecar@sha256:1")
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [{"name": "agent", "image": "i"}]},
    })
}

/// A review as the API server sends it, for a new pod.
fn review() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "n", "operation": "CREATE",
            "userInfo": {"username": "u", "groups": ["system:authenticated"]},
            "object": pod(), "oldObject": null, "dryRun": false, "options": {},
        },
    })
}

fn ask(stage: Stage, injection: Injection, review: &Value) -> Answer {
    let body = serde_json::to_vec(review).unwrap();
    answer_to(stage, injection, &body).unwrap()
}

fn answer_to(stage: Stage, injection: Injection, body: &[u8]) -> Result<Answer, BadReview> {
    let terms = Terms {
        config: &config(),
        vouching: None,
    };
    answer(stage, injection, body, terms)
}

fn response(answer: &Answer) -> &Value {
    assert_eq!(answer.review["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer.review["kind"], "AdmissionReview");
    let response = &answer.review["response"];
    assert_eq!(response["uid"], "u-1");
    // Both or none.
    assert_eq!(
        response.get("patch").is_some(),
        response.get("patchType").is_some()
    );
    response
}

#[test]
fn a_patch_makes_a_pod_that_both_stages_leave_alone() {
    let mutated = ask(Stage::Mutate, Injection::Enabled, &review());
    let response = response(&mutated);
    assert_eq!(mutated.decision, "patched");
    assert_eq!(response["allowed"], true);
    assert_eq!(response["patchType"], "JSONPatch");
    let patch = STANDARD
        .decode(response["patch"].as_str().unwrap())
        .unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut changed = review();
    json_patch::patch(&mut changed["request"]["object"], &patch).unwrap();
    let object = &changed["request"]["object"];
    assert_eq!(object["spec"]["initContainers"][0]["name"], "tollgate");

    let again = ask(Stage::Mutate, Injection::Enabled, &changed);
    assert_eq!(
        (again.decision, again.reason),
        ("allowed", Reason::AlreadyInjected)
    );
    let judged = ask(Stage::Validate, Injection::Enabled, &changed);
    assert_eq!((judged.decision, judged.reason), ("allowed", Reason::Valid));
    let bare = ask(Stage::Validate, Injection::Enabled, &review());
    assert_eq!(bare.decision, "denied");
    assert_eq!(bare.review["response"]["status"]["code"], 403);
}

#[test]
fn the_path_says_how_the_namespace_is_labelled() {
    for (injection, decision) in [
        (Injection::OptIn, "allowed"),
        (Injection::Enabled, "patched"),
        (Injection::Enforced, "patched"),
    ] {
        let answer = ask(Stage::Mutate, injection, &review());
        assert_eq!(answer.decision, decision, "{injection}");
    }
}

/// Row 86: `matchPolicy: Equivalent` may convert what the user sent; what was converted counts.
#[test]
fn the_converted_object_is_judged_whatever_was_sent() {
    let mut sent = review();
    sent["request"]["requestKind"] =
        json!({"group": "example.org", "version": "v9", "kind": "Pod"});
    sent["request"]["requestResource"] =
        json!({"group": "example.org", "version": "v9", "resource": "pods"});
    let answer = ask(Stage::Mutate, Injection::Enabled, &sent);
    assert_eq!(answer.decision, "patched");
    assert_eq!(
        answer.review,
        ask(Stage::Mutate, Injection::Enabled, &review()).review
    );
}

/// Row 73.
#[test]
fn a_dry_run_is_decided_alike_and_counted_apart() {
    let mut dry_run = review();
    dry_run["request"]["dryRun"] = json!(true);
    for stage in [Stage::Mutate, Stage::Validate] {
        let (dry, real) = (
            ask(stage, Injection::Enabled, &dry_run),
            ask(stage, Injection::Enabled, &review()),
        );
        assert_eq!(dry.review, real.review);
        assert_eq!((dry.dry_run, real.dry_run), (true, false));
    }
}

#[test]
fn what_is_not_ours_to_judge_is_denied_with_a_reason() {
    let change = |pointer: &str, value: Value| {
        let mut review = review();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        review.pointer_mut(parent).unwrap()[key] = value;
        review
    };
    for (stage, review) in [
        (
            Stage::Mutate,
            change("/request/resource/resource", json!("deployments")),
        ),
        (
            Stage::Mutate,
            change("/request/resource/group", json!("apps")),
        ),
        (Stage::Mutate, change("/request/resource", Value::Null)),
        (Stage::Mutate, change("/request/operation", json!("UPDATE"))),
        (
            Stage::Mutate,
            change("/request/operation", json!("CONNECT")),
        ),
        (Stage::Mutate, change("/request/operation", json!(1))),
        (Stage::Mutate, change("/request/subResource", json!("exec"))),
        (
            Stage::Validate,
            change("/request/operation", json!("UPDATE")),
        ),
        (
            Stage::Validate,
            change("/request/subResource", json!("status")),
        ),
        (Stage::Mutate, change("/request/object", Value::Null)),
        (Stage::Mutate, change("/request/object", json!([pod()]))),
        (Stage::Mutate, change("/request/object", json!("pod"))),
        (Stage::Mutate, change("/request/object", json!({}))),
        (Stage::Mutate, change("/request/object/spec", json!(7))),
        (
            Stage::Mutate,
            change("/request/object/spec/containers", json!({"a": 1})),
        ),
        (Stage::Mutate, change("/request/namespace", json!(""))),
        (Stage::Mutate, change("/request/namespace", Value::Null)),
        (
            Stage::Validate,
            change("/request/object/spec/containers", json!([1, null])),
        ),
    ] {
        let answer = ask(stage, Injection::Enforced, &review);
        let response = response(&answer);
        assert_eq!(response["allowed"], false, "{review}");
        assert_eq!(answer.decision, "denied");
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.starts_with(answer.reason.code()), "{message}");
    }
}

#[test]
fn what_has_no_uid_to_answer_is_an_error() {
    let without = |key: &str| {
        let mut review = review();
        review["request"].as_object_mut().unwrap().remove(key);
        review
    };
    let with = |key: &str, value: Value| {
        let mut review = review();
        review[key] = value;
        review
    };
    for (review, bad) in [
        (json!(null), BadReview::Version),
        (json!([]), BadReview::Version),
        (json!({}), BadReview::Version),
        (
            with("apiVersion", json!("admission.k8s.io/v1beta1")),
            BadReview::Version,
        ),
        (with("kind", json!("Pod")), BadReview::Version),
        (with("request", Value::Null), BadReview::NoRequest),
        (with("request", json!([])), BadReview::NoRequest),
        (with("request", json!({"uid": ""})), BadReview::NoRequest),
        (with("request", json!({"uid": 7})), BadReview::NoRequest),
        (without("uid"), BadReview::NoRequest),
    ] {
        let body = serde_json::to_vec(&review).unwrap();
        let refused = answer_to(Stage::Mutate, Injection::Enabled, &body);
        assert_eq!(refused, Err(bad), "{review}");
    }
    let twice = r#"{"request":{"uid":"u-1"},"request":{}}"#;
    let refused = answer_to(Stage::Mutate, Injection::Enabled, twice.as_bytes());
    assert!(matches!(refused, Err(BadReview::Json(_))), "{refused:?}");
}

#[test]
fn what_an_owner_should_know_is_hinted_at_and_never_on_a_dry_run() {
    let owner = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "agent-1", "controller": true,
        "uid": "0b9d1a3e-3c55-4a43-8f0c-6a0d8f1c2b3a",
    });
    let mut review = review();
    review["request"]["object"]["metadata"]["ownerReferences"] = json!([owner]);
    let hint = |stage, review: &Value| ask(stage, Injection::Enabled, review).hint;
    assert_eq!(hint(Stage::Mutate, &review), None, "nothing to tell");

    let own = json!([{"name": "KUBERNETES_SERVICE_HOST", "value": "other"}]);
    let mut warned = review.clone();
    warned["request"]["object"]["spec"]["containers"][0]["env"] = own;
    let mut denied = review;
    denied["request"]["object"]["spec"]["hostNetwork"] = true.into();
    for (stage, review) in [
        (Stage::Mutate, &mut warned),
        (Stage::Mutate, &mut denied.clone()),
        (Stage::Validate, &mut denied),
    ] {
        assert!(hint(stage, review).is_some(), "{review}");
        review["request"]["dryRun"] = true.into();
        assert_eq!(hint(stage, review), None, "{review}");
    }
}

#[test]
fn a_denial_names_its_pod_for_the_log_and_nothing_else_does() {
    let allowed = ask(Stage::Mutate, Injection::Enabled, &review());
    assert_eq!(allowed.denied, None);
    let mut review = review();
    review["request"]["object"]["spec"]["hostNetwork"] = true.into();
    for stage in [Stage::Mutate, Stage::Validate] {
        let denied = ask(stage, Injection::Enabled, &review).denied.unwrap();
        assert_eq!(
            (denied.namespace.as_str(), denied.pod_of.as_str()),
            ("n", "p")
        );
    }
}
