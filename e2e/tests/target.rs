//! Tokens for another service account of the namespace, bound to the node: as whom the API server sees the agent, what its log and the
//! record make of it, and what is refused.

use std::fs;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::{Value, json};
use tollgate_e2e::agent::AgentPod;
use tollgate_e2e::join::Verdict;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::process::refusal::first_try;
use tollgate_e2e::program::verify;
use tollgate_shared::contract::{Injection, annotation};
use tollgate_shared::record::key;

/// The account that tokens are for.
const OTHER: &str = "other";

const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// The right to mint for [`OTHER`].
fn may_mint() -> Value {
    json!({
        "apiGroups": ["tollgate.dev"], "resources": ["serviceaccounts"],
        "resourceNames": [OTHER], "verbs": ["mint"],
    })
}

fn configmaps() -> Value {
    json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]})
}

/// The right to ask for tokens at all, as the webhook grants it in managed namespaces.
fn may_request_tokens() -> Value {
    json!({"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]})
}

async fn other(namespace: &TestNamespace) -> anyhow::Result<()> {
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": OTHER}});
    namespace.apply::<ServiceAccount>(&account).await?;
    Ok(())
}

#[tokio::test]
async fn an_agent_may_be_another_account_on_its_node() -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        let mut log = namespace.cluster.audit_log()?;
        other(namespace).await?;
        namespace.allow(json!([configmaps(), may_mint()])).await?;
        let agent = AgentPod::new("caller", &namespace.cluster.config.agent_image)
            .annotation(annotation::SERVICE_ACCOUNT, OTHER)
            .start(namespace)
            .await?;
        let name = format!("system:serviceaccount:{}:{OTHER}", namespace.name);
        let who = agent
            .kubectl("auth whoami -o jsonpath={.status.userInfo.username}")
            .await?;
        assert_eq!(who.success()?, name);
        agent.kubectl("get configmaps").await?.success()?;

        let joined = agent.joined(log.as_mut()).await?;
        let calls = joined.find("list configmaps", |call| call.what() == "list configmaps")?;
        for call in &calls {
            let said = call.closing().map(|record| record.user.username.as_str());
            assert_eq!(said, Some(name.as_str()), "{call}");
        }
        let Some(log) = log else { return Ok(()) };
        let pod = agent.pod().await?;
        let node = pod.spec.and_then(|spec| spec.node_name);
        let node = node.context("a pod without a node")?;
        for call in &calls {
            assert_eq!(call.verdict, Verdict::Joined, "{call}");
            for event in &call.events {
                assert_eq!(event.user.username, name, "{call}");
                assert!(!event.user.extra.contains_key(POD_UID), "{call}");
                let nodes = event.user.extra.get(NODE_NAME);
                assert_eq!(nodes, Some(&vec![node.clone()]), "{call}");
            }
            // The mint is the pod's own call.
            let mint = call.mint.with_context(|| format!("no mint: {call}"))?;
            assert_eq!(
                mint.user.extra.get(POD_UID).map(Vec::len),
                Some(1),
                "{call}"
            );
            assert!(call.annotation(key::CREDENTIAL_ID).starts_with("JTI="));
        }

        let folder = tempfile::tempdir()?;
        let [audit, record] = ["audit.log", "record"].map(|name| folder.path().join(name));
        log.copy_to(&audit)?;
        fs::write(&record, agent.records().await?.text)?;
        let verified = verify(&[record], Some(&audit))?;
        assert_eq!(verified.code, Some(0), "{verified:?}");
        assert!(verified.count("joined")? >= 2, "{verified:?}");
        assert_eq!(verified.count("not-logged")?, 0, "{verified:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_the_verb_or_from_elsewhere_there_is_no_token() -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::OptIn), async |namespace| {
        TestNamespace::run(Some(Injection::OptIn), async |elsewhere| {
            other(namespace).await?;
            other(elsewhere).await?;
            let node = namespace.cluster.node().await?;
            let pod = AgentPod::new("process", &namespace.cluster.config.agent_image)
                .spec("nodeName", json!(&node))
                .create(namespace)
                .await?
                .pod()
                .await?;
            let uid = pod.metadata.uid.clone().context("a pod without a UID")?;
            let bootstrap = namespace.token("default", Some(&pod)).await?;
            let says = async |namespace: &TestNamespace, node: &str| {
                let flags = [
                    "--service-account",
                    OTHER,
                    "--binding",
                    "node",
                    "--node-name",
                    node,
                ];
                let closing = first_try(namespace, ("process", &uid), &bootstrap, &flags).await?;
                let outcome = closing.annotations.get(key::OUTCOME).cloned();
                let status = closing.response_status.unwrap_or_default();
                anyhow::Ok((outcome.unwrap_or_default(), status))
            };
            let refused = async |namespace: &TestNamespace, node: &str, part: &str| {
                let (outcome, status) = says(namespace, node).await?;
                assert_eq!(
                    (&*outcome, &*status.reason),
                    ("refused", "mint-forbidden"),
                    "{status:?}"
                );
                assert!(status.message.contains(part), "{part}: {status:?}");
                anyhow::Ok(())
            };

            namespace.allow(json!([may_request_tokens()])).await?;
            refused(namespace, &node, "token-for-other").await?;
            namespace
                .allow(json!([configmaps(), may_mint(), may_request_tokens()]))
                .await?;
            assert_eq!(says(namespace, &node).await?.0, "unused", "with the verb");
            refused(namespace, "another-node", "token-not-bound").await?;
            // RBAC has the first word on another namespace.
            refused(elsewhere, &node, "serviceaccounts/token").await?;
            Ok(())
        })
        .await
    })
    .await
}
