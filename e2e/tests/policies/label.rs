//! The guard of the namespace label.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tollgate_e2e::namespace::TestNamespace;
use tollgate_shared::contract::NAMESPACE_LABEL;

use crate::actor::{allow_everywhere, impersonate, may_unmanage};
use crate::fixture::{manage, set_labels};
use crate::want::{Want, want};

async fn case(client: &Client, namespace: &str, labels: Value, wanted: Want) -> anyhow::Result<()> {
    let what = format!("{labels} on {namespace}");
    want(&what, wanted, async || {
        set_labels(client, namespace, labels.clone(), true).await
    })
    .await
}

/// Somebody who may label namespaces, and no more than `rules`.
async fn labeller(
    namespace: &TestNamespace,
    name: &str,
    rules: &[Value],
) -> anyhow::Result<Client> {
    let user = format!("{}:{name}", namespace.name);
    let label = json!({
        "apiGroups": [""],
        "resources": ["namespaces", "namespaces/status", "namespaces/finalize"],
        "verbs": ["get", "patch", "update", "create"],
    });
    let rules: Vec<&Value> = rules.iter().chain([&label]).collect();
    allow_everywhere(namespace, &user, json!(rules)).await?;
    impersonate(&namespace.cluster, &user, &[], &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn weakening_needs_unmanage_and_strengthening_nothing() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let user = labeller(namespace, "user", &[]).await?;
        let trusted = labeller(namespace, "trusted", &[may_unmanage()]).await?;
        let levels = [None, Some("opt-in"), Some("enabled"), Some("enforced")];
        for (strength, level) in levels.iter().enumerate() {
            manage(namespace, *level).await?;
            for (wanted_strength, wanted_level) in levels.iter().enumerate() {
                let wanted = if wanted_strength < strength {
                    Want::Refused("label-weakened")
                } else {
                    Want::Success
                };
                let labels = json!({NAMESPACE_LABEL: wanted_level});
                case(&user, &namespace.name, labels.clone(), wanted).await?;
                case(&trusted, &namespace.name, labels, Want::Success).await?;
            }
        }
        case(
            &user,
            &namespace.name,
            json!({"team": "blue"}),
            Want::Success,
        )
        .await
    })
    .await
}

/// The API server writes labels that come with a status or with finalizers.
#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_a_namespace_are_no_way_round() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        manage(namespace, Some("enforced")).await?;
        let name = namespace.name.as_str();
        for (who, rules, wanted) in [
            ("user", vec![], Want::Refused("label-weakened")),
            ("trusted", vec![may_unmanage()], Want::Success),
        ] {
            let client = labeller(namespace, who, &rules).await?;
            let all = Api::<Namespace>::all(client);
            let patch = Patch::Merge(json!({"metadata": {"labels": {NAMESPACE_LABEL: null}}}));
            let dry = PatchParams {
                dry_run: true,
                ..PatchParams::default()
            };
            want("by its status", wanted, async || {
                all.patch_status(name, &dry, &patch).await
            })
            .await?;
            want("by its finalizers", wanted, async || {
                let mut changed = all.get(name).await?;
                changed.labels_mut().remove(NAMESPACE_LABEL);
                let params = PostParams {
                    dry_run: true,
                    ..PostParams::default()
                };
                all.replace_subresource("finalize", name, &params, &changed)
                    .await
            })
            .await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_known_values_where_the_webhooks_look() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let admin = namespace.client();
        let name = namespace.name.as_str();
        let (bad, skipped) = (Want::Refused("bad-label"), Want::Refused("label-skipped"));
        for (namespace, labels, wanted) in [
            (name, json!({NAMESPACE_LABEL: "Enabled"}), bad),
            (name, json!({NAMESPACE_LABEL: "true"}), bad),
            (name, json!({NAMESPACE_LABEL: ""}), bad),
            (name, json!({NAMESPACE_LABEL: "enabled"}), Want::Success),
            (
                name,
                json!({NAMESPACE_LABEL: "enabled", "control-plane": "x"}),
                skipped,
            ),
            (
                name,
                json!({NAMESPACE_LABEL: "enabled", "kubernetes.azure.com/managedby": "aks"}),
                skipped,
            ),
            (
                name,
                json!({NAMESPACE_LABEL: "enabled", "kubernetes.azure.com/managedby": "me"}),
                Want::Success,
            ),
            (name, json!({"control-plane": "x"}), Want::Success),
            (
                "kube-system",
                json!({NAMESPACE_LABEL: "opt-in"}),
                Want::Refused("system-namespace"),
            ),
            ("kube-system", json!({"team": "blue"}), Want::Success),
            (
                "tollgate-system",
                json!({NAMESPACE_LABEL: "opt-in"}),
                Want::Refused("system-namespace"),
            ),
            ("tollgate-system", json!({"team": "blue"}), Want::Success),
        ] {
            case(&admin, namespace, labels, wanted).await?;
        }
        manage(namespace, Some("enforced")).await?;
        case(&admin, name, json!({"control-plane": "x"}), skipped).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn new_namespaces_are_looked_at_too() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let user = labeller(namespace, "user", &[]).await?;
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        for (level, wanted) in [
            ("enforced", Want::Success),
            ("on", Want::Refused("bad-label")),
        ] {
            let new = Namespace {
                metadata: ObjectMeta {
                    name: Some(format!("{}-new", namespace.name)),
                    labels: Some([(NAMESPACE_LABEL.to_owned(), level.to_owned())].into()),
                    ..ObjectMeta::default()
                },
                ..Namespace::default()
            };
            want(level, wanted, async || {
                Api::<Namespace>::all(user.clone())
                    .create(&dry_run, &new)
                    .await
            })
            .await?;
        }
        Ok(())
    })
    .await
}
