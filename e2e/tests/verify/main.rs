//! `tollgate-sidecar verify` on what a real sidecar and a real API server wrote.

use std::fs::{self, File};
use std::io::PipeReader;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http::Request;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::client::Body;
use serde_json::json;
use tempfile::TempDir;
use tollgate_e2e::audit::AuditLog;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::process::Process;
use tollgate_e2e::program::{Verified, verify};
use tollgate_shared::contract::Injection;

mod load;
mod tampering;

use load::{Size, load};

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
        let configmaps = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs});
        // For sidecars that mint for it.
        let other = json!({
            "apiGroups": ["tollgate.dev"], "resources": ["serviceaccounts"],
            "resourceNames": ["other"], "verbs": ["mint"],
        });
        namespace.allow(json!([configmaps, other])).await?;
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

/// Waits until the cluster's log has a call that came after everything so far: then it covers the time of all records.
async fn beyond(namespace: &TestNamespace, log: &mut AuditLog) -> anyhow::Result<()> {
    let request = Request::get("/version").header("audit-id", &namespace.name);
    let client = namespace.client();
    let answer = client.send(request.body(Body::empty())?).await?;
    answer.into_body().collect_bytes().await?;
    log.completed(&namespace.name).await?;
    Ok(())
}

/// Verifies until the cluster's log holds every call of the records, and returns what was said last.
async fn settled(kept: &Kept, log: &AuditLog) -> anyhow::Result<Verified> {
    let start = Instant::now();
    let copy = kept.path("audit.log");
    loop {
        log.copy_to(&copy)?;
        let verified = verify(&kept.files, Some(&copy))?;
        let absent = verified.count("missing-call")? + verified.count("not-logged")?;
        if absent == 0 || start.elapsed() > SETTLE {
            return Ok(verified);
        }
        // A file gives no notice of its own growth.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Makes calls and kills, and finds all of it whole and joined.
async fn nothing_is_missing(
    size: Size,
    start: impl AsyncFnOnce(&TestNamespace) -> anyhow::Result<Process>,
) -> anyhow::Result<()> {
    in_namespace(async |namespace| {
        let Some(mut log) = namespace.cluster.audit_log()? else {
            return Ok(());
        };
        namespace
            .apply::<ConfigMap>(
                &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seed"}}),
            )
            .await?;
        let mut process = start(namespace).await?;
        let mut kept = Kept::new()?;
        kept.keep(&process.stdout)?;
        load(size, &namespace.name, &mut process, &mut kept).await?;
        process.end()?;
        kept.finish()?;
        beyond(namespace, &mut log).await?;

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
        assert!(
            joined.count("joined")? >= size.calls * 17 / 20,
            "{joined:?}"
        );
        // A kill hits calls.
        assert!(joined.count("aborted")? > 0, "{joined:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn ten_thousand_calls_and_six_kills_leave_nothing_missing() -> anyhow::Result<()> {
    let size = Size {
        calls: 10_000,
        kills: 6,
    };
    nothing_is_missing(size, async |namespace| {
        Process::start_unseen(namespace, &[]).await
    })
    .await
}

/// Calls with tokens that were minted before them.
#[tokio::test]
async fn minting_ahead_leaves_nothing_missing() -> anyhow::Result<()> {
    let size = Size {
        calls: 2_000,
        kills: 4,
    };
    nothing_is_missing(size, async |namespace| {
        Process::start_unseen(namespace, &["--mint", "ahead"]).await
    })
    .await
}

/// The same for another account: events of tokens that are bound to a node name no pod.
#[tokio::test]
async fn minting_ahead_for_another_account_leaves_nothing_missing() -> anyhow::Result<()> {
    let size = Size {
        calls: 2_000,
        kills: 8,
    };
    nothing_is_missing(size, async |namespace| {
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "other"}});
        namespace.apply::<ServiceAccount>(&account).await?;
        let node = namespace.cluster.node().await?;
        let flags = ["--mint", "ahead", "--binding", "node"];
        let flags = [&flags[..], &["--service-account", "other"]].concat();
        Process::start_on(namespace, &node, &flags).await
    })
    .await
}
