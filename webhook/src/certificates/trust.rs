//! The `caBundle` of our own webhook configurations, and a look at our own listener with the eyes of the API server.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::api::{Patch, PatchParams};
use kube::core::ClusterResourceScope;
use kube::{Api, Client};
use rustls_pki_types::ServerName;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tollgate_shared::contract::WEBHOOK_NAME;
use tollgate_shared::tls;

use super::{CertificateError, api};

const PROBE: Duration = Duration::from_secs(5);

/// What was found in our webhook configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// Both trust the bundle.
    Stood,
    /// One did not: API servers see the change a moment later.
    Written,
    /// One is not there.
    Missing,
}

/// Makes both webhook configurations trust `bundle`.
pub(super) async fn ensure(client: &Client, bundle: &str) -> Result<Trust, CertificateError> {
    let mutating = ensure_one::<MutatingWebhookConfiguration>(client, bundle).await?;
    let validating = ensure_one::<ValidatingWebhookConfiguration>(client, bundle).await?;
    Ok(mutating.max(validating))
}

/// Every `caBundle` of both webhook configurations; `None` while one is missing.
pub(super) async fn bundles(client: &Client) -> Result<Option<BTreeSet<String>>, CertificateError> {
    let found = (
        read::<MutatingWebhookConfiguration>(client).await?,
        read::<ValidatingWebhookConfiguration>(client).await?,
    );
    let (Some(mutating), Some(validating)) = found else {
        return Ok(None);
    };
    let entries = mutating.entries().into_iter().chain(validating.entries());
    Ok(entries
        .map(|(_, bundle)| bundle.map(|bundle| String::from_utf8_lossy(&bundle.0).into_owned()))
        .collect())
}

/// What matters of a webhook configuration: the `caBundle` of each of its entries, by name.
trait Entries {
    fn entries(&self) -> Vec<(&str, Option<&ByteString>)>;
}

impl Entries for MutatingWebhookConfiguration {
    fn entries(&self) -> Vec<(&str, Option<&ByteString>)> {
        let entries = self.webhooks.iter().flatten();
        entries
            .map(|entry| (entry.name.as_str(), entry.client_config.ca_bundle.as_ref()))
            .collect()
    }
}

impl Entries for ValidatingWebhookConfiguration {
    fn entries(&self) -> Vec<(&str, Option<&ByteString>)> {
        let entries = self.webhooks.iter().flatten();
        entries
            .map(|entry| (entry.name.as_str(), entry.client_config.ca_bundle.as_ref()))
            .collect()
    }
}

/// One of the two kinds.
trait Configuration:
    kube::Resource<DynamicType = (), Scope = ClusterResourceScope>
    + Entries
    + Clone
    + DeserializeOwned
    + Debug
{
}
impl Configuration for MutatingWebhookConfiguration {}
impl Configuration for ValidatingWebhookConfiguration {}

async fn read<K: Configuration>(client: &Client) -> Result<Option<K>, CertificateError> {
    let configurations: Api<K> = Api::all(client.clone());
    let found = configurations.get_opt(WEBHOOK_NAME).await;
    found.map_err(api("cannot read our webhook configuration"))
}

async fn ensure_one<K: Configuration>(
    client: &Client,
    bundle: &str,
) -> Result<Trust, CertificateError> {
    let Some(found) = read::<K>(client).await? else {
        tracing::warn!(kind = %K::kind(&()), "our webhook configuration is not there: nothing is injected");
        return Ok(Trust::Missing);
    };
    let Some(patch) = patch(&found.entries(), bundle) else {
        return Ok(Trust::Stood);
    };
    // By name: the entries of a patch are merged into those of the same name (patchMergeKey of `webhooks`).
    let patch = Patch::Strategic(patch);
    let configurations: Api<K> = Api::all(client.clone());
    let patched = configurations
        .patch(WEBHOOK_NAME, &PatchParams::default(), &patch)
        .await;
    patched.map_err(api(
        "cannot write the caBundle of our webhook configuration",
    ))?;
    tracing::info!(kind = %K::kind(&()), "wrote the caBundle of our webhook configuration");
    Ok(Trust::Written)
}

/// What to change so that every entry trusts `bundle` and nothing else; `None` if all do.
fn patch(entries: &[(&str, Option<&ByteString>)], bundle: &str) -> Option<Value> {
    let wanted = ByteString(bundle.as_bytes().to_vec());
    let stale: Vec<Value> = entries
        .iter()
        .filter(|(_, found)| *found != Some(&wanted))
        .map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": wanted}}))
        .collect();
    (!stale.is_empty()).then(|| json!({"webhooks": stale}))
}

/// Whether our own listener answers a client that trusts `bundle` only and calls it `name`, as the API server does.
pub(super) async fn probe(
    address: SocketAddr,
    name: &str,
    bundle: &str,
) -> Result<(), CertificateError> {
    let config = tls::client_config(bundle.as_bytes(), &[tls::HTTP_1_1])?;
    let connector = TlsConnector::from(Arc::new(config));
    let answered = tokio::time::timeout(PROBE, ask(connector, reachable(address), name)).await;
    answered
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(CertificateError::Listener)
}

async fn ask(connector: TlsConnector, address: SocketAddr, name: &str) -> io::Result<()> {
    let server = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let tcp = TcpStream::connect(address).await?;
    let mut tls = connector.connect(server, tcp).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).await?;
    tls.flush().await?;
    let mut head = [0; 9];
    tls.read_exact(&mut head).await?;
    if head == *b"HTTP/1.1 " {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Where an address is reached from within: the loopback, if it stands for all.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_stale_entries_only() {
        let (good, old) = (ByteString(b"new".to_vec()), ByteString(b"old".to_vec()));
        assert_eq!(patch(&[("a", Some(&good))], "new"), None);
        assert_eq!(patch(&[], "new"), None);
        let patch = patch(&[("a", Some(&good)), ("b", Some(&old)), ("c", None)], "new");
        assert_eq!(
            patch,
            Some(json!({"webhooks": [
                {"name": "b", "clientConfig": {"caBundle": "bmV3"}},
                {"name": "c", "clientConfig": {"caBundle": "bmV3"}},
            ]}))
        );
    }

    #[test]
    fn the_loopback_stands_for_all_addresses() {
        for (address, reached) in [
            ("[::]:1", "[::1]:1"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            assert_eq!(reachable(address.parse().unwrap()).to_string(), reached);
        }
    }
}
