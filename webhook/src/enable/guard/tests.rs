//! Guards as shipped, as stored, and changed in every way.

use serde_json::json;

use super::*;

/// The shipped pair as a cluster stores it.
fn stored() -> [Value; 2] {
    let mut pair = SHIPPED[0].map(|text| {
        let mut object: Value = serde_saphyr::from_str(text).unwrap();
        object["spec"].take()
    });
    pair[0]["matchConstraints"]["matchPolicy"] = json!("Equivalent");
    pair[0]["matchConstraints"]["objectSelector"] = json!({});
    pair
}

fn object<'a>(spec: &'a Value, release: Option<&'a str>) -> Option<Stored<'a>> {
    Some(Stored {
        spec: Some(spec),
        release,
        is_terminating: false,
    })
}

#[test]
fn stands_as_shipped_and_as_stored() {
    let [policy, binding] = stored();
    let shipped = Shipped::new(Binding::Pod).unwrap();
    let judged = shipped.judge(object(&policy, None), object(&binding, None));
    assert_eq!(judged, Guard::Stands);
}

#[test]
fn every_change_of_a_value_fells_it() {
    let shipped = Shipped::new(Binding::Pod).unwrap();
    for (part, pointer, value) in [
        (0, "/failurePolicy", json!("Ignore")),
        (0, "/validations/0/expression", json!("true")),
        (0, "/validations", json!([])),
        (0, "/matchConditions/0/expression", json!("false")),
        (
            0,
            "/matchConstraints/objectSelector",
            json!({"matchLabels": {"a": "b"}}),
        ),
        (
            0,
            "/matchConstraints/resourceRules/0/operations",
            json!(["UPDATE"]),
        ),
        (
            0,
            "/matchConstraints/resourceRules/0/scope",
            json!("Cluster"),
        ),
        (1, "/policyName", json!("other")),
        (1, "/validationActions", json!(["Audit"])),
    ] {
        let mut pair = stored();
        *pair[part].pointer_mut(pointer).unwrap() = value;
        let judged = shipped.judge(object(&pair[0], None), object(&pair[1], None));
        assert!(matches!(judged, Guard::Fallen(_)), "{pointer}");
    }
    for (part, key, value) in [
        (0, "paramKind", json!({"kind": "ConfigMap"})),
        (0, "newField", json!(true)),
        (
            1,
            "matchResources",
            json!({"namespaceSelector": {"matchLabels": {"a": "b"}}}),
        ),
    ] {
        let mut pair = stored();
        pair[part][key] = value;
        let judged = shipped.judge(object(&pair[0], None), object(&pair[1], None));
        assert!(matches!(judged, Guard::Fallen(_)), "{key}");
    }
}

#[test]
fn missing_or_going_is_fallen() {
    let [policy, binding] = stored();
    let shipped = Shipped::new(Binding::Pod).unwrap();
    let going = Some(Stored {
        is_terminating: true,
        ..object(&policy, Some("99.0.0")).unwrap()
    });
    for (policy, binding) in [
        (None, object(&binding, None)),
        (object(&policy, Some("99.0.0")), None),
        (going, object(&binding, None)),
    ] {
        assert!(matches!(shipped.judge(policy, binding), Guard::Fallen(_)));
    }
}

#[test]
fn a_later_release_judges_its_own() {
    let shipped = Shipped::new(Binding::Pod).unwrap();
    for (release, newer) in [
        ("99.0.0", true),
        ("0.1.1", true),
        ("0.2.0-rc.1", true),
        (env!("CARGO_PKG_VERSION"), false),
        ("0.0.9", false),
        ("99", false),
        ("latest", false),
    ] {
        let mut pair = stored();
        pair[0]["validations"] = json!([{"expression": "false"}]);
        let judged = shipped.judge(object(&pair[0], Some(release)), object(&pair[1], None));
        assert_eq!(judged == Guard::Newer, newer, "{release}: {judged:?}");
    }
}

#[test]
fn node_binding_wants_its_own_variant_only() {
    let [mut policy, binding] = stored();
    let judge = |mode, policy: &Value| {
        let shipped = Shipped::new(mode).unwrap();
        shipped.judge(object(policy, None), object(&binding, None))
    };
    assert!(matches!(judge(Binding::Node, &policy), Guard::Fallen(_)));
    bind_to_node(&mut policy);
    assert_eq!(judge(Binding::Node, &policy), Guard::Stands);
    assert!(matches!(judge(Binding::Pod, &policy), Guard::Fallen(_)));
}

#[test]
fn the_manifests_name_this_release() {
    for text in SHIPPED[0] {
        let object: Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(object["metadata"]["name"], NAME);
        assert_eq!(
            object["metadata"]["annotations"][RELEASE],
            env!("CARGO_PKG_VERSION")
        );
    }
}

#[test]
fn a_guard_that_is_new_may_take_its_time() {
    for (guard, early, later) in [
        (Guard::Stands, Level::INFO, Level::INFO),
        (Guard::Newer, Level::WARN, Level::WARN),
        (Guard::Unknown, Level::WARN, Level::WARN),
        (Guard::Silent, Level::WARN, Level::ERROR),
        (Guard::Fallen(String::new()), Level::ERROR, Level::ERROR),
    ] {
        assert_eq!(
            (guard.level(true), guard.level(false)),
            (early, later),
            "{guard:?}"
        );
    }
}
