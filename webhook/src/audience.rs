//! The API server's own audiences, as our own token names them: the parameter of the audience guard, and what no agent may have
//! a token for. The token is read for its claims only and shown to nobody.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::json;
use tollgate_shared::contract::{PART_OF, SERVICE_ACCOUNT_PATH, SYSTEM_NAMESPACE};

/// Name of the ConfigMap, and the key with one audience a line; `manifests/base/policies/audience-guard.yaml` reads them.
const CONFIG_MAP: &str = "tollgate-guard";
const KEY: &str = "audiences";

/// How often the ConfigMap is looked at.
const PERIOD: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Claims {
    aud: Audiences,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

/// The audiences of our own token; empty outside of a pod.
#[must_use]
pub fn own() -> Vec<String> {
    let token = std::fs::read_to_string(Path::new(SERVICE_ACCOUNT_PATH).join("token"));
    token
        .ok()
        .and_then(|token| audiences(&token))
        .unwrap_or_default()
}

/// The `aud` claim of a JWT.
fn audiences(token: &str) -> Option<Vec<String>> {
    let payload = token.trim().split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    Some(match claims.aud {
        Audiences::One(audience) => vec![audience],
        Audiences::Many(audiences) => audiences,
    })
}

/// Keeps the audience guard's parameter as our own token says, for ever.
pub async fn run(client: Client) {
    loop {
        let audiences = own();
        if audiences.is_empty() {
            tracing::warn!(
                "our own token names no audience: the parameter of the audience guard is left alone"
            );
        } else if let Err(error) = ensure(&client, &audiences.join("\n")).await {
            tracing::error!(%error, "cannot write the ConfigMap {CONFIG_MAP}: while it is missing, tokens in managed namespaces are denied");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn ensure(client: &Client, audiences: &str) -> kube::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let data = [(KEY.to_owned(), audiences.to_owned())].into();
    match maps.get_opt(CONFIG_MAP).await? {
        Some(found) if found.data.as_ref() == Some(&data) => return Ok(()),
        Some(found) => {
            let mut members: serde_json::Map<String, serde_json::Value> = found
                .data
                .unwrap_or_default()
                .into_keys()
                .map(|key| (key, serde_json::Value::Null))
                .collect();
            members.insert(KEY.to_owned(), audiences.into());
            let patch = Patch::Merge(json!({ "data": members }));
            maps.patch(CONFIG_MAP, &PatchParams::default(), &patch)
                .await?;
        }
        None => {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(CONFIG_MAP.to_owned()),
                    labels: Some([(PART_OF.0.to_owned(), PART_OF.1.to_owned())].into()),
                    ..ObjectMeta::default()
                },
                data: Some(data),
                ..ConfigMap::default()
            };
            match maps.create(&PostParams::default(), &map).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                created => drop(created?),
            }
        }
    }
    tracing::info!("wrote the parameter of the audience guard");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_claim_and_nothing_else() {
        let token = |claims: &str| format!("e30.{}.sig\n", URL_SAFE_NO_PAD.encode(claims));
        for (text, wanted) in [
            (token(r#"{"aud":["a","b"]}"#), Some(vec!["a", "b"])),
            (token(r#"{"aud":"a"}"#), Some(vec!["a"])),
            (token("{}"), None),
            (token("x"), None),
            ("a".to_owned(), None),
            (String::new(), None),
        ] {
            let wanted = wanted.map(|list| list.into_iter().map(str::to_owned).collect());
            assert_eq!(audiences(&text), wanted, "{text}");
        }
    }
}
