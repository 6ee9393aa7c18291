//! The audience guard, as a copy with a parameter of its own.

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::DeleteParams;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tollgate_e2e::namespace::TestNamespace;

use crate::actor::{allow_everywhere, bearer, impersonate, may_request_tokens};
use crate::fixture::{
    accounts, api_audiences, audiences_known, copy_policy, grant, manage, mint, parameter, pod,
    reference, token_request,
};
use crate::want::{Want, want};

const POLICY: &str = include_str!("../../../manifests/base/policies/audience-guard.yaml");
const BINDING: &str = include_str!("../../../manifests/base/policies/audience-guard-binding.yaml");

fn asking(pod: &Pod, audiences: &[&str]) -> TokenRequest {
    let uid = pod.uid();
    let mut request = token_request(Some(reference("Pod", &pod.name_any(), uid.as_deref())));
    request.spec.audiences = audiences.iter().copied().map(str::to_owned).collect();
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_api_servers_own_audiences() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        audiences_known(namespace).await?;
        accounts(namespace, &["agent"]).await?;
        let own = pod("own", json!({"serviceAccountName": "agent"}))?;
        let own = namespace.create_object(&own).await?;
        let token = mint(
            &namespace.client(),
            &namespace.name,
            "agent",
            &asking(&own, &[]),
        )
        .await?;
        let agent = bearer(&namespace.cluster, &token)?;
        let audiences = api_audiences(namespace).await?;
        let [audience] = audiences.as_slice() else {
            anyhow::bail!("this API server has several audiences: {audiences:?}");
        };
        grant(namespace).await?;
        manage(namespace, Some("enabled")).await?;
        parameter(namespace, &format!("{audience}\nhttps://second.example\n")).await?;
        copy_policy(namespace, POLICY, BINDING).await?;

        let kubelet = format!("{}:kubelet", namespace.name);
        allow_everywhere(namespace, &kubelet, json!([may_request_tokens()])).await?;
        let kubelet = impersonate(&namespace.cluster, &kubelet, &["system:nodes"], &[])?;
        let admin = namespace.client();

        let case = async |what: &str, client: &Client, audiences: &[&str], wanted: Want| {
            want(what, wanted, async || {
                mint(client, &namespace.name, "agent", &asking(&own, audiences)).await
            })
            .await
        };
        let refused = Want::Refused("token-audience");
        case(
            "a cloud's audience",
            &agent,
            &["sts.amazonaws.com"],
            refused,
        )
        .await?;
        case(
            "none: the API server fills in its own",
            &agent,
            &[],
            Want::Success,
        )
        .await?;
        case("its own, named", &agent, &[audience], Want::Success).await?;
        case(
            "its own and a cloud's",
            &agent,
            &[audience, "sts.amazonaws.com"],
            refused,
        )
        .await?;
        case(
            "a kubelet, for a projected volume",
            &kubelet,
            &["istio-ca"],
            Want::Success,
        )
        .await?;
        case("an administrator", &admin, &["istio-ca"], Want::Success).await?;

        parameter(namespace, "\n").await?;
        case("an empty parameter allows nothing", &agent, &[], refused).await?;
        case(
            "but a kubelet is not concerned",
            &kubelet,
            &[],
            Want::Success,
        )
        .await?;

        // Why the token guard has no parameter, and why this one is bound to managed namespaces only.
        namespace
            .api::<ConfigMap>()
            .delete("tollgate-guard", &DeleteParams::default())
            .await?;
        for (what, client) in [
            ("an agent", &agent),
            ("a kubelet", &kubelet),
            ("an administrator", &admin),
        ] {
            let what = format!("without a parameter: {what}");
            let missing = "failed to configure binding";
            case(&what, client, &[], Want::Refused(missing)).await?;
        }
        Ok(())
    })
    .await
}
