//! Enforced namespaces: injected or token-free pods, no tokens in Secrets, the cluster's CA as published; and pods that ask for the
//! sidecar where there is none to be had.

mod pods;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tollgate_e2e::cluster::Cluster;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::wait;

use crate::actor::impersonate;
use crate::fixture::{manage, pod};
use crate::want::{Want, want};

fn dry_run() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_in_a_secret() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let secret = |kind: &str| -> anyhow::Result<Secret> {
            Ok(serde_json::from_value(json!({
                "metadata": {"name": "s", "annotations": {"kubernetes.io/service-account.name": "default"}},
                "type": kind,
            }))?)
        };
        let token = secret("kubernetes.io/service-account-token")?;
        let opaque = secret("Opaque")?;
        for (level, object, wanted) in [
            ("enabled", &token, Want::Success),
            ("enforced", &token, Want::Refused("legacy-token")),
            ("enforced", &opaque, Want::Success),
        ] {
            manage(namespace, Some(level)).await?;
            want(&format!("{level}: {:?}", object.type_), wanted, async || {
                namespace.api::<Secret>().create(&dry_run(), object).await
            })
            .await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_ca_is_the_control_planes() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let name = "kube-root-ca.crt";
        let maps = namespace.api::<ConfigMap>();
        wait::until(
            maps.clone(),
            name,
            "the control plane has published it",
            |map| map.is_some(),
        )
        .await?;
        manage(namespace, Some("enforced")).await?;
        let refused = Want::Refused("root-ca");
        let patch = Patch::Merge(json!({"data": {"ca.crt": "mine"}}));
        let params = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let delete = DeleteParams {
            dry_run: true,
            ..DeleteParams::default()
        };
        want("update", refused, async || {
            maps.patch(name, &params, &patch).await
        })
        .await?;
        want("delete", refused, async || {
            maps.delete(name, &delete).await.map(|_| ())
        })
        .await?;
        want("delete with all others", refused, async || {
            maps.delete_collection(&delete, &ListParams::default())
                .await
                .map(|_| ())
        })
        .await?;
        let other: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "other"}}))?;
        want("another", Want::Success, async || {
            maps.create(&dry_run(), &other).await
        })
        .await?;
        let publisher = "system:serviceaccount:kube-system:root-ca-cert-publisher";
        let publisher = impersonate(&namespace.cluster, publisher, &[], &[])?;
        want("its publisher", Want::Success, async || {
            Api::<ConfigMap>::namespaced(publisher.clone(), &namespace.name)
                .replace(name, &dry_run(), &maps.get(name).await?)
                .await
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enforced_namespace_can_be_deleted() -> anyhow::Result<()> {
    let namespace = TestNamespace::create(Cluster::connect().await?, None).await?;
    let maps = namespace.api::<ConfigMap>();
    wait::until(
        maps,
        "kube-root-ca.crt",
        "the control plane has published it",
        |map| map.is_some(),
    )
    .await?;
    manage(&namespace, Some("enforced")).await?;
    namespace.delete().await?;
    // The namespace controller empties it, and it writes and deletes what nobody else may.
    let all = Api::<Namespace>::all(namespace.client());
    wait::until(all, &namespace.name, "it is gone", |it| it.is_none()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_asks_in_vain_is_told_what_to_do() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let labelled = |value: &str| -> anyhow::Result<Pod> {
            let mut pod = pod("p", json!({}))?;
            pod.metadata.labels =
                Some([("tollgate.dev/inject".to_owned(), value.to_owned())].into());
            Ok(pod)
        };
        for (value, wanted) in [
            ("true", Want::Refused("not-managed")),
            ("false", Want::Success),
        ] {
            let pod = labelled(value)?;
            want(value, wanted, async || {
                namespace.pods().create(&dry_run(), &pod).await
            })
            .await?;
        }
        let refusal = namespace
            .pods()
            .create(&dry_run(), &labelled("true")?)
            .await;
        let Err(kube::Error::Api(status)) = refusal else {
            anyhow::bail!("not refused");
        };
        let command = format!(
            "kubectl label namespace {} tollgate.dev/injection=enabled",
            namespace.name
        );
        assert!(status.message.ends_with(&command), "{}", status.message);
        Ok(())
    })
    .await
}
