//! Clients of the API server that say who asks. By the user agent its audit log knows us, and the API server takes from it the field
//! manager of what we write.

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::{Client, Config, Error, Result};

const NAME: HeaderValue =
    HeaderValue::from_static(concat!("tollgate-webhook/", env!("CARGO_PKG_VERSION")));

/// With the pod's service account, or as kubectl outside of a cluster.
pub(crate) async fn default() -> Result<Client> {
    named(Config::infer().await.map_err(Error::InferConfig)?)
}

/// As this configuration says.
pub(crate) fn named(mut config: Config) -> Result<Client> {
    config.headers.push((USER_AGENT, NAME));
    Client::try_from(config)
}
