//! The agent's namespace in `manifests/examples`: its parts belong together, and its egress leaves no way to a cloud's metadata.

use std::fs;

use serde_json::{Value, json};
use tollgate_shared::contract::{GROUP, Injection, NAMESPACE_LABEL};

use crate::files::{base, list, root, text};

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
fn the_rights_are_those_that_the_policies_ask_for() {
    let [unmanage, mint] = ["unmanage-cluster-role.yaml", "mint-role.yaml"]
        .map(|file| example(&format!("rights/{file}")));
    assert_eq!(
        unmanage["rules"],
        json!([{"apiGroups": [GROUP], "resources": ["namespaces"], "verbs": ["unmanage"]}])
    );
    assert_eq!(
        mint["rules"],
        json!([{"apiGroups": [GROUP], "resources": ["serviceaccounts"], "resourceNames": ["deployer"], "verbs": ["mint"]}])
    );
    assert_eq!(
        mint["metadata"]["namespace"],
        example("namespace.yaml")["metadata"]["name"]
    );
    for (policy, resource, verb) in [
        ("tollgate-label-guard", "namespaces", "unmanage"),
        ("tollgate-system-namespace", "namespaces", "unmanage"),
        ("tollgate-own-objects", "namespaces", "unmanage"),
        ("tollgate-token-guard", "serviceaccounts", "mint"),
    ] {
        let spec = base("ValidatingAdmissionPolicy", policy)["spec"].to_string();
        for part in [
            format!("authorizer.group('{GROUP}').resource('{resource}')"),
            format!(".check('{verb}')"),
        ] {
            assert!(spec.contains(&part), "{policy}: {part}");
        }
    }
}

#[test]
fn the_image_of_the_example_is_one_that_anybody_can_pull() {
    let deployment = example("deployment.yaml");
    let image = text(&deployment["spec"]["template"]["spec"]["containers"][0]["image"]);
    assert!(image.starts_with("registry.k8s.io/kubectl:v1."), "{image}");
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
        [vec![53, 53], vec![5353, 5353], vec![443, 6443]]
    );
    let blocks: Vec<&Value> = list(&rules[2]["to"])
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
