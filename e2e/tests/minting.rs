//! What the API server says to a mint that it refuses, and what the sidecar makes of it. The fakes of the sidecar's own tests say
//! the same; here it is the real one that speaks.

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use tollgate_e2e::agent::AgentPod;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::process::refusal::first_try;
use tollgate_e2e::wait;
use tollgate_shared::secret::Token;

/// A namespace that is not managed, so that no guard speaks before the API server does.
struct Scene<'a> {
    namespace: &'a TestNamespace,
    name: String,
    uid: String,
    bootstrap: Token,
}

impl<'a> Scene<'a> {
    async fn set(namespace: &'a TestNamespace) -> anyhow::Result<Self> {
        let pod = pod(namespace, "process").await?;
        Ok(Self {
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().context("a pod without a UID")?,
            bootstrap: namespace.token("default", Some(&pod)).await?,
            namespace,
        })
    }

    async fn may_mint(&self) -> anyhow::Result<()> {
        let rule =
            json!({"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]});
        self.namespace.allow(json!([rule])).await
    }

    /// The reason code of the first try, or how it ended.
    async fn says(&self, pod: (&str, &str), bootstrap: &Token) -> anyhow::Result<String> {
        let closing = first_try(self.namespace, pod, bootstrap, &[]).await?;
        let status = closing.response_status.map(|status| status.reason);
        let outcome = closing.annotations.get("tollgate.dev/outcome").cloned();
        Ok(status
            .filter(|reason| !reason.is_empty())
            .or(outcome)
            .unwrap_or_default())
    }

    async fn own(&self) -> anyhow::Result<String> {
        self.says((&self.name, &self.uid), &self.bootstrap).await
    }
}

/// A pod that no scheduler takes.
async fn pod(namespace: &TestNamespace, name: &str) -> anyhow::Result<Pod> {
    AgentPod::new(name, &namespace.cluster.config.agent_image)
        .spec("schedulerName", json!("nobody"))
        .create(namespace)
        .await?
        .pod()
        .await
}

#[tokio::test]
async fn each_refusal_of_the_api_server_has_its_reason() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let scene = Scene::set(namespace).await?;
        assert_eq!(
            scene.own().await?,
            "mint-forbidden",
            "without a RoleBinding"
        );
        scene.may_mint().await?;
        let granted = async {
            while scene.own().await? == "mint-forbidden" {}
            anyhow::Ok(())
        };
        tokio::time::timeout(wait::LIMIT, granted).await??;
        assert_eq!(scene.own().await?, "unused", "the first mint");

        let other = "11111111-2222-3333-4444-555555555555";
        for (what, pod) in [
            ("a pod with another UID", (&*scene.name, other)),
            ("a pod that is gone", ("gone", other)),
        ] {
            assert_eq!(
                scene.says(pod, &scene.bootstrap).await?,
                "mint-target-gone",
                "{what}"
            );
        }
        let garbage = Token::parse("sesame.open.now")?;
        let dead = {
            let pod = pod(namespace, "dead").await?;
            let token = namespace.token("default", Some(&pod)).await?;
            let name = pod.metadata.name.context("a pod without a name")?;
            let now = DeleteParams::default().grace_period(0);
            namespace.pods().delete(&name, &now).await?;
            wait::until(namespace.pods(), &name, "the pod is gone", |pod| {
                pod.is_none()
            })
            .await?;
            token
        };
        let foreign = foreign(namespace).await?;
        for (what, bootstrap) in [
            ("garbage", garbage),
            ("a token of a dead pod", dead),
            ("a token for another audience", foreign),
        ] {
            let own = (&*scene.name, &*scene.uid);
            assert_eq!(
                scene.says(own, &bootstrap).await?,
                "mint-credential-rejected",
                "{what}"
            );
        }
        Ok(())
    })
    .await
}

/// A token of the service account that is not for the API server.
async fn foreign(namespace: &TestNamespace) -> anyhow::Result<Token> {
    let request = TokenRequest {
        spec: serde_json::from_value(json!({"audiences": ["vault"], "expirationSeconds": 600}))?,
        ..TokenRequest::default()
    };
    let answer = namespace
        .api::<ServiceAccount>()
        .create_token_request("default", &PostParams::default(), &request)
        .await?;
    Ok(Token::parse(&answer.status.context("no status")?.token)?)
}
