//! Tokens for somebody else: of another account, in another namespace, without the label, by somebody from outside.

use k8s_openapi::api::authentication::v1::TokenRequest;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tollgate_e2e::namespace::TestNamespace;

use super::Scene;
use crate::actor::{account, allow_everywhere, allow_here, impersonate, may_request_tokens};
use crate::fixture::{accounts, manage, mint, reference, token_request};
use crate::want::{Want, want};

#[tokio::test(flavor = "multi_thread")]
async fn minting_for_another_account_needs_the_verb_and_the_own_node() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let scene = Scene::set(namespace, "enabled").await?;
        let uid = scene.own.uid().unwrap_or_default();
        let agent = account(&namespace.name, "agent");
        let extra = [
            ("pod-name", "own"),
            ("pod-uid", &uid),
            ("node-name", "n1"),
            ("node-uid", "u1"),
        ];
        let client = impersonate(&namespace.cluster, &agent, &[], &extra)?;
        let to_node = |name, uid| token_request(Some(reference("Node", name, uid)));
        let case = async |what: &str, account: &str, request: TokenRequest, wanted: Want| {
            scene.case(what, &client, account, request, wanted).await
        };

        case(
            "without the verb",
            "other",
            to_node("n1", Some("u1")),
            Want::Refused("token-for-other"),
        )
        .await?;
        allow_here(
            namespace,
            &agent,
            json!([{
                "apiGroups": ["tollgate.dev"], "resources": ["serviceaccounts"],
                "resourceNames": ["other"], "verbs": ["mint"],
            }]),
        )
        .await?;
        // There is no node n1: what comes after the guard says so.
        case(
            "own node",
            "other",
            to_node("n1", Some("u1")),
            Want::Admitted,
        )
        .await?;
        case(
            "own node, without its uid",
            "other",
            to_node("n1", None),
            Want::Admitted,
        )
        .await?;
        let refused = Want::Refused("token-not-bound");
        case("another node", "other", to_node("n2", None), refused).await?;
        case(
            "own node's name, other uid",
            "other",
            to_node("n1", Some("u2")),
            refused,
        )
        .await?;
        case("not bound", "other", token_request(None), refused).await?;
        case("bound to the pod", "other", scene.bound(), refused).await?;
        case(
            "itself, bound to the node",
            "agent",
            to_node("n1", Some("u1")),
            refused,
        )
        .await?;
        case(
            "an account that the verb does not name",
            "default",
            to_node("n1", None),
            Want::Refused("token-for-other"),
        )
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_holds_where_the_label_is_gone() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let scene = Scene::set(namespace, "enabled").await?;
        manage(namespace, None).await?;
        scene
            .case(
                "for itself",
                &scene.client,
                "agent",
                scene.bound(),
                Want::Success,
            )
            .await?;
        scene
            .case(
                "for another",
                &scene.client,
                "other",
                scene.bound(),
                Want::Refused("token-for-other"),
            )
            .await?;
        scene
            .case(
                "not bound",
                &scene.client,
                "agent",
                token_request(None),
                Want::Refused("token-not-bound"),
            )
            .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mark_is_bound_in_every_namespace_and_nobody_else_is() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let scene = Scene::set(namespace, "enabled").await?;
        TestNamespace::run(None, async |elsewhere| {
            accounts(elsewhere, &["victim", "free"]).await?;
            let agent = account(&namespace.name, "agent");
            let (free, robot) = (
                account(&elsewhere.name, "free"),
                account(&elsewhere.name, "robot"),
            );
            for user in [&agent, &free] {
                allow_here(elsewhere, user, json!([may_request_tokens()])).await?;
            }
            allow_here(
                elsewhere,
                &robot,
                json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]),
            )
            .await?;
            let victim = async |what: &str, client: &Client, wanted: Want| {
                want(what, wanted, async || {
                    mint(client, &elsewhere.name, "victim", &token_request(None)).await
                })
                .await
            };
            victim(
                "an agent with rights elsewhere",
                &scene.client,
                Want::Refused("token-other-namespace"),
            )
            .await?;
            let free = impersonate(&namespace.cluster, &free, &[], &[])?;
            victim("an account that was never marked", &free, Want::Success).await?;
            let robot = impersonate(&namespace.cluster, &robot, &[], &[])?;
            victim(
                "an account that holds the mark by a wildcard",
                &robot,
                Want::Success,
            )
            .await
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn in_enforced_namespaces_others_need_the_verb() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let scene = Scene::set(namespace, "enforced").await?;
        let as_user = |name: &str, groups: &[&str]| {
            impersonate(
                &namespace.cluster,
                &format!("{}:{name}", namespace.name),
                groups,
                &[],
            )
        };
        let user = |name: &str| format!("{}:{name}", namespace.name);
        for name in ["stranger", "trusted", "kubelet"] {
            allow_everywhere(namespace, &user(name), json!([may_request_tokens()])).await?;
        }
        let case = async |what: &str, client: Client, wanted: Want| {
            scene
                .case(what, &client, "agent", token_request(None), wanted)
                .await
        };
        case(
            "a stranger",
            as_user("stranger", &[])?,
            Want::Refused("token-not-allowed"),
        )
        .await?;
        case(
            "a kubelet",
            as_user("kubelet", &["system:nodes"])?,
            Want::Success,
        )
        .await?;
        case("an administrator", namespace.client(), Want::Success).await?;
        allow_here(
            namespace,
            &user("trusted"),
            json!([{
                "apiGroups": ["tollgate.dev"], "resources": ["serviceaccounts"],
                "resourceNames": ["agent"], "verbs": ["mint"],
            }]),
        )
        .await?;
        case(
            "a holder of the verb",
            as_user("trusted", &[])?,
            Want::Success,
        )
        .await?;
        scene
            .case(
                "the pod itself",
                &scene.client,
                "agent",
                scene.bound(),
                Want::Success,
            )
            .await?;

        manage(namespace, Some("enabled")).await?;
        case(
            "a stranger, not enforced",
            as_user("stranger", &[])?,
            Want::Success,
        )
        .await
    })
    .await
}
