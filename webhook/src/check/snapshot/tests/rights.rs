//! Who may do what, and of whom it is told.

use super::*;

const ADMISSION: &str = "admissionregistration.k8s.io";

#[rustfmt::skip]
const WAYS: [(&str, &str, &str, &str, bool, bool); 13] = [
    // Whether a RoleBinding gives it, and whether it is open in an enforced namespace.
    ("can-mint", "create", "", "serviceaccounts/token", true, false),
    ("can-mint-for-others", "mint", "tollgate.dev", "serviceaccounts", true, true),
    ("can-unmanage", "unmanage", "tollgate.dev", "namespaces", true, true),
    ("can-impersonate", "impersonate", "", "serviceaccounts", true, true),
    ("can-impersonate", "impersonate", "", "groups", false, true),
    ("can-exec", "get", "", "pods/attach", true, true),
    ("can-debug", "patch", "", "pods/ephemeralcontainers", true, true),
    ("can-create-pods", "create", "", "pods", true, false),
    ("can-create-pods", "create", "apps", "deployments", true, false),
    ("can-create-pods", "create", "batch", "cronjobs", true, false),
    ("can-make-token-secrets", "create", "", "secrets", true, false),
    ("can-reach-kubelet", "get", "", "nodes/proxy", false, true),
    ("can-unguard", "delete", ADMISSION, "validatingadmissionpolicies", false, true),
];

#[test]
fn each_way_round_is_told_with_the_binding_that_gives_it() {
    for (code, verb, group, resource, in_namespace, in_enforced) in WAYS {
        for is_everywhere in [false, true] {
            for (injection, is_told) in [("enabled", true), ("enforced", in_enforced)] {
                let mut snapshot = healthy();
                label(&mut snapshot, NAMESPACE_LABEL, injection);
                let jane = json!({"kind": "User", "name": "jane"});
                let rule = json!({"verbs": [verb], "apiGroups": [group], "resources": [resource]});
                give(&mut snapshot, &jane, is_everywhere, &rule);
                let wanted = is_told && (is_everywhere || in_namespace);
                let findings = snapshot.judge(&Wanted::default());
                assert_eq!(
                    findings.len(),
                    usize::from(wanted),
                    "{resource} {injection} {is_everywhere}"
                );
                for finding in findings {
                    assert_eq!((finding.code, finding.object.as_str()), (code, "user/jane"));
                    let by = "binding/planted-binding -> clusterrole/planted";
                    assert!(finding.text.contains(by), "{}", finding.text);
                }
            }
        }
    }
}

#[test]
fn names_limit_what_is_told() {
    let jane = json!({"kind": "User", "name": "jane"});
    for (verb, group, resource, names, is_told) in [
        (
            "create",
            "",
            "serviceaccounts/token",
            json!(["robot"]),
            true,
        ),
        ("create", "", "pods", json!(["robot"]), false),
        ("unmanage", "tollgate.dev", "namespaces", json!([NS]), true),
        (
            "unmanage",
            "tollgate.dev",
            "namespaces",
            json!(["other"]),
            false,
        ),
        (
            "patch",
            "admissionregistration.k8s.io",
            "validatingadmissionpolicies",
            json!(["tollgate-token-guard"]),
            true,
        ),
        (
            "patch",
            "admissionregistration.k8s.io",
            "validatingadmissionpolicies",
            json!(["other"]),
            false,
        ),
    ] {
        let mut snapshot = healthy();
        let rule = json!({"verbs": [verb], "apiGroups": [group], "resources": [resource], "resourceNames": names});
        give(&mut snapshot, &jane, true, &rule);
        assert_eq!(!found(&snapshot).is_empty(), is_told, "{rule}");
    }
}

#[test]
fn whom_to_leave_out_can_be_said() {
    let mut snapshot = healthy();
    let everything = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
    give(
        &mut snapshot,
        &json!({"kind": "Group", "name": "system:masters"}),
        true,
        &everything,
    );
    assert_eq!(found(&snapshot), []);
    let all = Wanted {
        all: true,
        ..Wanted::default()
    };
    let findings = snapshot.judge(&all);
    let [finding] = findings.as_slice() else {
        panic!("{findings:?}");
    };
    assert_eq!(
        (finding.code, finding.level),
        ("can-do-everything", Level::Info)
    );

    let mut snapshot = healthy();
    let robot = json!({"kind": "ServiceAccount", "name": "robot", "namespace": "ops"});
    give(&mut snapshot, &robot, true, &everything);
    let trusting = Wanted {
        trust: vec!["serviceaccount/ops/robot".to_owned()],
        ..Wanted::default()
    };
    assert_eq!(snapshot.judge(&trusting), []);
}

#[test]
fn without_the_guard_of_exec_the_sidecar_is_named() {
    let mut snapshot = healthy();
    take(&mut snapshot, Kind::Policies, "tollgate-exec-guard");
    let rule = json!({"verbs": ["create"], "apiGroups": [""], "resources": ["pods/exec"]});
    give(
        &mut snapshot,
        &json!({"kind": "User", "name": "jane"}),
        false,
        &rule,
    );
    let findings = snapshot.judge(&Wanted::default());
    let exec = findings
        .iter()
        .find(|finding| finding.code == "can-exec")
        .unwrap();
    assert!(exec.text.contains("enter the sidecar"), "{exec}");
}
