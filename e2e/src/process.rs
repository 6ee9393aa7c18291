//! The sidecar as a plain process beside the cluster, for what a container cannot show: a reader of its records that stops, the
//! tokens that it used, and everything that it wrote. It works for a pod that exists, with a token bound to that pod.

use std::ffi::OsString;
use std::fs;
use std::io::{PipeReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::header::AUTHORIZATION;
use http::{Request, Response};
use kube::client::Body;
use serde_json::json;
use tempfile::TempDir;
use tollgate_shared::secret::Token;
use tollgate_shared::tls;

use crate::agent::{AGENT, Agent, AgentPod};
use crate::namespace::TestNamespace;
use crate::spy::Spy;

/// Longest wait for the process to be ready.
const START: Duration = Duration::from_secs(60);

/// A running sidecar.
pub struct Process {
    /// The pod that it works for; it never runs.
    pub pod: Agent,
    /// What it sends to the API server.
    pub spy: Spy,
    /// Its records, to be read by the test.
    pub stdout: PipeReader,
    /// The local token of the agent.
    pub local_token: Token,
    /// The token that it mints with.
    pub bootstrap: Token,
    client: kube::Client,
    admin: kube::Client,
    child: Child,
    stderr: Collected,
    /// Removed with the process.
    volumes: Volumes,
}

impl Process {
    /// Starts a sidecar with these further flags for a pod of a managed namespace, and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready; the message holds its log.
    pub async fn start(namespace: &TestNamespace, flags: &[&str]) -> anyhow::Result<Self> {
        // No scheduler takes it, so no kubelet removes it.
        let pod = AgentPod::new("process", &namespace.cluster.config.agent_image)
            .spec("schedulerName", json!("nobody"))
            .create(namespace)
            .await?;
        let object = pod.pod().await?;
        let bootstrap = namespace.token("default", Some(&object)).await?;
        let spy = Spy::start(namespace.cluster.client_as(None)?).await?;
        let volumes = Volumes::new(&bootstrap, &spy.ca_pem)?;
        let admin_port = free_port()?;
        let uid = object.metadata.uid.context("a pod without a UID")?;
        let (stdout, writer) = std::io::pipe()?;
        let mut child = Command::new(program()?)
            .arg("run")
            .args([
                "--port",
                "0",
                "--admin-port",
                &admin_port.to_string(),
                "--containers",
                AGENT,
            ])
            .args([
                "--namespace",
                &namespace.name,
                "--pod-name",
                &pod.name,
                "--pod-uid",
                &uid,
            ])
            .args(["--pod-service-account", "default", "--api-server", &spy.url])
            .args(volumes.flags())
            .args(flags)
            .env_clear()
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the sidecar")?;
        let stderr = collect(&mut child);
        let url = format!("http://127.0.0.1:{admin_port}").parse()?;
        let admin = kube::Client::try_from(kube::Config::new(url))?;
        if let Err(error) = ready(&mut child, &admin).await {
            drop(child.kill());
            bail!("{error}; the sidecar wrote:\n{}", text(&stderr));
        }
        let local_token = volumes.local_token()?;
        let client = volumes.client(&local_token)?;
        Ok(Self {
            pod,
            spy,
            stdout,
            local_token,
            bootstrap,
            client,
            admin,
            child,
            stderr,
            volumes,
        })
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
            .admin
            .send(Request::get(path).body(Body::empty())?)
            .await?;
        let body = answer.into_body().collect_bytes().await?;
        Ok(String::from_utf8(body.to_vec())?)
    }

    /// Ends the process and returns what it wrote to standard error.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn end(&mut self) -> anyhow::Result<String> {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status()?;
        anyhow::ensure!(told.success(), "the sidecar has ended already");
        self.child.wait()?;
        Ok(text(&self.stderr))
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("pod", &self.pod)
            .finish_non_exhaustive()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Builds the program once and says where it is: cargo knows, whatever the target directory is.
fn program() -> anyhow::Result<PathBuf> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = PROGRAM.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build() -> anyhow::Result<PathBuf> {
    let output = Command::new("cargo")
        .args([
            "build",
            "--locked",
            "--quiet",
            "--package",
            "tollgate-sidecar",
            "--bin",
            "tollgate-sidecar",
        ])
        .args(["--message-format", "json-render-diagnostics"])
        .output()
        .context("cannot run cargo")?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut executables = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    let built = executables.next_back();
    built.with_context(|| {
        format!(
            "cannot build the sidecar: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

/// The folders that a pod's volumes would be.
struct Volumes(TempDir);

impl Volumes {
    fn new(bootstrap: &Token, ca_pem: &str) -> anyhow::Result<Self> {
        let volumes = tempfile::tempdir()?;
        for name in ["bootstrap", "agent", "state"] {
            fs::create_dir(volumes.path().join(name))?;
        }
        fs::write(volumes.path().join("bootstrap/token"), bootstrap.expose())?;
        fs::write(volumes.path().join("bootstrap/ca.crt"), ca_pem)?;
        Ok(Self(volumes))
    }

    fn flags(&self) -> Vec<OsString> {
        let flag = |name: &str| {
            [
                format!("--{name}-dir").into(),
                self.0.path().join(name).into(),
            ]
        };
        ["bootstrap", "agent", "state"]
            .into_iter()
            .flat_map(flag)
            .collect()
    }

    fn files(&self) -> PathBuf {
        self.0.path().join("agent").join(AGENT)
    }

    fn local_token(&self) -> anyhow::Result<Token> {
        Ok(Token::parse(&fs::read_to_string(
            self.files().join("token"),
        )?)?)
    }

    /// A client as an agent makes it from its files, but with this token.
    fn client(&self, token: &Token) -> anyhow::Result<kube::Client> {
        let kubeconfig = fs::read_to_string(self.files().join("kubeconfig"))?;
        let server = kubeconfig
            .lines()
            .find_map(|line| line.trim().strip_prefix("server: "));
        let mut config =
            kube::Config::new(server.context("a kubeconfig without a server")?.parse()?);
        let roots = tls::certificates(&fs::read(self.files().join("ca.crt"))?, "the sidecar's CA")?;
        config.root_cert = Some(roots.into_iter().map(|root| root.to_vec()).collect());
        config.headers.push((AUTHORIZATION, token.bearer()));
        config.default_retry = false;
        Ok(kube::Client::try_from(config)?)
    }
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

/// Asks the admin port until it says yes, as the kubelet does.
async fn ready(child: &mut Child, admin: &kube::Client) -> anyhow::Result<()> {
    let ask = async {
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("the sidecar ended with {status}");
            }
            let answer = admin
                .send(Request::get("/readyz").body(Body::empty())?)
                .await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let limit = tokio::time::timeout(START, ask);
    limit
        .await
        .with_context(|| format!("the sidecar was not ready after {} s", START.as_secs()))?
}
