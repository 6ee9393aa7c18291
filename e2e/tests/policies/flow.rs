//! TokenRequests of service accounts have a share of the API server of their own.

use http::Request;
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use kube::api::Api;
use kube::client::Body;
use kube::{Client, ResourceExt as _};
use tollgate_e2e::namespace::TestNamespace;

use crate::actor::{account, impersonate};

/// The flow schema by which the API server took a request; nobody needs rights for that.
async fn schema_of(client: &Client, path: &str) -> anyhow::Result<String> {
    let request = Request::post(path)
        .header("Content-Type", "application/json")
        .body(Body::from(b"{}".to_vec()))?;
    let answer = client.send(request).await?;
    let schema = answer.headers().get("x-kubernetes-pf-flowschema-uid");
    let schema = schema.ok_or_else(|| anyhow::anyhow!("the API server named no flow schema"))?;
    Ok(schema.to_str()?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn mints_have_a_share_of_their_own() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let schema = Api::<FlowSchema>::all(namespace.client())
            .get("tollgate-mint")
            .await?;
        let user = account(&namespace.name, "default");
        let client = impersonate(&namespace.cluster, &user, &[], &[])?;
        let core = format!("/api/v1/namespaces/{}", namespace.name);
        let mint = format!("{core}/serviceaccounts/default/token");
        let uid = schema.uid().unwrap_or_default();
        assert_eq!(schema_of(&client, &mint).await?, uid);
        let other = format!("{core}/configmaps");
        assert_ne!(schema_of(&client, &other).await?, uid, "only mints");
        Ok(())
    })
    .await
}
