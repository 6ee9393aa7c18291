//! Our own objects, and what our own service account may do. Here what it may grant.

mod namespace;
mod objects;

use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Client;
use kube::api::{Api, DeleteParams, PatchParams, PostParams};
use serde_json::{Value, json};
use tollgate_e2e::namespace::TestNamespace;
use tollgate_shared::contract::{AGENT_CLUSTER_ROLE, ROLE_BINDING, SYSTEM_NAMESPACE, WEBHOOK_NAME};

use crate::actor::{account, allow_everywhere, impersonate};
use crate::fixture::manage;
use crate::want::{Want, want};

fn dry_run() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

fn dry_patch() -> PatchParams {
    PatchParams {
        dry_run: true,
        ..PatchParams::default()
    }
}

/// Somebody with every right but to lift our guards: what an operator of other products in the cluster may hold.
async fn operator(
    namespace: &TestNamespace,
    name: &str,
    rules: &[Value],
) -> anyhow::Result<Client> {
    let user = format!("{}:{name}", namespace.name);
    let groups = [
        "",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "apps",
        "autoscaling",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
    ];
    let all = json!({"apiGroups": groups, "resources": ["*"], "verbs": ["*"]});
    let rules: Vec<&Value> = rules.iter().chain([&all]).collect();
    allow_everywhere(namespace, &user, json!(rules)).await?;
    impersonate(&namespace.cluster, &user, &[], &[])
}

/// An owner that is not there: the garbage collector deletes what names it.
fn absent_owner() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "name": "absent", "uid": "00000000-0000-4000-8000-000000000000"})
}

fn binding(name: &str, role: &str, group: &str) -> anyhow::Result<RoleBinding> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
    }))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_grants_one_role_to_one_group_in_managed_namespaces() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let webhook = account(SYSTEM_NAMESPACE, WEBHOOK_NAME);
        let client = impersonate(&namespace.cluster, &webhook, &[], &[])?;
        let group = format!("system:serviceaccounts:{}", namespace.name);
        let grant = async |what: &str, binding: RoleBinding, wanted: Want| {
            let api = Api::<RoleBinding>::namespaced(client.clone(), &namespace.name);
            want(what, wanted, async || {
                api.create(&dry_run(), &binding).await
            })
            .await
        };
        let good = || binding(ROLE_BINDING, AGENT_CLUSTER_ROLE, &group);
        grant("not managed", good()?, Want::Refused("grant-namespace")).await?;
        manage(namespace, Some("opt-in")).await?;
        let foreign = binding(
            ROLE_BINDING,
            AGENT_CLUSTER_ROLE,
            "system:serviceaccounts:default",
        )?;
        let everyone = binding(ROLE_BINDING, AGENT_CLUSTER_ROLE, "system:authenticated")?;
        let mut two = good()?;
        two.subjects
            .get_or_insert_default()
            .extend(foreign.subjects.clone().unwrap_or_default());
        for (what, binding, wanted) in [
            ("as it should be", good()?, Want::Admitted),
            (
                "another name",
                binding("mine", AGENT_CLUSTER_ROLE, &group)?,
                Want::Refused("grant-name"),
            ),
            // One that everybody has: RBAC lets everybody pass it on.
            (
                "another role",
                binding(ROLE_BINDING, "system:discovery", &group)?,
                Want::Refused("grant-role"),
            ),
            (
                "another namespace's accounts",
                foreign,
                Want::Refused("grant-subject"),
            ),
            ("everyone", everyone, Want::Refused("grant-subject")),
            ("two groups", two, Want::Refused("grant-subject")),
        ] {
            grant(what, binding, wanted).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_takes_away_only_what_it_gave() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let webhook = account(SYSTEM_NAMESPACE, WEBHOOK_NAME);
        let client = impersonate(&namespace.cluster, &webhook, &[], &[])?;
        let group = format!("system:serviceaccounts:{}", namespace.name);
        // A user's own, of the same name: RBAC lets the webhook delete it, the policy does not.
        let users = binding(ROLE_BINDING, "view", &group)?;
        namespace
            .api::<RoleBinding>()
            .create(&PostParams::default(), &users)
            .await?;
        let delete = DeleteParams {
            dry_run: true,
            ..DeleteParams::default()
        };
        let api = Api::<RoleBinding>::namespaced(client, &namespace.name);
        want(
            "a user's binding",
            Want::Refused("grant-role"),
            async || api.delete(ROLE_BINDING, &delete).await.map(|_| ()),
        )
        .await?;
        let all = namespace.api::<RoleBinding>();
        all.delete(ROLE_BINDING, &DeleteParams::default()).await?;
        let ours = binding(ROLE_BINDING, AGENT_CLUSTER_ROLE, &group)?;
        all.create(&PostParams::default(), &ours).await?;
        // A webhook that runs may have taken it away by now: that is success too.
        want("its own", Want::Admitted, async || {
            api.delete(ROLE_BINDING, &delete).await.map(|_| ())
        })
        .await
    })
    .await
}
