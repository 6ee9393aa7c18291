//! Looks at a live cluster: the only part of `check` that asks it anything. With the rights of whoever calls it, as kubectl.

use http::Request;
use http::header::ACCEPT;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tollgate_shared::contract::{SETTINGS, SYSTEM_NAMESPACE, WEBHOOK_NAME};

use super::finding::{Finding, Level};
use super::snapshot::{Kind, Snapshot, Wanted};
use super::{Report, render};
use crate::cli::Check;
use crate::client;
use crate::config::{self, Parts};
use crate::inject::{InjectConfig, is_label};

/// Objects in one answer.
const PAGE: u32 = 500;

/// The cluster could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum BadCluster {
    /// The arguments cannot be used.
    #[error("{0}")]
    Arguments(String),
    /// There is no kubeconfig that could be used.
    #[error("no cluster to look at: {0}; set KUBECONFIG, or give --kubeconfig and --context")]
    Kubeconfig(#[from] KubeconfigError),
    /// The cluster cannot be asked.
    #[error("cannot look at the cluster: {0}")]
    Client(Box<kube::Error>),
    /// The namespace is not there.
    #[error("there is no namespace {0}")]
    NoNamespace(String),
}

impl From<kube::Error> for BadCluster {
    fn from(error: kube::Error) -> Self {
        Self::Client(Box::new(error))
    }
}

/// Looks at one namespace and judges it.
///
/// # Errors
/// Bad arguments, or a cluster that cannot be asked. What may not be listed is a finding.
pub async fn check_namespace(namespace: &str, arguments: &Check) -> Result<Report, BadCluster> {
    if !is_label(namespace) {
        let text = format!("--namespace {namespace:?} is no name of a namespace");
        return Err(BadCluster::Arguments(text));
    }
    let config = match arguments.config.as_slice() {
        [] => None,
        paths => {
            let bad = |faults: Vec<String>| BadCluster::Arguments(faults.join("; "));
            Some(config::read(paths).map_err(bad)?)
        }
    };
    let client = connect(arguments).await?;
    let snapshot = look(&client, namespace, config).await?;
    let wanted = Wanted {
        all: arguments.all,
        trust: arguments.trust.clone(),
    };
    let findings = snapshot.judge(&wanted);
    let count = |level| {
        findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    };
    let (errors, warnings) = (count(Level::Error), count(Level::Warn));
    let left_out = match wanted.all {
        true => "",
        false => "; what the control plane's own accounts may do is left out (--all shows it)",
    };
    Ok(Report {
        text: render(&findings, arguments.output, |finding: &Finding| {
            format!("{finding}\n")
        }),
        summary: format!("namespace {namespace}: errors {errors}, warnings {warnings}{left_out}\n"),
        is_good: errors + warnings == 0,
    })
}

/// A client as kubectl would make it; never the service account of a pod.
async fn connect(arguments: &Check) -> Result<Client, BadCluster> {
    let options = KubeConfigOptions {
        context: arguments.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = match &arguments.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)?;
            kube::Config::from_custom_kubeconfig(file, &options).await?
        }
        None => kube::Config::from_kubeconfig(&options).await?,
    };
    Ok(client::named(config)?)
}

async fn look(
    client: &Client,
    namespace: &str,
    config: Option<InjectConfig>,
) -> Result<Snapshot, BadCluster> {
    let found = Api::<Namespace>::all(client.clone())
        .get_opt(namespace)
        .await?;
    let found = found.ok_or_else(|| BadCluster::NoNamespace(namespace.to_owned()))?;
    let mut snapshot = Snapshot {
        namespace: found,
        config: Some(match config {
            Some(config) => Ok(config),
            None => deployed(client).await?,
        }),
        ..Snapshot::default()
    };
    for kind in Kind::ALL {
        let list = seen(list(client, kind, namespace).await)?;
        snapshot.lists.insert(kind, list);
    }
    Ok(snapshot)
}

/// What may not be looked at, or is not there, is a finding; a cluster that does not answer is an error.
fn seen<T>(result: kube::Result<T>) -> Result<Result<T, String>, BadCluster> {
    match result {
        Ok(found) => Ok(Ok(found)),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
            Ok(Err(format!("{} {}", status.code, status.reason)))
        }
        Err(error) => Err(error.into()),
    }
}

/// The configuration that the webhook reads.
async fn deployed(client: &Client) -> Result<Result<InjectConfig, String>, BadCluster> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let mut parts = Parts::new();
    let mut faults = Vec::new();
    for name in [WEBHOOK_NAME, SETTINGS] {
        match seen(maps.get_opt(name).await)? {
            Ok(Some(map)) => match config::of_config_map(name, &map) {
                Ok(found) => parts.extend(found),
                Err(found) => faults.extend(found),
            },
            Ok(None) if name == SETTINGS => {}
            Ok(None) => return Ok(Err("404 NotFound".to_owned())),
            Err(error) => return Ok(Err(error)),
        }
    }
    let config = config::parse(&parts).map_err(|found| faults.extend(found));
    Ok(match config {
        Ok(config) if faults.is_empty() => Ok(config),
        _ => Err(faults.join("; ")),
    })
}

/// All objects of a kind, page by page.
async fn list(client: &Client, kind: Kind, namespace: &str) -> kube::Result<Vec<Value>> {
    let (group, resource, is_namespaced) = kind.resource();
    let place = match is_namespaced {
        true => format!("namespaces/{namespace}/{resource}"),
        false => resource.to_owned(),
    };
    let (selector, accept) = match kind {
        // The content of a Secret is nobody's business here.
        Kind::TokenSecrets => (
            "&fieldSelector=type%3Dkubernetes.io%2Fservice-account-token",
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        ),
        _ => ("", "application/json"),
    };
    let mut objects = Vec::new();
    let mut next = String::new();
    loop {
        let path = format!("/{group}/{place}?limit={PAGE}{selector}{next}");
        let request = Request::get(path).header(ACCEPT, accept).body(Vec::new());
        let mut page: Value = client
            .request(request.map_err(kube::Error::HttpError)?)
            .await?;
        if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
            objects.extend(items);
        }
        match page.pointer("/metadata/continue").and_then(Value::as_str) {
            Some(token) if !token.is_empty() => {
                next = format!("&continue={}", utf8_percent_encode(token, NON_ALPHANUMERIC))
            }
            _ => return Ok(objects),
        }
    }
}
