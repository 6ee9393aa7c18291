//! What an outage of the webhook stops, and what it must not stop. Copies of our webhook configurations, for the test's own namespace
//! and with a Service that does not exist: the webhook of the cluster goes on.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, AttachParams, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tollgate_e2e::namespace::TestNamespace;

use crate::fixture::pod;
use crate::want::{Want, want};

const MUTATING: &str = include_str!("../../../manifests/base/mutating-webhook.yaml");
const VALIDATING: &str = include_str!("../../../manifests/base/validating-webhook.yaml");

async fn copy(namespace: &TestNamespace) -> anyhow::Result<()> {
    let owner = Api::<Namespace>::all(namespace.client())
        .get(&namespace.name)
        .await?;
    let name = format!("tollgate-outage-{}", namespace.name);
    let copied = |text: &str| -> anyhow::Result<Patch<Value>> {
        let mut configuration: Value = serde_saphyr::from_str(text)?;
        configuration["metadata"] = json!({"name": name, "ownerReferences": [{
            "apiVersion": "v1", "kind": "Namespace", "name": namespace.name,
            "uid": owner.uid().unwrap_or_default(),
        }]});
        for webhook in configuration["webhooks"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            webhook["clientConfig"]["service"]["name"] = json!("nobody");
            webhook["namespaceSelector"] =
                json!({"matchLabels": {"kubernetes.io/metadata.name": namespace.name}});
        }
        Ok(Patch::Apply(configuration))
    };
    let params = PatchParams::apply("tollgate-e2e-policies").force();
    Api::<MutatingWebhookConfiguration>::all(namespace.client())
        .patch(&name, &params, &copied(MUTATING)?)
        .await?;
    Api::<ValidatingWebhookConfiguration>::all(namespace.client())
        .patch(&name, &params, &copied(VALIDATING)?)
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_stops_new_pods_and_debugging_and_nothing_else() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let pods = namespace.pods();
        namespace.create_object(&pod("p", json!({}))?).await?;
        copy(namespace).await?;
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let new = pod("new", json!({}))?;
        want("a new pod", Want::Unanswered, async || {
            pods.create(&dry_run, &new).await
        })
        .await?;
        let params = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let debug = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i"}]}});
        want("a debug container", Want::Unanswered, async || {
            pods.patch_ephemeral_containers("p", &params, &Patch::Strategic(&debug))
                .await
        })
        .await?;
        for change in [
            json!({"metadata": {"labels": {"a": "b"}}}),
            json!({"metadata": {"finalizers": ["example.org/x"]}}),
            json!({"spec": {"containers": [{"name": "agent", "image": "next"}]}}),
        ] {
            want(&change.to_string(), Want::Success, async || {
                pods.patch("p", &params, &Patch::Strategic(&change)).await
            })
            .await?;
        }
        want("exec", Want::Admitted, async || {
            let into = AttachParams {
                stderr: false,
                ..AttachParams::default()
            };
            pods.exec("p", ["true"], &into).await.map(|_| ())
        })
        .await?;
        want("delete", Want::Success, async || {
            pods.delete("p", &DeleteParams::default()).await.map(|_| ())
        })
        .await?;
        TestNamespace::run(None, async |elsewhere| {
            want("a pod elsewhere", Want::Success, async || {
                Api::<Pod>::namespaced(elsewhere.client(), &elsewhere.name)
                    .create(&dry_run, &new)
                    .await
            })
            .await
        })
        .await
    })
    .await
}
