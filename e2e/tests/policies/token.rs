//! The token guard: who may mint which token. Here a pod for itself.

mod others;

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest};
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tollgate_e2e::namespace::TestNamespace;

use crate::actor::{account, bearer, impersonate};
use crate::fixture::{
    accounts, audiences_known, grant, manage, mint, pod, reference, token_request,
};
use crate::want::{Want, want};

/// A managed namespace with two accounts, two pods of the first, and a real token of one of those pods.
struct Scene<'a> {
    namespace: &'a TestNamespace,
    own: Pod,
    neighbour: Pod,
    client: Client,
}

impl<'a> Scene<'a> {
    async fn set(namespace: &'a TestNamespace, level: &str) -> anyhow::Result<Self> {
        audiences_known(namespace).await?;
        accounts(namespace, &["agent", "other"]).await?;
        let make = async |name: &str| {
            let pod = pod(name, json!({"serviceAccountName": "agent"}))?;
            anyhow::Ok(namespace.create_object(&pod).await?)
        };
        let (own, neighbour) = (make("own").await?, make("neighbour").await?);
        let uid = own.uid().context("a stored pod has a uid")?;
        let request = token_request(Some(reference("Pod", "own", Some(&uid))));
        let token = mint(&namespace.client(), &namespace.name, "agent", &request).await?;
        let client = bearer(&namespace.cluster, &token)?;
        grant(namespace).await?;
        manage(namespace, Some(level)).await?;
        Ok(Self {
            namespace,
            own,
            neighbour,
            client,
        })
    }

    async fn case(
        &self,
        what: &str,
        client: &Client,
        account: &str,
        request: TokenRequest,
        wanted: Want,
    ) -> anyhow::Result<()> {
        want(what, wanted, async || {
            mint(client, &self.namespace.name, account, &request).await
        })
        .await
    }

    /// Bound to the pod that asks, as the sidecar does it.
    fn bound(&self) -> TokenRequest {
        token_request(Some(reference("Pod", "own", self.own.uid().as_deref())))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_mints_for_itself_bound_to_itself_only() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let scene = Scene::set(namespace, "enabled").await?;
        let neighbour = scene.neighbour.uid();
        let own = scene.own.uid();
        let lasting = |seconds| {
            let mut request = scene.bound();
            request.spec.expiration_seconds = Some(seconds);
            request
        };
        let refused = Want::Refused("token-not-bound");
        for (what, request, wanted) in [
            ("own pod", scene.bound(), Want::Success),
            ("not bound", token_request(None), refused),
            (
                "bound to {}",
                token_request(Some(BoundObjectReference::default())),
                refused,
            ),
            (
                "bound to another pod of the same account",
                token_request(Some(reference("Pod", "neighbour", neighbour.as_deref()))),
                refused,
            ),
            (
                "own pod without its uid",
                token_request(Some(reference("Pod", "own", None))),
                refused,
            ),
            (
                "own name, other uid",
                token_request(Some(reference("Pod", "own", neighbour.as_deref()))),
                refused,
            ),
            (
                "a Secret with the pod's name and uid",
                token_request(Some(reference("Secret", "own", own.as_deref()))),
                refused,
            ),
            ("the longest life", lasting(3600), Want::Success),
            (
                "too long a life",
                lasting(3601),
                Want::Refused("token-too-long"),
            ),
            (
                "the life that becomes a year",
                lasting(3607),
                Want::Refused("token-too-long"),
            ),
        ] {
            scene
                .case(what, &scene.client, "agent", request, wanted)
                .await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_token_that_names_a_pod_mints() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let scene = Scene::set(namespace, "opt-in").await?;
        let unbound = mint(
            &namespace.client(),
            &namespace.name,
            "agent",
            &token_request(None),
        )
        .await?;
        let unbound = bearer(&namespace.cluster, &unbound)?;
        let refused = Want::Refused("token-without-pod");
        scene
            .case(
                "a token without a pod",
                &unbound,
                "agent",
                scene.bound(),
                refused,
            )
            .await?;

        let agent = account(&namespace.name, "agent");
        let node_bound = impersonate(
            &namespace.cluster,
            &agent,
            &[],
            &[("node-name", "n"), ("node-uid", "u")],
        )?;
        scene
            .case(
                "a node-bound token",
                &node_bound,
                "agent",
                scene.bound(),
                refused,
            )
            .await?;

        // The known limit: what was minted for the pod can mint again, until the pod goes.
        let minted = mint(&scene.client, &namespace.name, "agent", &scene.bound()).await?;
        let minted = bearer(&namespace.cluster, &minted)?;
        scene
            .case(
                "a minted token",
                &minted,
                "agent",
                scene.bound(),
                Want::Success,
            )
            .await
    })
    .await
}
