//! The sidecar's promises about tokens and records, where a test must see all that goes in and out: the sidecar runs as a plain
//! process, the API server behind it is the cluster's.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::Request;
use http::header::AUTHORIZATION;
use kube::api::DeleteParams;
use kube::client::Body;
use serde_json::json;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::process::Process;
use tollgate_e2e::records::Records;
use tollgate_e2e::spy::{Seen, claims};
use tollgate_e2e::{join, jwt, wait};
use tollgate_shared::contract::Injection;

/// A namespace where nothing is injected by itself, whose service account may read ConfigMaps.
async fn in_namespace(
    test: impl AsyncFnOnce(&TestNamespace) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::OptIn), async |namespace| {
        namespace
            .allow(
                json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]),
            )
            .await?;
        test(namespace).await
    })
    .await
}

fn is_mint(seen: &&Seen) -> bool {
    seen.line.ends_with("/token")
}

/// Everything that the process has written to standard output, which ends with the process.
fn rest(process: &mut Process) -> anyhow::Result<String> {
    let mut text = String::new();
    process.stdout.read_to_string(&mut text)?;
    Ok(text)
}

#[tokio::test]
async fn each_token_is_used_once_and_written_nowhere() -> anyhow::Result<()> {
    in_namespace(async |namespace| {
        let mut process = Process::start(namespace, &["--log-level", "debug"]).await?;
        let configmaps = format!("/api/v1/namespaces/{}/configmaps", namespace.name);
        for (path, code) in [
            (configmaps.clone(), 200),
            (format!("{configmaps}/none"), 404),
            ("/api/v1/namespaces/kube-system/secrets".to_owned(), 403),
            (format!("{configmaps}//"), 400),
            ("/version".to_owned(), 200),
        ] {
            assert_eq!(process.get(&path).await?, code, "{path}");
        }
        // A credential of the agent's own goes no further than the sidecar, whether alone or beside the local token.
        let foreign = process.client_as(&process.bootstrap)?;
        let request = || Request::get(&configmaps).body(Body::empty());
        assert_eq!(foreign.send(request()?).await?.status(), 401);
        let mut both = request()?;
        both.headers_mut()
            .insert(AUTHORIZATION, process.bootstrap.bearer());
        assert_eq!(process.call(both).await?.status(), 400);

        let seen = process.seen();
        let (mints, calls): (Vec<&Seen>, Vec<&Seen>) = seen.iter().partition(is_mint);
        assert_eq!(calls.len(), 4, "{calls:?}");
        let used: BTreeSet<_> = calls.iter().map(|call| &call.bearer).collect();
        assert_eq!(used.len(), calls.len(), "a token was used twice");
        let minted: BTreeSet<_> = mints
            .iter()
            .filter_map(|mint| mint.minted.as_ref())
            .collect();
        assert!(used.is_subset(&minted), "a token came from elsewhere");
        let pod = process.pod.pod().await?;
        for token in &minted {
            let claims = claims(token)?;
            assert_eq!(claims.exp - claims.iat, 600);
            let bound = claims.kubernetes.pod.map(|pod| pod.uid);
            assert_eq!(bound, pod.metadata.uid);
        }

        let metrics = process.admin("/metrics").await?;
        let stderr = process.end()?;
        let stdout = rest(&mut process)?;
        let records = Records::parse(stdout.clone())?;
        records.check_chain()?;
        let local = process.local_token.expose();
        for (what, text) in [
            ("records", &stdout),
            ("log", &stderr),
            ("metrics", &metrics),
        ] {
            assert_eq!(jwt::find(text.as_bytes()), [], "{what} hold a token");
            for secret in minted.iter().map(|jwt| jwt.expose()).chain([local]) {
                // Not a part of it either: header and claims are the same in many tokens, the signature is not.
                let signature = secret.rsplit('.').next().unwrap_or(secret);
                assert!(!text.contains(signature), "{what} hold a token");
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_a_token_nothing_is_forwarded() -> anyhow::Result<()> {
    in_namespace(async |namespace| {
        let mut process = Process::start(namespace, &[]).await?;
        let configmaps = format!("/api/v1/namespaces/{}/configmaps", namespace.name);
        assert_eq!(process.get(&configmaps).await?, 200);
        let name = process.pod.name.clone();
        namespace
            .pods()
            .delete(&name, &DeleteParams::default().grace_period(0))
            .await?;
        wait::until(namespace.pods(), &name, "the pod is gone", |pod| {
            pod.is_none()
        })
        .await?;
        let before = process.seen().len();
        assert_eq!(process.get(&configmaps).await?, 503);
        let seen = process.seen();
        let since: Vec<_> = seen.iter().skip(before).collect();
        assert!(
            since.iter().all(is_mint) && since.iter().all(|mint| mint.minted.is_none()),
            "{since:?}"
        );
        process.end()?;
        let records = Records::parse(rest(&mut process)?)?;
        let calls = join::join(&records.lines, &[]);
        let last = calls.last().context("no records")?;
        assert_eq!(last.verdict, join::Verdict::NotForwarded);
        let status = last
            .closing()
            .and_then(|record| record.response_status.as_ref());
        // The API server knows a token of a deleted pod for up to ten seconds more.
        let reason = status.map_or("", |status| status.reason.as_str());
        let reasons = ["mint-target-gone", "mint-credential-rejected"];
        assert!(reasons.contains(&reason), "{reason}");
        Ok(())
    })
    .await
}

/// Calls until the API server answers that there is no such object.
async fn answered(process: &Process, path: &str) -> anyhow::Result<()> {
    let answered = async {
        loop {
            match process.get(path).await? {
                404 => return Ok(()),
                503 => tokio::time::sleep(Duration::from_millis(100)).await,
                other => bail!("{path}: {other}"),
            }
        }
    };
    let in_time = tokio::time::timeout(wait::LIMIT, answered).await;
    in_time.context("the sidecar did not recover")?
}

#[tokio::test]
async fn without_a_record_nothing_is_forwarded() -> anyhow::Result<()> {
    in_namespace(async |namespace| {
        let mut log = namespace.cluster.audit_log()?;
        let mut process = Process::start(namespace, &["--record-deadline", "300ms"]).await?;
        // Longer than what a pipe takes whole or not at all (PIPE_BUF), so that a line is cut in half.
        let long = format!("?labelSelector={}", "x%3Dy%2C".repeat(700));
        let configmaps = format!("/api/v1/namespaces/{}/configmaps", namespace.name);
        // A single 503 may come from a machine too busy for the deadline; what the sidecar says is about the pipe.
        let mut filled = 0;
        while !process.log().contains("nobody reads the record") {
            process.get(&format!("{configmaps}/filling{long}")).await?;
            filled += 1;
            assert!(filled < 1000, "the pipe never fills");
        }
        let before = process.seen().len();
        let refused = (0..100).map(|number| {
            let path = format!("{configmaps}/refused-{number}");
            let process = &process;
            async move { process.get(&path).await }
        });
        let codes = futures_util::future::try_join_all(refused).await?;
        assert!(codes.iter().all(|code| *code == 503), "{codes:?}");
        let seen = process.seen();
        let since: Vec<_> = seen.iter().skip(before).map(|seen| &seen.line).collect();
        assert!(since.is_empty(), "{since:?}");

        // The reader returns: it takes what is there, and calls work again.
        let mut reader = process.stdout.try_clone()?;
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        answered(&process, &format!("{configmaps}/returned")).await?;
        // The last call's closing line is written when the call has ended, so ask for one more.
        answered(&process, &format!("{configmaps}/last")).await?;
        process.end()?;
        let text = reading
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        // Killed while idle, the process leaves whole lines; each is checked against its hash.
        let records = Records::parse(text)?;
        records.check_chain()?;
        let uris: BTreeSet<_> = records
            .lines
            .iter()
            .map(|record| &record.request_uri)
            .collect();
        assert!(uris.contains(&format!("{configmaps}/returned")));

        let Some(log) = &mut log else { return Ok(()) };
        log.wait("the call after the reader's return", |event| {
            event.request_uri == format!("{configmaps}/last")
        })
        .await?;
        let leaked = log
            .events()?
            .iter()
            .filter(|event| event.request_uri.contains("/refused-"))
            .count();
        assert_eq!(leaked, 0, "refused calls reached the API server");
        Ok(())
    })
    .await
}
