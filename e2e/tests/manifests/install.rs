//! What is installed: names, ports, rights, and how the webhook runs.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use tollgate_shared::contract::{
    ADMIN_PORT, AGENT_CLUSTER_ROLE, GROUP, PART_OF, SETTINGS, SYSTEM_NAMESPACE, UID, WEBHOOK_NAME,
    WEBHOOK_PORT,
};

use crate::files::{BASE, base, id, list, of_kind, root, text};

#[test]
fn every_object_has_its_own_file_and_is_installed() {
    for folder in ["base", "base/policies", "examples", "examples/rights"] {
        let kustomization =
            fs::read_to_string(root().join(folder).join("kustomization.yaml")).unwrap();
        let kustomization: Value = serde_saphyr::from_str(&kustomization).unwrap();
        let listed: BTreeSet<String> = list(&kustomization["resources"]).iter().map(text).collect();
        let there: BTreeSet<String> = fs::read_dir(root().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "kustomization.yaml")
            // Nobody gets these by the example.
            .filter(|name| name != "rights")
            .collect();
        assert_eq!(listed, there, "{folder}");
    }
    let install = fs::read_to_string(root().join("install.yaml")).unwrap();
    let mut installed: Vec<(String, String)> = serde_saphyr::from_multiple::<Value>(&install)
        .unwrap()
        .iter()
        .map(id)
        .collect();
    let mut written: Vec<(String, String)> = BASE.iter().map(|(_, object)| id(object)).collect();
    installed.sort();
    written.sort();
    assert_eq!(installed, written, "run `make manifests`");
}

#[test]
fn every_object_carries_the_label_by_which_an_uninstall_is_checked() {
    let install = fs::read_to_string(root().join("install.yaml")).unwrap();
    for object in serde_saphyr::from_multiple::<Value>(&install).unwrap() {
        let label = &object["metadata"]["labels"][PART_OF.0];
        assert_eq!(label, PART_OF.1, "{:?}", id(&object));
    }
    let pod = &base("Deployment", WEBHOOK_NAME)["spec"]["template"];
    assert_eq!(pod["metadata"]["labels"][PART_OF.0], PART_OF.1);
}

#[test]
fn every_file_of_a_component_is_used_by_it() {
    let mut components = 0;
    let folders = fs::read_dir(root().join("components")).unwrap();
    let folders = folders.map(|entry| entry.unwrap().path());
    for folder in folders.chain([root().join("static")]) {
        let kustomization = fs::read_to_string(folder.join("kustomization.yaml")).unwrap();
        for entry in fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let is_used = name == "kustomization.yaml" || kustomization.contains(&name);
            assert!(is_used, "{} does not use {name}", folder.display());
        }
        components += 1;
    }
    assert!(components > 0);
}

#[test]
fn objects_have_the_names_of_the_contract() {
    base("Namespace", SYSTEM_NAMESPACE);
    base("ClusterRole", AGENT_CLUSTER_ROLE);
    for kind in [
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "Deployment",
        "MutatingWebhookConfiguration",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
        "ValidatingWebhookConfiguration",
    ] {
        base(kind, WEBHOOK_NAME);
    }
    for (path, object) in BASE.iter() {
        let namespace = &object["metadata"]["namespace"];
        assert!(
            namespace.is_null() || namespace == SYSTEM_NAMESPACE,
            "{}: {namespace}",
            path.display()
        );
    }
    let role = base("ClusterRole", AGENT_CLUSTER_ROLE);
    assert_eq!(
        role["rules"],
        json!([
            {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]},
            {"apiGroups": [GROUP], "resources": ["serviceaccounts"], "verbs": ["mint-self"]},
        ])
    );
}

#[test]
fn ports_lead_from_the_api_server_to_the_process() {
    let deployment = base("Deployment", WEBHOOK_NAME);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        container["ports"],
        json!([
            {"name": "https", "containerPort": WEBHOOK_PORT},
            {"name": "admin", "containerPort": ADMIN_PORT},
        ])
    );
    assert_eq!(container["args"][0], "run");
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        assert_eq!(
            container[probe]["httpGet"],
            json!({"path": path, "port": "admin"})
        );
    }
    let service = base("Service", WEBHOOK_NAME);
    let port = &service["spec"]["ports"][0];
    assert_eq!(
        (&port["port"], &port["targetPort"]),
        (&json!(443), &json!("https"))
    );
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    for (object, selector) in [
        (service, "/spec/selector"),
        (deployment, "/spec/selector/matchLabels"),
        (
            base("PodDisruptionBudget", WEBHOOK_NAME),
            "/spec/selector/matchLabels",
        ),
        (
            base("NetworkPolicy", WEBHOOK_NAME),
            "/spec/podSelector/matchLabels",
        ),
    ] {
        let selector = object.pointer(selector).unwrap().as_object().unwrap();
        assert!(!selector.is_empty());
        for (key, value) in selector {
            assert_eq!(&labels[key], value, "{key}");
        }
    }
    let open: BTreeSet<u64> =
        list(&base("NetworkPolicy", WEBHOOK_NAME)["spec"]["ingress"][0]["ports"])
            .iter()
            .map(|port| port["port"].as_u64().unwrap())
            .collect();
    assert_eq!(
        open,
        [u64::from(WEBHOOK_PORT), u64::from(ADMIN_PORT)].into()
    );
}

#[test]
fn the_webhook_survives_a_busy_and_strict_cluster() {
    let deployment = base("Deployment", WEBHOOK_NAME);
    assert_eq!(deployment["spec"]["replicas"], 2);
    let pod = &deployment["spec"]["template"]["spec"];
    // Else the Service's own variables would be read as settings: they begin with TOLLGATE_ too.
    assert_eq!(pod["enableServiceLinks"], false);
    let quota = &of_kind("ResourceQuota").next().unwrap()["spec"]["scopeSelector"]["matchExpressions"]
        [0]["values"];
    assert_eq!(quota, &json!([pod["priorityClassName"]]));
    assert_eq!(pod["priorityClassName"], "system-cluster-critical");
    let spread: Vec<&Value> = list(&pod["topologySpreadConstraints"])
        .iter()
        .map(|constraint| &constraint["topologyKey"])
        .collect();
    assert_eq!(
        spread,
        ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    );
    assert_eq!(
        deployment["spec"]["strategy"]["rollingUpdate"],
        json!({"maxUnavailable": 0, "maxSurge": 1}),
        "an old replica goes only when a new one answers"
    );
    let budget = &base("PodDisruptionBudget", WEBHOOK_NAME)["spec"];
    assert_eq!(budget["maxUnavailable"], 1);
    assert_eq!(budget["unhealthyPodEvictionPolicy"], "AlwaysAllow");
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!(
        security,
        &json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        })
    );
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"],
        json!({"type": "RuntimeDefault"})
    );
    let namespace = &base("Namespace", SYSTEM_NAMESPACE)["metadata"]["labels"];
    assert_eq!(
        namespace["pod-security.kubernetes.io/enforce"],
        "restricted"
    );
    assert_ne!(
        pod["securityContext"]["runAsUser"], UID,
        "the sidecar's uid is the sidecar's alone"
    );
}

#[test]
fn replicas_run_on_linux_and_a_rollout_spreads_the_new_ones() {
    let deployment = base("Deployment", WEBHOOK_NAME);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"], json!({"kubernetes.io/os": "linux"}));
    for constraint in list(&pod["topologySpreadConstraints"]) {
        assert_eq!(constraint["matchLabelKeys"], json!(["pod-template-hash"]));
    }
}

#[test]
fn the_operators_settings_are_mounted_and_never_shipped() {
    let pod = &base("Deployment", WEBHOOK_NAME)["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let folders: Vec<String> = list(&container["volumeMounts"])
        .iter()
        .map(|mount| {
            assert!(mount["subPath"].is_null(), "it would never change: {mount}");
            text(&mount["mountPath"])
        })
        .collect();
    assert_eq!(
        container["args"],
        json!(["run", format!("--config={}", folders.join(","))])
    );
    assert_eq!(
        pod["volumes"],
        json!([
            {"name": "release", "configMap": {"name": WEBHOOK_NAME}},
            {"name": "settings", "configMap": {"name": SETTINGS, "optional": true}},
        ])
    );
    let shipped = of_kind("ConfigMap").map(|map| text(&map["metadata"]["name"]));
    assert!(!shipped.collect::<Vec<_>>().contains(&SETTINGS.to_owned()));
    let config: Value = serde_saphyr::from_str(&text(
        &base("ConfigMap", WEBHOOK_NAME)["data"]["release.yaml"],
    ))
    .unwrap();
    assert_eq!(config, json!({"image": "tollgate-sidecar:dev"}));
}

#[test]
fn no_right_is_wider_than_it_must_be() {
    for kind in ["ClusterRole", "Role"] {
        for role in of_kind(kind) {
            for rule in list(&role["rules"]) {
                let words = ["apiGroups", "resources", "verbs"].map(|key| list(&rule[key]));
                assert!(words.concat().iter().all(|word| word != "*"), "{rule}");
                let [_, resources, verbs] = words;
                assert!(
                    resources.iter().all(|resource| resource != "pods"),
                    "{rule}"
                );
                let is_create = verbs == [json!("create")];
                let is_secret = resources.iter().any(|resource| resource == "secrets");
                assert!(
                    !is_secret || is_create || rule["resourceNames"].is_array(),
                    "{rule}"
                );
            }
        }
    }
}
