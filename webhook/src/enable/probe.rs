//! Asks the API server for a token that the token guard gives to nobody. The policy's objects may stand in etcd before an API
//! server has compiled them; only a denial shows that the guard is in force.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use tollgate_shared::contract::SYSTEM_NAMESPACE;

/// A service account without any right, for whom the guard denies every token.
const ACCOUNT: &str = "tollgate-guard-probe";
/// Head of the guard's answer (`manifests/base/policies/token-guard.yaml`).
const ANSWER: &str = "token-guard-probe";

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The guard denied.
    Answered,
    /// Nobody denied: the guard is not in force. The token is dropped unread; it has no rights.
    Silent,
    /// Something else happened, which says nothing about the guard.
    Unknown,
}

/// Asks once.
pub(crate) async fn probe(client: &Client) -> Probe {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(600),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let params = PostParams::default();
    let asked = accounts.create_token_request(ACCOUNT, &params, &request);
    match asked.await {
        Ok(_) => Probe::Silent,
        Err(kube::Error::Api(status)) if status.message.contains(ANSWER) => Probe::Answered,
        Err(error) => {
            tracing::warn!(%error, "cannot ask whether the token guard is in force");
            Probe::Unknown
        }
    }
}
