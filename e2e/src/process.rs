//! The sidecar as a plain process beside the cluster, for what a container cannot show: a reader of its records that stops, the
//! tokens that it used, and everything that it wrote. It works for a pod that exists, with a token bound to that pod.

use std::ffi::OsString;
use std::io::{PipeReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::{Request, Response};
use kube::client::Body;
use serde_json::json;
use tollgate_shared::secret::Token;

use crate::agent::{AGENT, Agent, AgentPod};
use crate::namespace::TestNamespace;
use crate::program::{self, SIDECAR};
use crate::spy::{Seen, Spy};

pub mod refusal;
mod volumes;

use volumes::Volumes;

/// Longest wait for the process to be ready.
const START: Duration = Duration::from_secs(60);

/// A running sidecar.
pub struct Process {
    /// The pod that it works for, and does not run in.
    pub pod: Agent,
    /// Its records, to be read by the test.
    pub stdout: PipeReader,
    /// The local token of the agent.
    pub local_token: Token,
    /// The token that it mints with.
    pub bootstrap: Token,
    spy: Option<Spy>,
    client: kube::Client,
    running: Running,
    /// What a successor is started with.
    arguments: Vec<OsString>,
    /// Removed with the process.
    volumes: Volumes,
}

/// A process that is ready.
struct Running {
    child: Child,
    stderr: Collected,
    admin: kube::Client,
}

impl Process {
    /// Starts a sidecar with these further flags for a pod of a managed namespace, and waits until it is ready. A spy stands
    /// between it and the API server.
    ///
    /// # Errors
    /// It does not become ready; the message holds its log.
    pub async fn start(namespace: &TestNamespace, flags: &[&str]) -> anyhow::Result<Self> {
        let spy = Spy::start(namespace.cluster.client_as(None)?).await?;
        let (url, ca_pem) = (spy.url.clone(), spy.ca_pem.clone());
        Self::start_at(namespace, flags, &url, &ca_pem, Some(spy), None).await
    }

    /// The same without a spy, for many calls.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub async fn start_unseen(namespace: &TestNamespace, flags: &[&str]) -> anyhow::Result<Self> {
        let url = namespace.cluster.connection.cluster_url.to_string();
        let ca_pem = namespace.ca_pem().await?;
        Self::start_at(namespace, flags, &url, &ca_pem, None, None).await
    }

    /// The same for a pod that runs on this node, so that its token names the node and others may be bound to it.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub async fn start_on(
        namespace: &TestNamespace,
        node: &str,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let url = namespace.cluster.connection.cluster_url.to_string();
        let ca_pem = namespace.ca_pem().await?;
        let flags = [flags, &["--node-name", node]].concat();
        Self::start_at(namespace, &flags, &url, &ca_pem, None, Some(node)).await
    }

    async fn start_at(
        namespace: &TestNamespace,
        flags: &[&str],
        url: &str,
        ca_pem: &str,
        spy: Option<Spy>,
        node: Option<&str>,
    ) -> anyhow::Result<Self> {
        let pod = AgentPod::new("process", &namespace.cluster.config.agent_image);
        let pod = match node {
            Some(node) => pod.spec("nodeName", json!(node)),
            // No scheduler takes it, so no kubelet removes it.
            None => pod.spec("schedulerName", json!("nobody")),
        };
        let pod = pod.create(namespace).await?;
        let object = pod.pod().await?;
        let bootstrap = namespace.token("default", Some(&object)).await?;
        let volumes = Volumes::new(&bootstrap, ca_pem)?;
        let uid = object.metadata.uid.context("a pod without a UID")?;
        let own = [
            ("--port", "0"),
            ("--containers", AGENT),
            ("--namespace", &namespace.name),
            ("--pod-name", &pod.name),
            ("--pod-uid", &uid),
            ("--pod-service-account", "default"),
            ("--api-server", url),
        ];
        let own = own.into_iter().flat_map(|(flag, value)| [flag, value]);
        let given = own.chain(flags.iter().copied()).map(OsString::from);
        let arguments: Vec<_> = given.chain(volumes.flags()).collect();
        let (running, stdout) = run(&arguments, |_| Ok(())).await?;
        let local_token = volumes.local_token()?;
        let client = volumes.client(&local_token)?;
        Ok(Self {
            pod,
            stdout,
            local_token,
            bootstrap,
            spy,
            client,
            running,
            arguments,
            volumes,
        })
    }

    /// Kills the process as the kernel does when memory is short, and starts a successor on the same volumes. From here on
    /// [`Self::stdout`] is the successor's; what the one before wrote ends with it. `keep` gets it before the successor is ready:
    /// that first closes what was left open, which may be more than a pipe takes without a reader.
    ///
    /// # Errors
    /// The successor does not become ready; the message holds its log.
    pub async fn kill_and_restart(
        &mut self,
        keep: impl FnOnce(&PipeReader) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.running.child.kill()?;
        self.running.child.wait()?;
        (self.running, self.stdout) = run(&self.arguments, keep).await?;
        self.local_token = self.volumes.local_token()?;
        self.client = self.volumes.client(&self.local_token)?;
        Ok(())
    }

    /// What went through the spy so far; nothing where there is none.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.spy.as_ref().map(Spy::seen).unwrap_or_default()
    }

    /// A client as the agent makes it from its files.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Makes a call as the agent.
    ///
    /// # Errors
    /// There was no answer at all.
    pub async fn call(&self, request: Request<Body>) -> anyhow::Result<Response<Body>> {
        Ok(self.client.send(request).await?)
    }

    /// A client of the sidecar that shows another token than the agent's.
    ///
    /// # Errors
    /// The agent's files are gone.
    pub fn client_as(&self, token: &Token) -> anyhow::Result<kube::Client> {
        self.volumes.client(token)
    }

    /// A GET of a path as the agent; its HTTP status.
    ///
    /// # Errors
    /// There was no answer at all.
    pub async fn get(&self, path: &str) -> anyhow::Result<u16> {
        let answer = self.call(Request::get(path).body(Body::empty())?).await?;
        Ok(answer.status().as_u16())
    }

    /// A GET of a path of the admin port; the answer's body.
    ///
    /// # Errors
    /// There was no answer, or no text.
    pub async fn admin(&self, path: &str) -> anyhow::Result<String> {
        let answer = self
            .running
            .admin
            .send(Request::get(path).body(Body::empty())?)
            .await?;
        let body = answer.into_body().collect_bytes().await?;
        Ok(String::from_utf8(body.to_vec())?)
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn log(&self) -> String {
        text(&self.running.stderr)
    }

    /// Ends the process and returns what it wrote to standard error.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn end(&mut self) -> anyhow::Result<String> {
        let pid = self.running.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status()?;
        anyhow::ensure!(told.success(), "the sidecar has ended already");
        self.running.child.wait()?;
        Ok(self.log())
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("pod", &self.pod)
            .finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts the program and waits until it is ready.
async fn run(
    arguments: &[OsString],
    keep: impl FnOnce(&PipeReader) -> anyhow::Result<()>,
) -> anyhow::Result<(Running, PipeReader)> {
    let (stdout, writer) = std::io::pipe()?;
    keep(&stdout)?;
    let mut child = Command::new(program::path(SIDECAR)?)
        .args(["run", "--admin-port", "0"])
        .args(arguments)
        .env_clear()
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the sidecar")?;
    let stderr = collect(&mut child);
    let mut starting = Starting { child, stderr };
    let limit = tokio::time::timeout(START, starting.ready()).await;
    let in_time =
        limit.with_context(|| format!("the sidecar was not ready after {} s", START.as_secs()));
    match in_time.flatten() {
        Ok(admin) => {
            let Starting { child, stderr } = starting;
            let running = Running {
                child,
                stderr,
                admin,
            };
            Ok((running, stdout))
        }
        Err(error) => {
            drop(starting.child.kill());
            drop(starting.child.wait());
            bail!("{error}; the sidecar wrote:\n{}", text(&starting.stderr))
        }
    }
}

/// A process that is not ready yet.
struct Starting {
    child: Child,
    stderr: Collected,
}

impl Starting {
    /// Asks the admin port until it says yes, as the kubelet does. The sidecar chooses the port and logs it: one that a test
    /// chose might be taken by then.
    async fn ready(&mut self) -> anyhow::Result<kube::Client> {
        let mut admin = None;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the sidecar ended with {status}");
            }
            if admin.is_none() {
                admin = admin_port(&text(&self.stderr))
                    .map(admin_client)
                    .transpose()?;
            }
            if let Some(admin) = &admin {
                let answer = admin.send(Request::get("/readyz").body(Body::empty())?);
                if answer.await.is_ok_and(|answer| answer.status() == 200) {
                    return Ok(admin.clone());
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// From the line `listening` of the log.
fn admin_port(log: &str) -> Option<u16> {
    let (_, rest) = log.split_once("\"admin\":\"")?;
    let (address, _) = rest.split_once('"')?;
    address.rsplit(':').next()?.parse().ok()
}

fn admin_client(port: u16) -> anyhow::Result<kube::Client> {
    let url = format!("http://127.0.0.1:{port}").parse()?;
    Ok(kube::Client::try_from(kube::Config::new(url))?)
}

/// Standard error so far.
type Collected = Arc<Mutex<Vec<u8>>>;

fn text(collected: &Collected) -> String {
    let bytes = collected.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Takes standard error from the process as it comes, so that it is never held up by it.
fn collect(child: &mut Child) -> Collected {
    let collected = Collected::default();
    if let Some(mut source) = child.stderr.take() {
        let sink = Arc::clone(&collected);
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = source.read(&mut chunk) {
                let bytes = chunk.get(..length).unwrap_or_default();
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(bytes);
            }
        });
    }
    collected
}
