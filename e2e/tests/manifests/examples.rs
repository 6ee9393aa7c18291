//! The agent's namespace in `manifests/examples`: its parts belong together, and its egress leaves no way to a cloud's metadata.

use std::fs;

use serde_json::{Value, json};
use tollgate_shared::contract::{Injection, NAMESPACE_LABEL};

use crate::files::{list, root, text};

fn example(file: &str) -> Value {
    let path = root().join("examples").join(file);
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_parts_of_the_example_belong_together() {
    let namespace = example("namespace.yaml");
    let label = text(&namespace["metadata"]["labels"][NAMESPACE_LABEL]);
    assert!(label.parse::<Injection>().is_ok(), "{label}");
    for file in [
        "service-account.yaml",
        "role.yaml",
        "role-binding.yaml",
        "network-policy.yaml",
        "deployment.yaml",
    ] {
        let object = example(file);
        assert_eq!(
            object["metadata"]["namespace"], namespace["metadata"]["name"],
            "{file}"
        );
    }
    let account = &example("service-account.yaml")["metadata"]["name"];
    let binding = example("role-binding.yaml");
    assert_eq!(
        binding["roleRef"]["name"],
        example("role.yaml")["metadata"]["name"]
    );
    assert_eq!(
        binding["subjects"],
        json!([{"kind": "ServiceAccount", "name": account, "namespace": namespace["metadata"]["name"]}])
    );
    let pod = &example("deployment.yaml")["spec"]["template"]["spec"];
    assert_eq!(&pod["serviceAccountName"], account);
    assert!(pod["volumes"].is_null(), "nothing names a token");
    for rule in list(&example("role.yaml")["rules"]) {
        assert_ne!(
            rule["resources"],
            json!(["serviceaccounts/token"]),
            "Tollgate grants that"
        );
    }
}

#[test]
fn egress_is_denied_but_for_names_and_the_api_and_never_reaches_metadata() {
    let spec = &example("network-policy.yaml")["spec"];
    assert_eq!(spec["podSelector"], json!({}), "every pod");
    assert_eq!(spec["policyTypes"], json!(["Egress"]));
    let rules = list(&spec["egress"]);
    let ports = |rule: &Value| -> Vec<u64> {
        list(&rule["ports"])
            .iter()
            .filter_map(|port| port["port"].as_u64())
            .collect()
    };
    assert_eq!(
        rules.iter().map(ports).collect::<Vec<_>>(),
        [vec![53, 53], vec![443, 6443]]
    );
    let blocks: Vec<&Value> = list(&rules[1]["to"])
        .iter()
        .map(|to| &to["ipBlock"])
        .collect();
    assert_eq!(
        blocks
            .iter()
            .map(|block| text(&block["cidr"]))
            .collect::<Vec<_>>(),
        ["0.0.0.0/0", "::/0"]
    );
    let left_out: Vec<String> = blocks
        .iter()
        .flat_map(|block| list(&block["except"]).iter().map(text))
        .collect();
    for metadata in [
        "169.254.0.0/16",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "fd00:ec2::/32",
        "fd20:ce::/32",
    ] {
        assert!(left_out.iter().any(|cidr| cidr == metadata), "{metadata}");
    }
}
