//! What is in our namespace: only holders of `unmanage` may change it, but for what the cluster itself must.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Pod, ReplicationController, Secret, Service,
};
use kube::api::{Api, DeleteParams, Patch, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_shared::contract::{SYSTEM_NAMESPACE, WEBHOOK_NAME};

use super::{absent_owner, dry_patch, dry_run, operator};
use crate::actor::{impersonate, may_unmanage};
use crate::fixture::{mint, token_request};
use crate::want::{Want, want};

#[tokio::test(flavor = "multi_thread")]
async fn our_namespace_changes_only_by_holders_of_unmanage() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let clumsy = operator(namespace, "clumsy", &[]).await?;
        let trusted = operator(namespace, "trusted", &[may_unmanage()]).await?;
        for (client, ours) in [
            (&clumsy, Want::Refused("own-object")),
            (&trusted, Want::Admitted),
        ] {
            let secret: Secret = serde_json::from_value(json!({"metadata": {"name": "mine"}}))?;
            want("a Secret", ours, async || {
                Api::namespaced(client.clone(), SYSTEM_NAMESPACE)
                    .create(&dry_run(), &secret)
                    .await
            })
            .await?;
            for (name, wanted) in [
                ("tollgate-webhook", ours),
                ("tollgate-settings", ours),
                ("istio-ca-root-cert", Want::Admitted),
            ] {
                let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name}}))?;
                want(name, wanted, async || {
                    Api::namespaced(client.clone(), SYSTEM_NAMESPACE)
                        .create(&dry_run(), &map)
                        .await
                })
                .await?;
            }
            want("a token of the webhook", ours, async || {
                mint(client, SYSTEM_NAMESPACE, WEBHOOK_NAME, &token_request(None)).await
            })
            .await?;
            want("no replicas", ours, async || {
                Api::<Deployment>::namespaced(client.clone(), SYSTEM_NAMESPACE)
                    .patch_scale(
                        WEBHOOK_NAME,
                        &dry_patch(),
                        &Patch::Merge(json!({"spec": {"replicas": 0}})),
                    )
                    .await
            })
            .await?;
            for (metadata, wanted) in [
                (
                    json!({"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}),
                    ours,
                ),
                (json!({"ownerReferences": [absent_owner()]}), ours),
                (
                    json!({"annotations": {"example.org/seen": "yes"}}),
                    Want::Admitted,
                ),
            ] {
                let patch = Patch::Merge(json!({"metadata": metadata}));
                let all = Api::<Namespace>::all(client.clone());
                want(&metadata.to_string(), wanted, async || {
                    all.patch(SYSTEM_NAMESPACE, &dry_patch(), &patch).await
                })
                .await?;
                want(&format!("{metadata} by the status"), wanted, async || {
                    all.patch_status(SYSTEM_NAMESPACE, &dry_patch(), &patch)
                        .await
                })
                .await?;
            }
            makers_of_pods(client, ours).await?;
            parts(client, ours).await?;
        }
        // The control plane goes on: it publishes, and makes what Deployments need.
        let publisher = "system:serviceaccount:kube-system:root-ca-cert-publisher";
        let publisher = impersonate(&namespace.cluster, publisher, &[], &[])?;
        let map: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": "kube-root-ca.crt"}}))?;
        want("the publisher", Want::Admitted, async || {
            Api::namespaced(publisher.clone(), SYSTEM_NAMESPACE)
                .create(&dry_run(), &map)
                .await
        })
        .await
    })
    .await
}

/// The control plane makes their pods, and may: so nobody else makes them.
async fn makers_of_pods(client: &Client, wanted: Want) -> anyhow::Result<()> {
    let pod = json!({
        "metadata": {"labels": {"app": "mine"}},
        "spec": {"serviceAccountName": WEBHOOK_NAME, "containers": [{"name": "mine", "image": "mine"}]},
    });
    let controller: ReplicationController = serde_json::from_value(json!({
        "metadata": {"name": "mine"},
        "spec": {"replicas": 1, "selector": {"app": "mine"}, "template": pod},
    }))?;
    want("a ReplicationController", wanted, async || {
        Api::namespaced(client.clone(), SYSTEM_NAMESPACE)
            .create(&dry_run(), &controller)
            .await
    })
    .await?;
    let scaler: HorizontalPodAutoscaler = serde_json::from_value(json!({
        "metadata": {"name": "mine"},
        "spec": {
            "maxReplicas": 1,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": WEBHOOK_NAME},
        },
    }))?;
    want("a HorizontalPodAutoscaler", wanted, async || {
        Api::namespaced(client.clone(), SYSTEM_NAMESPACE)
            .create(&dry_run(), &scaler)
            .await
    })
    .await
}

/// A status may be reported; what comes with it may not be a label or an owner. Labels of Deployments and owners of pods the API
/// server leaves alone by itself.
async fn parts(client: &Client, ours: Want) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let services: Api<Service> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let label = json!({"metadata": {"labels": {"app": "other"}}});
    let owner = json!({"metadata": {"ownerReferences": [absent_owner()]}});
    let annotation = json!({"metadata": {"annotations": {"example.org/seen": "yes"}}});
    for (of_a_deployment, of_a_service, wanted) in [
        (&owner, &label, ours),
        (&owner, &owner, ours),
        (&annotation, &annotation, Want::Admitted),
    ] {
        want(
            &format!("{of_a_deployment} by the status"),
            wanted,
            async || {
                deployments
                    .patch_status(WEBHOOK_NAME, &dry_patch(), &Patch::Merge(of_a_deployment))
                    .await
            },
        )
        .await?;
        want(
            &format!("{of_a_service} by the status"),
            wanted,
            async || {
                services
                    .patch_status(WEBHOOK_NAME, &dry_patch(), &Patch::Merge(of_a_service))
                    .await
            },
        )
        .await?;
    }
    Ok(())
}

/// Network plugins note on every pod what they gave it.
#[tokio::test(flavor = "multi_thread")]
async fn our_pods_may_be_annotated_and_not_labelled() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let pods: Api<Pod> = Api::namespaced(namespace.client(), SYSTEM_NAMESPACE);
        // Never scheduled; the webhook's own may be away.
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"generateName": "annotated-"},
            "spec": {
                "schedulingGates": [{"name": "tollgate.dev/e2e"}],
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "none", "image": "agent:none",
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        }))?;
        let name = pods.create(&PostParams::default(), &pod).await?.name_any();
        let changed = change_metadata(namespace, &name).await;
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await?;
        changed
    })
    .await
}

async fn change_metadata(namespace: &TestNamespace, pod: &str) -> anyhow::Result<()> {
    let clumsy = operator(namespace, "clumsy", &[]).await?;
    let pods: Api<Pod> = Api::namespaced(clumsy, SYSTEM_NAMESPACE);
    for (metadata, wanted) in [
        (
            json!({"annotations": {"example.org/ip": "10.0.0.1"}}),
            Want::Success,
        ),
        (
            json!({"labels": {"example.org/ip": "x"}}),
            Want::Refused("own-object"),
        ),
        (
            json!({"ownerReferences": [absent_owner()]}),
            Want::Refused("own-object"),
        ),
    ] {
        let patch = Patch::Merge(json!({"metadata": metadata}));
        want(&metadata.to_string(), wanted, async || {
            pods.patch(pod, &dry_patch(), &patch).await
        })
        .await?;
        // The API server itself leaves a pod's owners alone there.
        if metadata.get("ownerReferences").is_none() {
            want(&format!("{metadata} by the status"), wanted, async || {
                pods.patch_status(pod, &dry_patch(), &patch).await
            })
            .await?;
        }
    }
    Ok(())
}
