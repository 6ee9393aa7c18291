//! The sidecar as a process beside the cluster, for a pod that exists and never runs. Its records go to a file, as they go to a
//! container's log.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;
use tempfile::TempDir;
use tollgate_e2e::agent::{AGENT, AgentPod};
use tollgate_e2e::namespace::TestNamespace;
use tollgate_shared::record::{Stage, parse};
use tollgate_shared::secret::Token;

use crate::way::{Protocol, Target, Way};

/// Longest wait for the process to be ready.
const START: Duration = Duration::from_secs(60);

pub(crate) struct Sidecar {
    child: Child,
    folder: TempDir,
    target: Target,
}

/// What the records say about calls.
#[derive(Default)]
pub(crate) struct Shares {
    /// Of calls that waited for their mint.
    pub(crate) mint: Vec<Duration>,
    pub(crate) upstream: Vec<Duration>,
    /// From the request to the closing line, without the two.
    pub(crate) own: Vec<Duration>,
    /// The same of calls whose token was minted ahead.
    pub(crate) own_ahead: Vec<Duration>,
}

impl Sidecar {
    /// For a pod of its own, which is named after when it mints.
    pub(crate) async fn start(
        program: &Path,
        namespace: &TestNamespace,
        (api_server, ca_pem): (&str, &str),
        mint: &str,
    ) -> anyhow::Result<Self> {
        let pod = AgentPod::new(mint, "bench")
            .spec("schedulerName", json!("nobody"))
            .create(namespace)
            .await?
            .pod()
            .await?;
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        for name in ["bootstrap", "agent", "state"] {
            fs::create_dir(path(name))?;
        }
        let bootstrap = namespace.token("default", Some(&pod)).await?;
        fs::write(path("bootstrap/token"), bootstrap.expose())?;
        fs::write(path("bootstrap/ca.crt"), ca_pem)?;
        let (port, admin_port) = (free_port()?, free_port()?);
        let child = Command::new(program)
            .arg("run")
            .args(["--port", &port.to_string()])
            .args(["--admin-port", &admin_port.to_string()])
            .args(["--containers", AGENT, "--namespace", &namespace.name])
            .args(["--pod-name", mint, "--pod-service-account", "default"])
            .args(["--mint", mint])
            .args([
                "--pod-uid",
                &pod.metadata.uid.context("a pod without a UID")?,
            ])
            .args(["--api-server", &format!("https://{api_server}")])
            .arg("--bootstrap-dir")
            .arg(path("bootstrap"))
            .arg("--agent-dir")
            .arg(path("agent"))
            .arg("--state-dir")
            .arg(path("state"))
            .env_clear()
            .stdout(File::create(path("records"))?)
            .stderr(File::create(path("log"))?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut sidecar = Self {
            child,
            target: Target {
                authority: format!("127.0.0.1:{port}").parse()?,
                ca_pem: None,
                bearer: None,
            },
            folder,
        };
        sidecar.ready(program, admin_port)?;
        let files = sidecar.folder.path().join("agent").join(AGENT);
        sidecar.target.ca_pem = Some(fs::read_to_string(files.join("ca.crt"))?);
        sidecar.target.bearer = Some(Token::parse(&fs::read_to_string(files.join("token"))?)?);
        Ok(sidecar)
    }

    /// Waits as the kubelet's startup probe does.
    fn ready(&mut self, program: &Path, admin_port: u16) -> anyhow::Result<()> {
        let probe = Command::new(program)
            .args(["probe", "--admin-port", &admin_port.to_string()])
            .args(["--timeout", &format!("{}s", START.as_secs())])
            .stderr(Stdio::null())
            .status()?;
        if !probe.success() {
            let log = fs::read_to_string(self.folder.path().join("log"))?;
            bail!("the sidecar is not ready:\n{log}");
        }
        Ok(())
    }

    pub(crate) const fn target(&self) -> &Target {
        &self.target
    }

    /// Resident memory, as the kernel counts it.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(number.context("no VmRSS in /proc")?.trim().parse()?)
    }

    /// Opens watches, each with its first event.
    pub(crate) async fn watches(
        &self,
        count: usize,
        namespace: &str,
    ) -> anyhow::Result<Vec<(Way<'_>, Incoming)>> {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps?watch=1");
        let mut watches = Vec::new();
        for _ in 0..count {
            let mut way = Way::open(&self.target, Protocol::Http1).await?;
            let mut body = way.begin(&path).await?.into_body();
            body.frame().await.context("a watch without an event")??;
            watches.push((way, body));
        }
        Ok(watches)
    }

    /// Ends the process and reads what it recorded of the calls of this path.
    pub(crate) fn end(mut self, path: &str) -> anyhow::Result<Shares> {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status()?;
        ensure!(told.success(), "the sidecar has ended already");
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(begun.elapsed() < START, "the sidecar does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut shares = Shares::default();
        for line in fs::read_to_string(self.folder.path().join("records"))?.lines() {
            let event = parse(line)?;
            let notes = &event.annotations;
            let Some(upstream) = notes.upstream_seconds else {
                continue;
            };
            if event.stage == Stage::ResponseComplete && &*event.request_uri == path {
                let (begun, ended) = (event.request_received_timestamp, event.stage_timestamp);
                let total = Duration::from_micros(ended.micros().saturating_sub(begun.micros()));
                let upstream = seconds(upstream)?;
                shares.upstream.push(upstream);
                let Some(mint) = notes.mint_seconds else {
                    shares.own_ahead.push(total.saturating_sub(upstream));
                    continue;
                };
                let mint = seconds(mint)?;
                shares.mint.push(mint);
                shares.own.push(total.saturating_sub(mint + upstream));
            }
        }
        Ok(shares)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// As records write it: `0.003700`.
fn seconds(text: impl ToString) -> anyhow::Result<Duration> {
    Ok(Duration::try_from_secs_f64(text.to_string().parse()?)?)
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}
