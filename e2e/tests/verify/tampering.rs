//! Real records, changed; real tokens, taken.

use std::collections::HashMap;

use anyhow::ensure;
use tollgate_e2e::spy::Seen;
use tollgate_shared::record::{Chain, Stage, parse};

use super::*;

/// Verifies lines that somebody changed.
fn verify_lines(kept: &Kept, lines: &[String], audit: bool) -> anyhow::Result<Verified> {
    let path = kept.path("changed");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(&path, text)?;
    verify(&[path], audit.then(|| kept.path("audit.log")).as_deref())
}

/// A changed line, a deleted and a moved one are named.
fn named(kept: &Kept, lines: &[String]) -> anyhow::Result<()> {
    for (at, pair) in lines.windows(2).enumerate() {
        let [line, next] = pair else { continue };
        let (before, rest) = lines.split_at(at);
        let after = rest.get(2..).unwrap_or_default();
        let with = |pair: &[String]| [before, pair, after].concat();
        let deleted = with(std::slice::from_ref(next));
        let moved = with(&[next.clone(), line.clone()]);
        let other = line.replacen("\"verb\":\"", "\"verb\":\"x", 1);
        let changed = with(&[other, next.clone()]);
        for lines in [deleted, moved, changed] {
            let verified = verify_lines(kept, &lines, false)?;
            let place = format!("{}:{}: ", kept.path("changed").display(), at + 1);
            ensure!(verified.code == Some(1), "{at}: {verified:?}");
            ensure!(verified.said.starts_with(&place), "{at}: {verified:?}");
        }
    }
    Ok(())
}

/// Takes the call of `uri` out, and makes a chain of the rest as whoever knows the format can.
fn forge(lines: &[String], uri: &str) -> anyhow::Result<Vec<String>> {
    let (mut chain, mut ids, mut forged) = (Chain::default(), HashMap::new(), Vec::new());
    for line in lines {
        let mut event = parse(line)?;
        if &*event.request_uri == uri {
            continue;
        }
        let before = event.audit_id;
        if event.stage != Stage::RequestReceived {
            event.audit_id = before.and_then(|id| ids.get(&id).copied());
        }
        let mut line = Vec::new();
        chain = chain.seal(&mut event, &mut line)?;
        ids.extend(before.zip(event.audit_id));
        forged.push(String::from_utf8(line)?.trim_end().to_owned());
    }
    Ok(forged)
}

/// Waits until that many requests without a record are found.
async fn missing(kept: &Kept, log: &AuditLog, expected: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let verified = settled(kept, log).await?;
        let count = verified.count("missing-record")?;
        if count >= expected || start.elapsed() > SETTLE {
            ensure!(count == expected, "not {expected}: {verified:?}");
            let code = i32::from(expected > 0);
            ensure!(verified.code == Some(code), "{verified:?}");
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Uses the token of a recorded call, and that of the sidecar, as whoever has stolen them can.
async fn steal(
    namespace: &TestNamespace,
    process: &Process,
    call: &Seen,
    missing: impl AsyncFn(u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let all = format!("/api/v1/namespaces/{}/configmaps", namespace.name);
    let pod = process.pod.pod().await?;
    let mut thief = namespace.clone();
    thief.cluster.client = namespace.cluster.client_as(Some(call.bearer.expose()))?;
    let get = |path: &str| Request::get(path.to_owned());
    for (request, expected) in [
        (get(&all), 1),
        // Under the id of the call that it was made for: something else, and the same again.
        (
            get(&format!("{all}/none")).header("audit-id", &call.audit_id),
            2,
        ),
        (get(&all).header("audit-id", &call.audit_id), 3),
    ] {
        let answer = thief.client().send(request.body(Body::empty())?).await?;
        ensure!(answer.status() != 401, "the token is still good");
        missing(expected).await?;
    }
    // A new one: its mint, and the token that nobody recorded.
    thief.token("default", Some(&pod)).await?;
    missing(5).await?;
    thief.cluster.client = namespace
        .cluster
        .client_as(Some(process.bootstrap.expose()))?;
    thief.token("default", Some(&pod)).await?;
    missing(6).await
}

#[tokio::test]
async fn what_is_done_to_records_and_tokens_shows() -> anyhow::Result<()> {
    in_namespace(async |namespace| {
        let Some(mut log) = namespace.cluster.audit_log()? else {
            return Ok(());
        };
        let mut process = Process::start(namespace, &[]).await?;
        let mut kept = Kept::new()?;
        kept.keep(&process.stdout)?;
        let all = format!("/api/v1/namespaces/{}/configmaps", namespace.name);
        let taken = format!("{all}/none");
        for (path, code) in [
            (&*all, 200),
            (&taken, 404),
            ("/api/v1/namespaces/kube-system/secrets", 403),
            (&format!("{all}//"), 400),
        ] {
            assert_eq!(process.get(path).await?, code, "{path}");
        }
        // An id of the agent's own choice.
        let id = "00000000-0000-4000-8000-000000000000";
        let request = Request::get("/version").header("audit-id", id);
        let answer = process.call(request.body(Body::empty())?).await?;
        assert_eq!(answer.status(), 200);
        answer.into_body().collect_bytes().await?;
        process.end()?;
        kept.finish()?;
        beyond(namespace, &mut log).await?;

        let honest = settled(&kept, &log).await?;
        assert_eq!(honest.code, Some(0), "{honest:?}");
        assert_eq!(honest.count("joined")?, 4, "{honest:?}");
        let text = fs::read_to_string(&kept.files[0])?;
        assert!(!text.contains(id), "{text}");
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        named(&kept, &lines)?;

        let forged = forge(&lines, &taken)?;
        assert_eq!(verify_lines(&kept, &forged, false)?.code, Some(0));
        let forged = verify_lines(&kept, &forged, true)?;
        assert_eq!(forged.code, Some(1), "{forged:?}");
        // The call and its mint; and the two calls after it, whose ids are others now, with theirs.
        assert_eq!(forged.count("missing-record")?, 6, "{forged:?}");
        assert_eq!(forged.count("missing-call")?, 2, "{forged:?}");

        let seen = process.seen();
        let call = seen.iter().find(|seen| seen.line == format!("GET {all}"));
        let call = call.context("the spy missed a call")?;
        steal(namespace, &process, call, async |expected| {
            missing(&kept, &log, expected).await
        })
        .await
    })
    .await
}
