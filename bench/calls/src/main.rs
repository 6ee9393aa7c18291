//! `make bench-calls`: what a call costs through the sidecar, beside a direct call and `kubectl proxy`, on the cluster of `KUBECONFIG`.
//! Prints `name=value` lines. Nothing here decides a test: a busy machine makes every number worse.

mod sidecar;
mod way;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::wait;
use tollgate_shared::contract::Injection;

use crate::sidecar::Sidecar;
use crate::way::{KubectlProxy, Protocol, Target, Way};

/// Ways are measured in turns, so that what else the machine does hits all of them.
const ROUNDS: usize = 10;
const CALLS_A_ROUND: usize = 50;
/// Calls a second of an agent that works steadily.
const STEADY: u32 = 100;
/// Calls of a burst, at once.
const BURST: usize = 32;

#[derive(Parser)]
struct Args {
    /// The release binary `tollgate-sidecar`
    sidecar: PathBuf,
    /// kubectl
    kubectl: PathBuf,
    /// Open watches
    #[arg(long, default_value_t = 500)]
    watches: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    TestNamespace::run(Some(Injection::OptIn), async |namespace| {
        measure(&args, namespace).await
    })
    .await
}

async fn measure(args: &Args, namespace: &TestNamespace) -> anyhow::Result<()> {
    namespace
        .allow(json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]))
        .await?;
    let root = wait::until(
        namespace.api::<ConfigMap>(),
        "kube-root-ca.crt",
        "the cluster's CA",
        |map| map.is_some(),
    )
    .await?
    .and_then(|map| map.data?.remove("ca.crt"));
    let ca_pem = root.context("a ConfigMap without the cluster's CA")?;
    let url = &namespace.cluster.connection.cluster_url;
    let authority = url.authority().context("an API server without address")?;

    let api_server = (authority.as_str(), &*ca_pem);
    let sidecar = Sidecar::start(&args.sidecar, namespace, api_server, "on-demand").await?;
    let ahead = Sidecar::start(&args.sidecar, namespace, api_server, "ahead").await?;
    print("binary_bytes", std::fs::metadata(&args.sidecar)?.len());
    print("idle_kib", sidecar.resident_kib()?);

    let direct = Target {
        authority: authority.clone(),
        ca_pem: Some(ca_pem.clone()),
        bearer: Some(namespace.token("default", None).await?),
    };
    let proxy = KubectlProxy::start(&args.kubectl, &namespace.cluster.config.kubeconfig)?;
    let path = format!(
        "/api/v1/namespaces/{}/configmaps/kube-root-ca.crt",
        namespace.name
    );
    let ways = [
        ("direct", &direct, Protocol::Http1),
        ("direct_http2", &direct, Protocol::Http2),
        ("kubectl_proxy", proxy.target(), Protocol::Http1),
        ("sidecar", sidecar.target(), Protocol::Http1),
    ];
    calls(&ways, &path).await?;
    steady(&direct, ahead.target(), &path).await?;
    let shares = ahead.end(&path)?;
    print("ahead_calls", shares.own_ahead.len());
    print("ahead_late_calls", shares.own.len());
    print("ahead_upstream_ms", millis(median(shares.upstream)?));
    print("ahead_own_share_ms", millis(median(shares.own_ahead)?));
    // Spelled otherwise, so that its records do not count for the shares: there calls wait for each other.
    bursts(&ways, &format!("{path}?pretty=false")).await?;
    let watches = sidecar.watches(args.watches, &namespace.name).await?;
    print("watches", watches.len());
    print("watches_kib", sidecar.resident_kib()?);
    drop(watches);
    let shares = sidecar.end(&path)?;
    print("recorded_calls", shares.own.len());
    print("mint_ms", millis(median(shares.mint)?));
    print("upstream_ms", millis(median(shares.upstream)?));
    print("own_share_ms", millis(median(shares.own)?));
    Ok(())
}

/// One call after the other, on one connection.
async fn calls(ways: &[(&str, &Target, Protocol)], path: &str) -> anyhow::Result<()> {
    let mut open = Vec::new();
    for (name, target, protocol) in ways {
        let mut way = Way::open(target, *protocol).await?;
        way.get(path).await?;
        open.push((*name, way, Vec::new()));
    }
    for _ in 0..ROUNDS {
        for (_, way, took) in &mut open {
            for _ in 0..CALLS_A_ROUND {
                let begun = Instant::now();
                way.get(path).await?;
                took.push(begun.elapsed());
            }
        }
    }
    print("calls", ROUNDS * CALLS_A_ROUND);
    for (name, _, took) in open {
        print(&format!("{name}_ms"), millis(median(took)?));
    }
    Ok(())
}

/// As many calls a second as an agent that mints ahead makes, and as many direct ones between them.
async fn steady(direct: &Target, ahead: &Target, path: &str) -> anyhow::Result<()> {
    let mut direct = (Way::open(direct, Protocol::Http1).await?, Vec::new());
    let mut ahead = (Way::open(ahead, Protocol::Http1).await?, Vec::new());
    let mut tick = tokio::time::interval(Duration::from_secs(1) / STEADY);
    for _ in 0..ROUNDS * CALLS_A_ROUND {
        tick.tick().await;
        for (way, took) in [&mut direct, &mut ahead] {
            let begun = Instant::now();
            way.get(path).await?;
            took.push(begun.elapsed());
        }
    }
    let (direct, ahead) = (median(direct.1)?, median(ahead.1)?);
    print("steady_direct_ms", millis(direct));
    print("steady_ahead_ms", millis(ahead));
    print("steady_added_ms", millis(ahead.saturating_sub(direct)));
    Ok(())
}

/// Many calls at once: HTTP/1.1 on a connection each, HTTP/2 on one.
async fn bursts(ways: &[(&str, &Target, Protocol)], path: &str) -> anyhow::Result<()> {
    let mut open = Vec::new();
    for (name, target, protocol) in ways {
        let connections = Way::open_many(target, *protocol, BURST).await?;
        open.push((*name, connections, Vec::new()));
    }
    for _ in 0..ROUNDS {
        for (_, connections, took) in &mut open {
            let begun = Instant::now();
            try_join_all(connections.iter_mut().map(|way| way.get(path))).await?;
            took.push(begun.elapsed());
        }
    }
    print("burst", BURST);
    for (name, _, took) in open {
        print(&format!("{name}_burst_ms"), millis(median(took)?));
    }
    Ok(())
}

fn median(mut values: Vec<Duration>) -> anyhow::Result<Duration> {
    values.sort_unstable();
    values
        .get(values.len() / 2)
        .copied()
        .context("nothing was measured")
}

fn millis(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64() * 1000.0)
}

#[expect(clippy::print_stdout, reason = "the numbers are the program's output")]
fn print(name: &str, value: impl std::fmt::Display) {
    println!("{name}={value}");
}
