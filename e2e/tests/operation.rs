//! The webhook as a platform team runs it: labels that grant, a guard whose absence revokes, certificates that heal, restarts
//! that lose nothing. These tests change what the whole cluster shares, so they run one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tollgate_e2e::cluster::Cluster;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::wait;
use tollgate_shared::contract::{
    AGENT_CLUSTER_ROLE, CONTAINER, Injection, NAMESPACE_LABEL, ROLE_BINDING, SYSTEM_NAMESPACE,
    WEBHOOK_NAME,
};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const GUARD: &str = "tollgate-token-guard";
const SECRET: &str = "tollgate-webhook-ca";

async fn wait_for_grant(namespace: &TestNamespace, granted: bool) -> anyhow::Result<()> {
    let bindings = namespace.api::<RoleBinding>();
    let what = if granted { "the grant" } else { "its end" };
    wait::until(bindings, ROLE_BINDING, what, |found| {
        found.is_some() == granted
    })
    .await?;
    Ok(())
}

/// Whether a found grant is exactly what the namespace must have.
fn is_right(binding: &RoleBinding, namespace: &str) -> bool {
    let subjects = binding.subjects.as_deref().unwrap_or_default();
    let owners = binding.owner_references();
    binding.role_ref.name == AGENT_CLUSTER_ROLE
        && binding.role_ref.kind == "ClusterRole"
        && matches!(subjects, [subject] if subject.kind == "Group"
            && subject.name == format!("system:serviceaccounts:{namespace}"))
        && matches!(owners, [owner] if owner.kind == "ClusterRole" && owner.name == AGENT_CLUSTER_ROLE)
}

#[tokio::test]
async fn a_label_is_enough_and_what_it_gave_goes_with_it() -> anyhow::Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    TestNamespace::run(None, async |namespace| {
        let namespaces: Api<Namespace> = Api::all(namespace.client());
        let label = async |value: Value| {
            let patch = json!({"metadata": {"labels": {NAMESPACE_LABEL: value}}});
            let patch = Patch::Merge(patch);
            namespaces.patch(&namespace.name, &PatchParams::default(), &patch).await
        };
        for value in Injection::WORDS {
            label(json!(value)).await?;
            wait_for_grant(namespace, true).await?;
        }
        let bindings = namespace.api::<RoleBinding>();
        assert!(is_right(&bindings.get(ROLE_BINDING).await?, &namespace.name));

        let everybody = json!({"subjects": [{
            "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:authenticated",
        }]});
        let patch = Patch::Merge(everybody);
        bindings.patch(ROLE_BINDING, &PatchParams::default(), &patch).await?;
        wait::until(bindings.clone(), ROLE_BINDING, "its subject is mended", |found| {
            found.is_some_and(|found| is_right(found, &namespace.name))
        })
        .await?;
        bindings.delete(ROLE_BINDING, &DeleteParams::default()).await?;
        wait_for_grant(namespace, true).await?;

        label(Value::Null).await?;
        wait_for_grant(namespace, false).await
    })
    .await
}

/// The guard as the cluster has it, to put it back.
struct Guard {
    policies: Api<ValidatingAdmissionPolicy>,
    bindings: Api<ValidatingAdmissionPolicyBinding>,
    policy: ValidatingAdmissionPolicy,
    binding: ValidatingAdmissionPolicyBinding,
}

impl Guard {
    async fn read(client: Client) -> anyhow::Result<Self> {
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client);
        let (mut policy, mut binding) = (policies.get(GUARD).await?, bindings.get(GUARD).await?);
        for metadata in [&mut policy.metadata, &mut binding.metadata] {
            metadata.resource_version = None;
            metadata.uid = None;
            metadata.creation_timestamp = None;
            metadata.generation = None;
            metadata.managed_fields = None;
        }
        Ok(Self {
            policies,
            bindings,
            policy,
            binding,
        })
    }

    async fn put_back(&self) -> anyhow::Result<()> {
        let gone = DeleteParams::default();
        drop(self.policies.delete(GUARD, &gone).await);
        drop(self.bindings.delete(GUARD, &gone).await);
        self.policies
            .create(&PostParams::default(), &self.policy)
            .await?;
        self.bindings
            .create(&PostParams::default(), &self.binding)
            .await?;
        Ok(())
    }

    async fn change(&self, patch: Value) -> anyhow::Result<()> {
        let patch = Patch::Merge(patch);
        self.policies
            .patch(GUARD, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }
}

#[tokio::test]
async fn without_its_guard_nobody_holds_a_grant() -> anyhow::Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        let guard = Guard::read(namespace.client()).await?;
        let result = falls_and_rises(namespace, &guard).await;
        guard.put_back().await?;
        result?;
        wait_for_grant(namespace, true).await
    })
    .await
}

async fn falls_and_rises(namespace: &TestNamespace, guard: &Guard) -> anyhow::Result<()> {
    guard
        .bindings
        .delete(GUARD, &DeleteParams::default())
        .await?;
    wait_for_grant(namespace, false).await?;
    guard.put_back().await?;
    wait_for_grant(namespace, true).await?;

    guard
        .change(json!({"spec": {"failurePolicy": "Ignore"}}))
        .await?;
    wait_for_grant(namespace, false).await?;
    guard.put_back().await?;
    wait_for_grant(namespace, true).await?;

    // An upgrade: the new guard is applied while replicas of this release run. They leave the grants to the new ones.
    let before = namespace
        .api::<RoleBinding>()
        .get(ROLE_BINDING)
        .await?
        .uid();
    guard
        .change(json!({
            "metadata": {"annotations": {"tollgate.dev/release": "99.0.0"}},
            "spec": {"matchConditions": null},
        }))
        .await?;
    // Proof that the webhook has looked since: it revokes elsewhere.
    let other = TestNamespace::run(None, async |other| {
        other.create_object(&grant_like(namespace).await?).await?;
        wait_for_grant(other, false).await
    })
    .await;
    other?;
    let after = namespace
        .api::<RoleBinding>()
        .get(ROLE_BINDING)
        .await?
        .uid();
    assert_eq!(
        before, after,
        "the grant stays through an upgrade of the guard"
    );
    Ok(())
}

/// A RoleBinding as the webhook makes it, for a namespace that must not have it.
async fn grant_like(namespace: &TestNamespace) -> anyhow::Result<RoleBinding> {
    let mut binding = namespace.api::<RoleBinding>().get(ROLE_BINDING).await?;
    binding.metadata.resource_version = None;
    binding.metadata.uid = None;
    binding.metadata.namespace = None;
    binding.metadata.managed_fields = None;
    Ok(binding)
}

fn pod() -> Pod {
    let pod = json!({
        "metadata": {"generateName": "review-"},
        "spec": {"containers": [{"name": "agent", "image": "agent:none"}]},
    });
    serde_json::from_value(pod).unwrap_or_default()
}

/// Asks for a pod that is not stored; whether it comes back with the sidecar in it.
async fn is_injected(pods: &Api<Pod>) -> kube::Result<bool> {
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pod = pods.create(&dry_run, &pod()).await?;
    let spec = pod.spec.unwrap_or_default();
    Ok(spec
        .init_containers
        .iter()
        .flatten()
        .any(|container| container.name == CONTAINER))
}

fn authority(secret: Option<&Secret>) -> Option<Vec<u8>> {
    let data = secret?.data.as_ref()?;
    Some(data.get("ca.crt")?.0.clone())
}

#[tokio::test]
async fn the_webhook_keeps_itself_trusted() -> anyhow::Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        let client = namespace.client();
        let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(client);
        let before = secrets.get(SECRET).await?;
        assert!(is_injected(&namespace.pods()).await?);

        // Nobody's edit of the Secret reaches what is served; once it is away, the authority in memory is written again.
        let broken = Patch::Merge(json!({"data": {"ca.crt": "eA=="}}));
        secrets
            .patch(SECRET, &PatchParams::default(), &broken)
            .await?;
        assert!(is_injected(&namespace.pods()).await?);
        secrets.delete(SECRET, &DeleteParams::default()).await?;
        wait::until(secrets, SECRET, "the authority is written again", |found| {
            authority(found) == authority(Some(&before))
        })
        .await?;

        let mut stripped = configurations.get(WEBHOOK_NAME).await?;
        for webhook in stripped.webhooks.iter_mut().flatten() {
            webhook.client_config.ca_bundle = None;
        }
        configurations
            .replace(WEBHOOK_NAME, &PostParams::default(), &stripped)
            .await?;
        wait::until(
            configurations,
            WEBHOOK_NAME,
            "the caBundle is written again",
            |found| {
                let webhooks = found
                    .and_then(|found| found.webhooks.as_deref())
                    .unwrap_or_default();
                webhooks
                    .iter()
                    .all(|webhook| webhook.client_config.ca_bundle.is_some())
            },
        )
        .await?;
        until_injected(&namespace.pods()).await
    })
    .await
}

/// API servers take a changed configuration within moments.
async fn until_injected(pods: &Api<Pod>) -> anyhow::Result<()> {
    let injected = async {
        while !matches!(is_injected(pods).await, Ok(true)) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(wait::LIMIT, injected).await?;
    Ok(())
}

#[tokio::test]
async fn a_rolling_restart_under_load_loses_no_review() -> anyhow::Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    TestNamespace::run(Some(Injection::Enforced), async |namespace| {
        let done = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..10 {
            clients.spawn(creates(namespace.pods(), Arc::clone(&done)));
        }
        let restarted = restart(&namespace.cluster).await;
        done.store(true, Ordering::SeqCst);
        let mut injected = 0;
        while let Some(ended) = clients.join_next().await {
            injected += ended??;
        }
        restarted?;
        assert!(injected >= 500, "only {injected} creates");
        Ok(())
    })
    .await
}

/// Creates until `done`, at least fifty; how many.
async fn creates(pods: Api<Pod>, done: Arc<AtomicBool>) -> anyhow::Result<usize> {
    let mut count = 0;
    while count < 50 || !done.load(Ordering::SeqCst) {
        anyhow::ensure!(is_injected(&pods).await?, "create {count} came back bare");
        count += 1;
    }
    Ok(count)
}

/// Restarts every replica, as `kubectl rollout restart` does, and waits for the end of it.
async fn restart(cluster: &Cluster) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), SYSTEM_NAMESPACE);
    let found = deployments.get(WEBHOOK_NAME).await?;
    let mark = json!({"tollgate.dev/e2e-restart": found.resource_version()});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": mark}}}});
    let patch = Patch::Merge(patch);
    let restarted = deployments
        .patch(WEBHOOK_NAME, &PatchParams::default(), &patch)
        .await?;
    let wanted = restarted.metadata.generation;
    wait::until(deployments, WEBHOOK_NAME, "the restart is over", |found| {
        let Some(found) = found else { return false };
        let replicas = found.spec.as_ref().and_then(|spec| spec.replicas);
        let Some(status) = &found.status else {
            return false;
        };
        status.observed_generation >= wanted
            && status.updated_replicas == replicas
            && status.replicas == replicas
            && status.available_replicas == replicas
    })
    .await?;
    Ok(())
}
