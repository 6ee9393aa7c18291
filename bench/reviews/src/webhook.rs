//! The webhook as a process of its own, with certificates of ours and without an API server: reviews need none.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tollgate_shared::tls;

const NAME: &str = "tollgate-webhook.tollgate-system.svc";

/// Time for the process to listen.
const START: Duration = Duration::from_secs(20);

/// The running process; it ends with this value.
pub(crate) struct Webhook {
    child: Child,
    address: SocketAddr,
    connector: TlsConnector,
    _files: TempDir,
}

/// Memory of the process, in KiB.
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) highest: u64,
}

impl Webhook {
    pub(crate) async fn start(program: &Path) -> anyhow::Result<Self> {
        let files = TempDir::new()?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([NAME.to_owned()])?
            .self_signed(&key)?
            .pem();
        let write = |name: &str, text: &str| {
            let path = files.path().join(name);
            fs::write(&path, text).map(|()| path)
        };
        write("tls.crt", &certificate)?;
        write("tls.key", &key.serialize_pem())?;
        let config = write(
            "release.yaml",
            "image: registry.example/tollgate-sidecar@sha256:1\n",
        )?;
        let kubeconfig = write("kubeconfig", KUBECONFIG)?;
        let address = free_address()?;
        let child = Command::new(program)
            .args(["run", "--config"])
            .arg(config)
            .arg("--certificate-dir")
            .arg(files.path())
            .args(["--address", &address.to_string()])
            .args(["--admin-address", "127.0.0.1:0", "--log-level", "error"])
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .env("GLIBC_TUNABLES", tunables())
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let config = tls::client_config(certificate.as_bytes(), &[tls::HTTP_1_1])?;
        let webhook = Self {
            child,
            address,
            connector: TlsConnector::from(Arc::new(config)),
            _files: files,
        };
        let listening = async {
            while webhook.connect().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(START, listening).await.is_err() {
            bail!("{} does not listen", program.display());
        }
        Ok(webhook)
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        Ok(self.connector.connect(NAME.try_into()?, tcp).await?)
    }

    /// CPU time so far, of all threads, in user and kernel (proc(5): fields 14 and 15 of `stat`, in ticks of 10 ms).
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = self.proc("stat")?;
        let (_, fields) = stat.rsplit_once(')').context("no such stat")?;
        let ticks: Vec<u64> = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 10))
    }

    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let status = self.proc("status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.with_context(|| format!("no {name} in status"))
        };
        Ok(Memory {
            resident: field("VmRSS:")?,
            highest: field("VmHWM:")?,
        })
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let id = self.child.id().context("the webhook has ended")?;
        Ok(fs::read_to_string(format!("/proc/{id}/{file}"))?)
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// How the Deployment has malloc tuned.
fn tunables() -> &'static str {
    let manifest = include_str!("../../../manifests/base/webhook-deployment.yaml");
    let values = manifest.lines().map(str::trim_start);
    let mut values = values.filter_map(|line| line.strip_prefix("value: "));
    let found = values.find(|value| value.starts_with("glibc.malloc"));
    found.unwrap_or_default()
}

/// An API server where nobody listens.
const KUBECONFIG: &str = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "none",
 "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
 "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}],
 "users": [{"name": "none", "user": {}}]}"#;
