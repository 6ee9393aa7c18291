//! `tollgate-sidecar verify` on what a real sidecar and a real API server wrote.

use std::cell::Cell;
use std::fs::File;
use std::io::PipeReader;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures_util::future::{try_join, try_join_all};
use http::{Method, Request};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;
use tollgate_e2e::audit::AuditLog;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::process::Process;
use tollgate_e2e::program::{Verified, verify};
use tollgate_shared::contract::Injection;

/// Calls that got their answer.
const CALLS: u64 = 10_000;
/// Times that the sidecar is killed meanwhile.
const KILLS: u64 = 6;
/// Calls at the same time.
const AGENTS: usize = 16;
/// How long the last events of the cluster's log may be on their way.
const SETTLE: Duration = Duration::from_secs(60);

/// A namespace where nothing is injected by itself, whose service account works with ConfigMaps.
async fn in_namespace(
    test: impl AsyncFnOnce(&TestNamespace) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::OptIn), async |namespace| {
        let verbs = [
            "get",
            "list",
            "watch",
            "create",
            "patch",
            "delete",
            "deletecollection",
        ];
        namespace
            .allow(json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}]))
            .await?;
        test(namespace).await
    })
    .await
}

/// Keeps what a sidecar and its successors write, one file each, as a container runtime does.
struct Kept {
    folder: TempDir,
    files: Vec<PathBuf>,
    readers: Vec<JoinHandle<std::io::Result<u64>>>,
}

impl Kept {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            folder: TempDir::new()?,
            files: Vec::new(),
            readers: Vec::new(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Begins with the next one's file.
    fn keep(&mut self, stdout: &PipeReader) -> anyhow::Result<()> {
        let path = self.path(&format!("record.{}", self.files.len()));
        let (mut reader, mut file) = (stdout.try_clone()?, File::create(&path)?);
        self.files.push(path);
        self.readers.push(std::thread::spawn(move || {
            std::io::copy(&mut reader, &mut file)
        }));
        Ok(())
    }

    /// Waits until all that was written is in the files.
    fn finish(&mut self) -> anyhow::Result<()> {
        for reader in self.readers.drain(..) {
            reader.join().ok().context("a reader panicked")??;
        }
        Ok(())
    }
}

/// One call of a mix, and the statuses that it may get.
struct Call {
    method: Method,
    path: String,
    body: Option<String>,
    expected: &'static [u16],
    /// The agent goes away once it begins to answer.
    leave: bool,
}

impl Call {
    /// The call of this number, in this namespace.
    fn new(number: u64, namespace: &str) -> Self {
        let all = format!("/api/v1/namespaces/{namespace}/configmaps");
        let get = |path: String, expected| Self {
            method: Method::GET,
            path,
            body: None,
            expected,
            leave: false,
        };
        let seed = format!("{all}/seed");
        match number % 20 {
            0..6 => get(seed, &[200]),
            6 => get(all, &[200]),
            7 => get(
                format!("{all}?labelSelector={}", "x%3Dy%2C".repeat(700)),
                &[200, 400],
            ),
            8..11 => Self {
                method: Method::POST,
                body: Some(json!({"metadata": {"name": format!("c-{number}")}}).to_string()),
                ..get(all, &[201])
            },
            // Some are made by a call that is killed, or still under way.
            11..14 => Self {
                method: Method::DELETE,
                ..get(format!("{all}/c-{}", number - 3), &[200, 404])
            },
            14 => get(format!("{all}/none-{number}"), &[404]),
            15 => get(
                "/api/v1/namespaces/kube-system/secrets/any".to_owned(),
                &[403],
            ),
            16 => Self {
                method: Method::POST,
                body: Some("{}".to_owned()),
                ..get(
                    format!("/api/v1/namespaces/{namespace}/serviceaccounts/default/token"),
                    &[403],
                )
            },
            17 => get(format!("{all}//seed"), &[400]),
            18 => Self {
                leave: true,
                ..get(format!("{all}?watch=true"), &[200])
            },
            _ => get("/version".to_owned(), &[200]),
        }
    }

    /// Whether it got its answer; `false` if the machine was too busy for it.
    async fn send(&self, agent: &kube::Client) -> anyhow::Result<bool> {
        let request = Request::builder()
            .method(&self.method)
            .uri(&self.path)
            .header("content-type", "application/json")
            .body(Body::from(
                self.body.clone().unwrap_or_default().into_bytes(),
            ))?;
        let answer = agent.send(request).await?;
        let code = answer.status().as_u16();
        if !self.leave {
            answer.into_body().collect_bytes().await?;
        }
        if matches!(code, 429 | 503) {
            return Ok(false);
        }
        ensure!(
            self.expected.contains(&code),
            Unexpected(format!("{} {}: {code}", self.method, self.path))
        );
        Ok(true)
    }
}

/// An answer that no fault of the sidecar's end explains.
#[derive(Debug)]
struct Unexpected(String);

impl std::fmt::Display for Unexpected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unexpected {}

/// What all agents of the long test share.
struct Load {
    namespace: String,
    begun: Cell<u64>,
    answered: Cell<u64>,
    /// Tells the one who kills how far it is.
    progress: watch::Sender<u64>,
}

impl Load {
    /// Calls until all have got their answers; a sidecar that dies has a successor.
    async fn agent(&self, mut sidecar: watch::Receiver<kube::Client>) -> anyhow::Result<()> {
        while self.answered.get() < CALLS {
            ensure!(self.begun.get() < 2 * CALLS, "too many calls got no answer");
            let call = Call::new(self.begun.replace(self.begun.get() + 1), &self.namespace);
            let agent = sidecar.borrow_and_update().clone();
            match call.send(&agent).await {
                Ok(true) => {
                    self.answered.set(self.answered.get() + 1);
                    self.progress.send_replace(self.answered.get());
                }
                Ok(false) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(error) if error.is::<Unexpected>() => return Err(error),
                Err(error) => match tokio::time::timeout(SETTLE, sidecar.changed()).await {
                    Ok(changed) => changed?,
                    Err(_) => bail!("no answer from a sidecar that nobody killed: {error:#}"),
                },
            }
        }
        Ok(())
    }
}

/// Makes the calls, and kills the sidecar meanwhile.
async fn load(namespace: &str, process: &mut Process, kept: &mut Kept) -> anyhow::Result<()> {
    let (current, sidecar) = watch::channel(process.client());
    let (progress, mut answered) = watch::channel(0);
    let load = Load {
        namespace: namespace.to_owned(),
        begun: Cell::new(0),
        answered: Cell::new(0),
        progress,
    };
    let agents = (0..AGENTS).map(|_| load.agent(sidecar.clone()));
    let kills = async {
        for kill in 1..=KILLS {
            let enough = kill * CALLS / (KILLS + 1);
            answered.wait_for(|answered| *answered >= enough).await?;
            process.kill_and_restart().await?;
            kept.keep(&process.stdout)?;
            current.send_replace(process.client());
        }
        anyhow::Ok(())
    };
    try_join(try_join_all(agents), kills).await?;
    Ok(())
}

/// Verifies until the cluster's log holds every call of the records, and returns what was said last.
async fn settled(kept: &Kept, log: &AuditLog) -> anyhow::Result<Verified> {
    let start = Instant::now();
    let copy = kept.path("audit.log");
    loop {
        log.copy_to(&copy)?;
        let verified = verify(&kept.files, Some(&copy))?;
        if verified.count("missing-call")? == 0 || start.elapsed() > SETTLE {
            return Ok(verified);
        }
        // A file gives no notice of its own growth.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn ten_thousand_calls_and_six_kills_leave_nothing_missing() -> anyhow::Result<()> {
    in_namespace(async |namespace| {
        let Some(log) = namespace.cluster.audit_log()? else {
            return Ok(());
        };
        namespace
            .apply::<ConfigMap>(
                &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seed"}}),
            )
            .await?;
        let mut process = Process::start_unseen(namespace, &[]).await?;
        let mut kept = Kept::new()?;
        kept.keep(&process.stdout)?;
        load(&namespace.name, &mut process, &mut kept).await?;
        process.end()?;
        kept.finish()?;

        let alone = verify(&kept.files, None)?;
        assert_eq!(alone.code, Some(0), "{alone:?}");
        let chains_and_open = (alone.count("chains")?, alone.count("open")?);
        assert_eq!(chains_and_open, (1, 0), "{alone:?}");
        let joined = settled(&kept, &log).await?;
        assert_eq!(joined.code, Some(0), "{joined:?}");
        for name in ["missing-record", "missing-call", "not-logged"] {
            assert_eq!(joined.count(name)?, 0, "{joined:?}");
        }
        // A tenth of the calls goes no further than the sidecar.
        assert!(joined.count("joined")? >= CALLS * 17 / 20, "{joined:?}");
        // A kill hits calls.
        assert!(joined.count("aborted")? > 0, "{joined:?}");
        Ok(())
    })
    .await
}
