//! Rules that every policy keeps.

use std::collections::BTreeSet;

use serde_json::json;
use tollgate_shared::contract::{
    AGENT_CLUSTER_ROLE, AGENT_VOLUME, BOOTSTRAP_VOLUME, CONTAINER, GROUP, INJECTED_ANNOTATION,
    Injection, NAMESPACE_LABEL, POD_LABEL, RESERVED_VOLUMES, ROLE_BINDING, SETTINGS, STATE_VOLUME,
    SYSTEM_NAMESPACE, UID, WEBHOOK_NAME,
};

use crate::files::{base, list, of_kind, text};

#[test]
fn each_policy_fails_closed_denies_and_says_why() {
    let policies: Vec<_> = of_kind("ValidatingAdmissionPolicy").collect();
    let bindings: Vec<_> = of_kind("ValidatingAdmissionPolicyBinding").collect();
    assert_eq!(policies.len(), bindings.len());
    for policy in &policies {
        let name = &policy["metadata"]["name"];
        assert_eq!(policy["spec"]["failurePolicy"], "Fail", "{name}");
        let binding = bindings
            .iter()
            .find(|binding| &binding["metadata"]["name"] == name);
        let binding = &binding.unwrap_or_else(|| panic!("{name} has no binding"))["spec"];
        assert_eq!(&binding["policyName"], name);
        assert_eq!(binding["validationActions"], json!(["Deny"]), "{name}");
        let has_parameter = !policy["spec"]["paramKind"].is_null();
        assert_eq!(!binding["paramRef"].is_null(), has_parameter, "{name}");
        if has_parameter {
            assert_eq!(
                binding["paramRef"]["parameterNotFoundAction"], "Deny",
                "{name}"
            );
        }
        for validation in list(&policy["spec"]["validations"]) {
            let message = validation["message"]
                .as_str()
                .or_else(|| validation["messageExpression"].as_str());
            let message = message
                .unwrap_or_else(|| panic!("{name}: no message"))
                .trim_start_matches('\'');
            let (code, advice) = message
                .split_once(": ")
                .unwrap_or_else(|| panic!("{name}: {message}"));
            assert!(
                code.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
                "{name}: {code}"
            );
            assert!(advice.len() > 20, "{name}: {advice}");
            assert!(validation["reason"].is_string(), "{name}: {code}");
        }
    }
    let guard = base("ValidatingAdmissionPolicyBinding", "tollgate-token-guard");
    assert!(
        guard["spec"]["paramRef"].is_null(),
        "a missing parameter would deny every TokenRequest of the cluster"
    );
}

#[test]
fn no_policy_can_hold_up_a_kubelet_or_kube_system() {
    for policy in of_kind("ValidatingAdmissionPolicy") {
        let name = text(&policy["metadata"]["name"]);
        let binding = base("ValidatingAdmissionPolicyBinding", &name);
        let selector = binding["spec"]["matchResources"]["namespaceSelector"].to_string();
        // The others look at names or users first; the tests on a real API server try them.
        let looks_everywhere = ["token-guard", "label-guard", "grant-guard", "own-objects"]
            .iter()
            .any(|part| name.ends_with(part));
        let leaves_out = selector.contains("NotIn") && selector.contains("kube-system");
        let only_ours =
            selector.contains("\"In\"") && selector.contains(SYSTEM_NAMESPACE) && !leaves_out;
        assert!(
            looks_everywhere || leaves_out || only_ours,
            "{name}: {selector}"
        );
        let rules = policy["spec"]["matchConstraints"]["resourceRules"].to_string();
        if rules.contains("serviceaccounts/token") || rules.contains("pods/status") {
            assert!(
                policy["spec"]["matchConditions"]
                    .to_string()
                    .contains("system:nodes"),
                "{name}"
            );
        }
    }
}

#[test]
fn names_in_expressions_are_those_of_the_contract() {
    let known: BTreeSet<&str> = [
        CONTAINER,
        BOOTSTRAP_VOLUME,
        AGENT_VOLUME,
        STATE_VOLUME,
        SYSTEM_NAMESPACE,
        WEBHOOK_NAME,
        AGENT_CLUSTER_ROLE,
        ROLE_BINDING,
        GROUP,
        NAMESPACE_LABEL,
        POD_LABEL,
        INJECTED_ANNOTATION,
        SETTINGS,
        "tollgate-guard",
        "tollgate-guard-probe",
    ]
    .into();
    let mut seen = BTreeSet::new();
    for policy in of_kind("ValidatingAdmissionPolicy") {
        let spec = policy["spec"].to_string();
        for word in spec
            .split('\'')
            .filter(|word| word.starts_with("tollgate") && !word.contains(' '))
        {
            assert!(
                known.contains(word),
                "{}: '{word}'",
                policy["metadata"]["name"]
            );
            seen.insert(word.to_owned());
        }
    }
    for name in [
        CONTAINER,
        NAMESPACE_LABEL,
        POD_LABEL,
        SETTINGS,
        SYSTEM_NAMESPACE,
        WEBHOOK_NAME,
    ] {
        assert!(seen.contains(name), "no policy names {name}");
    }
    let debug = base("ValidatingAdmissionPolicy", "tollgate-debug-guard")["spec"].to_string();
    for volume in RESERVED_VOLUMES {
        assert!(debug.contains(&format!("'{volume}'")), "{volume}");
    }
    assert!(debug.contains(&format!("!= {UID}")));
    let label = base("ValidatingAdmissionPolicy", "tollgate-label-guard")["spec"].to_string();
    for level in Injection::WORDS {
        assert!(label.contains(&format!("'{level}'")), "{level}");
    }
}
