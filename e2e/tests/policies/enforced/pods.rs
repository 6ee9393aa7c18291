//! Pods of an enforced namespace are injected or token-free: a copy of the policy, with a parameter of its own.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tollgate_e2e::namespace::TestNamespace;

use super::dry_run;
use crate::fixture::{copy_policy, injected_pod, merge, parameter, pod};
use crate::want::{Want, want};

const POLICY: &str = include_str!("../../../../manifests/base/policies/enforced-pods.yaml");
const BINDING: &str =
    include_str!("../../../../manifests/base/policies/enforced-pods-binding.yaml");

/// A pod with one projected token.
fn with_token(volume: &str, audience: Option<&str>) -> anyhow::Result<Pod> {
    let token = json!({"path": "token", "audience": audience});
    pod(
        "p",
        json!({"volumes": [{"name": volume, "projected": {"sources": [{"serviceAccountToken": token}]}}]}),
    )
}

/// An injected pod with something added to its spec.
fn injected_with(spec: Value) -> anyhow::Result<Pod> {
    let mut pod = serde_json::to_value(injected_pod("p")?)?;
    merge(&mut pod, json!({"spec": spec}));
    Ok(serde_json::from_value(pod)?)
}

/// Expressions have a budget; running out of it is a denial.
fn large() -> anyhow::Result<Pod> {
    let volumes: Vec<Value> = (0..200)
        .map(|n| json!({"name": format!("v{n}"), "projected": {"sources": [{"configMap": {"name": "c"}}]}}))
        .collect();
    let mounts: Vec<Value> = (0..100)
        .map(|n| json!({"name": format!("v{n}"), "mountPath": format!("/x/{n}")}))
        .collect();
    let env: Vec<Value> = (0..250)
        .map(|n| json!({"name": format!("E{n}"), "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}))
        .collect();
    let containers: Vec<Value> = (0..100)
        .map(|n| json!({"name": format!("c{n}"), "image": "i", "volumeMounts": mounts, "env": env}))
        .collect();
    pod("p", json!({"containers": containers, "volumes": volumes}))
}

/// `pod` with more in its spec than the types of this suite know.
fn with_new_fields(pod: &Pod, spec: Value) -> anyhow::Result<DynamicObject> {
    let mut pod = serde_json::to_value(pod)?;
    merge(&mut pod, json!({"spec": spec}));
    Ok(serde_json::from_value(pod)?)
}

/// A pod with a certificate of this signer.
fn with_certificate(signer: &str) -> anyhow::Result<DynamicObject> {
    let certificate =
        json!({"signerName": signer, "keyType": "ED25519", "credentialBundlePath": "bundle"});
    let volume = json!({"name": "c", "projected": {"sources": [{"podCertificate": certificate}]}});
    with_new_fields(&pod("p", json!({}))?, json!({"volumes": [volume]}))
}

/// Credentials that only newer API servers know; older ones drop the fields.
fn newer_cases(minor: u32) -> anyhow::Result<Vec<(&'static str, DynamicObject, Want)>> {
    let variable = json!([{"name": "X", "valueFrom": {
        "fileKeyRef": {"volumeName": "tollgate-state", "path": "f", "key": "K"},
    }}]);
    let reads_state = json!({"containers": [{"name": "agent", "image": "agent", "env": variable}]});
    let mut cases = Vec::new();
    if minor >= 35 {
        cases.push((
            "a variable from our state",
            with_new_fields(&injected_pod("p")?, reads_state)?,
            Want::Refused("reserved-volume"),
        ));
    }
    if minor >= 37 {
        cases.push((
            "a certificate for the API server",
            with_certificate("kubernetes.io/kube-apiserver-client-pod")?,
            Want::Refused("pod-certificate"),
        ));
        cases.push((
            "a certificate for somebody else",
            with_certificate("example.org/signer")?,
            Want::Success,
        ));
    }
    Ok(cases)
}

fn cases() -> anyhow::Result<Vec<(&'static str, Pod, Want)>> {
    let not_token_free = Want::Refused("not-token-free");
    let container = |extra: Value| {
        let mut container = json!({"name": "agent", "image": "agent"});
        merge(&mut container, extra);
        json!({"containers": [container]})
    };
    let mount =
        |name: &str| container(json!({"volumeMounts": [{"name": name, "mountPath": "/x"}]}));
    let mut half = injected_pod("p")?;
    half.spec.get_or_insert_default().init_containers = None;
    Ok(vec![
        ("token-free", pod("p", json!({}))?, Want::Success),
        ("injected", injected_pod("p")?, Want::Success),
        (
            "the API server's own token",
            pod("p", json!({"automountServiceAccountToken": true}))?,
            not_token_free,
        ),
        (
            "a projected token",
            with_token("mine", None)?,
            not_token_free,
        ),
        (
            "a projected token that names the audience",
            with_token("mine", Some("https://api.example"))?,
            not_token_free,
        ),
        (
            "a projected token for somebody else",
            with_token("mine", Some("istio-ca"))?,
            Want::Success,
        ),
        (
            "our volume without our container",
            half,
            Want::Refused("sidecar-drift"),
        ),
        (
            "our container that ends",
            injected_with(json!({"initContainers": [{"name": "tollgate", "image": "i"}]}))?,
            Want::Refused("sidecar-drift"),
        ),
        (
            "our volume in the agent",
            injected_with(mount("tollgate-bootstrap"))?,
            Want::Refused("reserved-volume"),
        ),
        (
            "our state in the agent",
            injected_with(mount("tollgate-state"))?,
            Want::Refused("reserved-volume"),
        ),
        (
            "the agent's files in the agent",
            injected_with(mount("tollgate-agent"))?,
            Want::Success,
        ),
        (
            "an agent with our name",
            pod(
                "p",
                json!({"containers": [{"name": "tollgate", "image": "i"}]}),
            )?,
            Want::Refused("reserved-name"),
        ),
        (
            "the node's files",
            pod(
                "p",
                json!({"volumes": [{"name": "h", "hostPath": {"path": "/var/lib/kubelet/pods"}}]}),
            )?,
            Want::Refused("host-path"),
        ),
        (
            "the node's processes",
            pod("p", json!({"hostPID": true}))?,
            Want::Refused("host-namespace"),
        ),
        (
            "more of everything than anybody has",
            large()?,
            Want::Success,
        ),
        (
            "the node's IPC",
            pod("p", json!({"hostIPC": true}))?,
            Want::Refused("host-namespace"),
        ),
        (
            "the node's network",
            pod("p", json!({"hostNetwork": true}))?,
            Want::Refused("host-network"),
        ),
        (
            "shared processes",
            injected_with(json!({"shareProcessNamespace": true}))?,
            Want::Refused("shared-pid"),
        ),
        (
            "shared processes without a sidecar",
            pod("p", json!({"shareProcessNamespace": true}))?,
            Want::Success,
        ),
        (
            "a privileged container",
            pod(
                "p",
                container(json!({"securityContext": {"privileged": true}})),
            )?,
            Want::Refused("capability"),
        ),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_injected_or_token_free() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        parameter(namespace, "https://api.example\n").await?;
        copy_policy(namespace, POLICY, BINDING).await?;
        let kind = ApiResource::erase::<Pod>(&());
        let pods: Api<DynamicObject> =
            Api::namespaced_with(namespace.client(), &namespace.name, &kind);
        for (what, pod, wanted) in newer_cases(namespace.cluster.minor().await?)? {
            want(what, wanted, async || pods.create(&dry_run(), &pod).await).await?;
        }
        for (what, pod, wanted) in cases()? {
            want(what, wanted, async || {
                namespace.pods().create(&dry_run(), &pod).await
            })
            .await?;
        }
        // Not knowing its audiences, it takes every token for one of the API server's.
        parameter(namespace, "").await?;
        let foreign = with_token("mine", Some("istio-ca"))?;
        want(
            "audiences not known",
            Want::Refused("not-token-free"),
            async || namespace.pods().create(&dry_run(), &foreign).await,
        )
        .await
    })
    .await
}
