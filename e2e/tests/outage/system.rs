//! `kube-system` and our own namespace, as if they were managed: what brings the cluster up, and us, can never wait for us.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use kube::api::DeleteParams;
use serde_json::Value;

use tollgate_e2e::load::{is_injected, until_injected};

use super::*;

const NAMESPACES: [&str; 2] = ["kube-system", SYSTEM_NAMESPACE];
const LABEL_GUARD: &str = "tollgate-label-guard";

/// The label's policy refuses it there, to everybody: it is out of force while they are labelled. Policies are guarded by RBAC alone,
/// so this is what an administrator could do, or have done before the install.
async fn force_label(client: &Client, label: Option<Injection>) -> anyhow::Result<()> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone());
    let mut guard = bindings.get(LABEL_GUARD).await?;
    bindings
        .delete(LABEL_GUARD, &DeleteParams::default())
        .await?;
    let labels = json!({NAMESPACE_LABEL: label.map(Injection::as_str)});
    let labels = Patch::Merge(json!({"metadata": {"labels": labels}}));
    let params = PatchParams::default();
    let labelled = async {
        for name in NAMESPACES {
            // API servers see that the guard is gone a moment later.
            while let Err(error) = namespaces.patch(name, &params, &labels).await {
                let is_guard = error.to_string().contains("system-namespace");
                anyhow::ensure!(is_guard, "{name}: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    };
    let labelled = tokio::time::timeout(wait::LIMIT, labelled).await;
    guard.metadata.resource_version = None;
    guard.metadata.uid = None;
    guard.metadata.managed_fields = None;
    bindings.create(&PostParams::default(), &guard).await?;
    labelled?
}

fn pod(labels: Value, spec: Value) -> anyhow::Result<Pod> {
    let mut pod = json!({
        "metadata": {"generateName": "forced-", "labels": labels},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "image": "c:none", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            }}],
        },
    });
    let own = pod.get_mut("spec").and_then(Value::as_object_mut);
    if let (Some(own), Value::Object(more)) = (own, spec) {
        own.extend(more);
    }
    Ok(serde_json::from_value(pod)?)
}

/// Pods like those that run there, and some that would be injected or denied elsewhere, with the namespaces whose Pod Security allows
/// them.
fn pods() -> anyhow::Result<Vec<(Pod, &'static [&'static str])>> {
    let node = json!({
        "hostNetwork": true, "hostPID": true, "priorityClassName": "system-node-critical",
        "volumes": [{"name": "n", "hostPath": {"path": "/"}}],
    });
    Ok(vec![
        (pod(json!({}), json!({}))?, &NAMESPACES),
        (
            pod(json!({"tollgate.dev/inject": "true"}), json!({}))?,
            &NAMESPACES,
        ),
        (
            pod(json!({"tollgate.dev/inject": "false"}), json!({}))?,
            &NAMESPACES,
        ),
        (
            pod(json!({"tollgate.dev/inject": "maybe"}), json!({}))?,
            &NAMESPACES,
        ),
        (pod(json!({}), node)?, &NAMESPACES[..1]),
    ])
}

/// Creates every pod, on a dry run: each is taken, and none is changed. Errors, no panics: the label must come off again.
async fn all_are_left_alone(client: &Client) -> anyhow::Result<()> {
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    for (pod, namespaces) in pods()? {
        for namespace in namespaces {
            let about = || format!("{namespace}: {:?}", pod.labels());
            let there = Api::<Pod>::namespaced(client.clone(), namespace);
            let made = there.create(&dry_run, &pod).await.with_context(about)?;
            let annotations = made.annotations().keys();
            let ours = annotations.filter(|key| key.contains("tollgate.dev"));
            anyhow::ensure!(ours.count() == 0, "{}", about());
            let spec = made.spec.unwrap_or_default();
            anyhow::ensure!(spec.init_containers.is_none(), "{}", about());
        }
    }
    Ok(())
}

async fn no_grant(client: &Client) -> anyhow::Result<()> {
    for namespace in NAMESPACES {
        let bindings = Api::<RoleBinding>::namespaced(client.clone(), namespace);
        let found = bindings.get_opt(ROLE_BINDING).await?;
        anyhow::ensure!(found.is_none(), "{namespace}");
    }
    Ok(())
}

#[tokio::test]
async fn a_label_forced_onto_the_system_namespaces_changes_nothing() -> anyhow::Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    TestNamespace::run(Some(Injection::Enforced), async |managed| {
        let client = managed.client();
        let tried = async {
            force_label(&client, Some(Injection::Enforced)).await?;
            let replicas = scale(&managed.cluster, 0).await?;
            let without = async {
                let refused = is_injected(&managed.pods()).await;
                anyhow::ensure!(refused.is_err(), "what is managed waits for us");
                all_are_left_alone(&client).await
            };
            let without = without.await;
            // Our own pods are made while the label is there and none of us answers.
            scale(&managed.cluster, replicas).await?;
            without?;
            until_injected(&managed.pods()).await?;
            all_are_left_alone(&client).await?;
            no_grant(&client).await
        };
        let tried = tried.await;
        let undone = force_label(&client, None).await;
        tried.and(undone)
    })
    .await
}
