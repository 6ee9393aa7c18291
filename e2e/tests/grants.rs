//! Labels that grant, and a guard whose absence revokes. These tests change what the whole cluster shares, so they run one after
//! the other.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tollgate_e2e::audit::{AuditEvent, AuditLog};
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::wait;
use tollgate_shared::contract::{
    AGENT_CLUSTER_ROLE, Injection, NAMESPACE_LABEL, ROLE_BINDING, SYSTEM_NAMESPACE, WEBHOOK_NAME,
};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const GUARD: &str = "tollgate-token-guard";

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
    let mut log = namespace.cluster.audit_log()?;
    guard
        .bindings
        .delete(GUARD, &DeleteParams::default())
        .await?;
    wait_for_grant(namespace, false).await?;
    guard.put_back().await?;
    wait_for_grant(namespace, true).await?;
    if let Some(log) = &mut log {
        the_guard_answered_before(log, &namespace.name).await?;
    }

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

/// Before the first grant the guard denied the token that it gives to nobody.
async fn the_guard_answered_before(log: &mut AuditLog, namespace: &str) -> anyhow::Result<()> {
    let webhook = format!("system:serviceaccount:{SYSTEM_NAMESPACE}:{WEBHOOK_NAME}");
    let is = |event: &AuditEvent, resource: &str, name: &str| {
        let about = event.object_ref.as_ref();
        event.user.username == webhook
            && event.verb == "create"
            && about.is_some_and(|about| about.resource == resource && about.name == name)
    };
    let is_grant = |event: &AuditEvent| {
        let here = event.object_ref.as_ref();
        is(event, "rolebindings", ROLE_BINDING)
            && event.code() == 201
            && here.is_some_and(|here| here.namespace == namespace)
    };
    log.wait("the grant", is_grant).await?;
    let before = log.events()?.iter().take_while(|event| !is_grant(event));
    let mut probes = before.filter(|event| is(event, "serviceaccounts", "tollgate-guard-probe"));
    assert!(
        probes.any(|probe| probe.code() == 403),
        "the grant came before the guard's answer"
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
