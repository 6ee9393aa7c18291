//! Settings of the operator's own: they reach running replicas, and no apply of the manifests takes them away.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;
use tollgate_e2e::installed::Installed;
use tollgate_shared::contract::SETTINGS;

use super::*;

const AUDIENCE: &str = "settings.e2e.example";

/// As many creates in a row as show that every replica has answered one.
const IN_A_ROW: usize = 30;

/// Whether a pod with a projected token for the audience is admitted.
async fn is_allowed(namespace: &TestNamespace) -> anyhow::Result<bool> {
    let token = json!({"serviceAccountToken": {"audience": AUDIENCE, "path": "t"}});
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"generateName": "settings-"},
        "spec": {
            "containers": [{"name": "a", "image": "agent:none"}],
            "volumes": [{"name": "t", "projected": {"sources": [token]}}],
        },
    }))?;
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match namespace.pods().create(&dry, &pod).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.message.contains("foreign-token") => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits until every replica says so. A kubelet looks at a pod that changes, and at its ConfigMaps with it.
async fn until_allowed(namespace: &TestNamespace, wanted: bool) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(namespace.client(), SYSTEM_NAMESPACE);
    let begun = std::time::Instant::now();
    let mut row = 0;
    while row < IN_A_ROW {
        anyhow::ensure!(begun.elapsed() < 2 * wait::LIMIT, "never allowed: {wanted}");
        if is_allowed(namespace).await? == wanted {
            row += 1;
            continue;
        }
        row = 0;
        for replica in replicas(&namespace.client()).await? {
            let mark = json!({"e2e.example/looked": format!("{:?}", begun.elapsed())});
            let mark = Patch::Merge(json!({"metadata": {"annotations": mark}}));
            pods.patch_metadata(&replica, &PatchParams::default(), &mark)
                .await?;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

async fn set_apply_and_ask(namespace: &TestNamespace, manifests: &str) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(namespace.client(), SYSTEM_NAMESPACE);
    let settings = json!({
        "metadata": {"name": SETTINGS},
        "data": {"settings.yaml": format!("allowedAudiences: [{AUDIENCE}]\n")},
    });
    let settings = serde_json::from_value(settings)?;
    let created = maps.create(&PostParams::default(), &settings).await?;
    until_allowed(namespace, true).await?;

    for object in serde_saphyr::from_multiple::<Value>(manifests)? {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        if text("/kind") == Some("ConfigMap") {
            let name = text("/metadata/name").unwrap_or_default();
            let params = PatchParams::apply("e2e-upgrade").force();
            maps.patch(name, &params, &Patch::Apply(&object)).await?;
        }
    }
    let found = maps.get(SETTINGS).await?;
    assert_eq!(found.resource_version(), created.resource_version());
    until_allowed(namespace, true).await
}

#[tokio::test]
async fn settings_reach_every_replica_and_outlive_an_apply() -> anyhow::Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        let client = namespace.client();
        let manifests = Installed::read(&client).await?.manifests()?;
        assert!(!is_allowed(namespace).await?);
        let asked = set_apply_and_ask(namespace, &manifests).await;
        let maps: Api<ConfigMap> = Api::namespaced(client, SYSTEM_NAMESPACE);
        maps.delete(SETTINGS, &DeleteParams::default()).await?;
        asked?;
        until_allowed(namespace, false).await
    })
    .await
}
