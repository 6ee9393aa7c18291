//! The recorder as the proxy uses it, over real pipes and files.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use tollgate_shared::record::{Chain, Digest, Stage, check, parse};

use super::*;

/// Far longer than anything here takes, so that it decides nothing.
const LONG: Duration = Duration::from_secs(20);

fn identity() -> Identity {
    Identity {
        username: "system:serviceaccount:demo:agent".to_owned(),
        pod: "agent-0".to_owned(),
        pod_uid: "0c6f7a51-0000-4000-8000-000000000001".to_owned(),
        namespace: "demo".to_owned(),
        node: Some("node-1".to_owned()),
        is_pod: true,
    }
}

fn opening(uri: &str) -> Opening {
    Opening {
        verb: "get".to_owned(),
        uri: uri.to_owned(),
        object: Some(ObjectRef {
            resource: Some("pods".into()),
            namespace: Some("demo".into()),
            ..ObjectRef::default()
        }),
        container: Some("agent".to_owned()),
        user_agent: Some("kubectl/v1.37".to_owned()),
        source_ip: Some([127, 0, 0, 1].into()),
        decision: Decision::Allow,
        reason: "no-policy",
        tier: "none",
        policy: None,
        received: SystemTime::now(),
    }
}

fn done() -> Closing {
    Closing {
        code: Some(200),
        outcome: outcome::COMPLETED,
        upstream: Some(Duration::from_micros(1500)),
        ..Closing::default()
    }
}

fn over_pipe(deadline: Duration, state: Option<&Path>) -> (Recorder, PipeReader, PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    let journal = state.map(|folder| Journal::load(folder).unwrap());
    let sink = Box::new(Stream(writer.try_clone().unwrap()));
    let recorder = Recorder::with(sink, journal, identity(), deadline, false).unwrap();
    (recorder, reader, writer)
}

/// Checks a chain from its beginning; returns each line's stage and outcome. An identical repetition counts once.
fn chain(text: &str) -> Vec<(Stage, String)> {
    let mut chain = Chain::default();
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        assert!(line.len() < tollgate_shared::record::MAX_LINE);
        let mut event = parse(line).unwrap();
        let hash = check(line, &mut event, &mut Vec::new()).unwrap();
        if hash == chain.hash {
            continue;
        }
        assert_eq!(event.annotations.previous_hash, chain.hash, "{line}");
        assert_eq!(event.annotations.sequence.0, chain.sequence + 1, "{line}");
        chain = Chain {
            sequence: chain.sequence + 1,
            hash,
        };
        let outcome = event.annotations.outcome.as_deref().unwrap_or_default();
        lines.push((event.stage, outcome.to_owned()));
    }
    assert_ne!(chain.hash, Digest::ZERO, "no line");
    lines
}

fn text(mut reader: PipeReader) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn a_call_has_its_lines_and_a_dropped_one_is_aborted() {
    let (recorder, reader, writer) = over_pipe(LONG, None);
    drop(writer);
    let mut call = recorder.open(opening("/api/v1/pods")).await.unwrap();
    assert_ne!(call.audit_id(), call.mint_audit_id());
    call.minted("JTI=1".to_owned(), Duration::from_millis(3));
    call.response_started(200);
    let dropped = recorder.open(opening("/api/v1/pods")).await.unwrap();
    call.close(done());
    drop(dropped);
    assert!(recorder.shutdown(LONG).await);
    assert!(recorder.open(opening("/late")).await.is_err());
    assert_eq!((recorder.stats().written, recorder.stats().open), (5, 0));
    drop(recorder);
    let stages: Vec<_> = chain(&text(reader))
        .into_iter()
        .map(|(stage, outcome)| format!("{stage:?} {outcome}"))
        .collect();
    assert_eq!(
        stages,
        [
            "RequestReceived ",
            "ResponseStarted ",
            "RequestReceived ",
            "ResponseComplete completed",
            "ResponseComplete aborted",
        ]
    );
}

#[tokio::test]
async fn a_full_pipe_refuses_and_recovers() {
    let (recorder, mut reader, mut writer) = over_pipe(Duration::from_millis(50), None);
    let call = recorder.open(opening("/before")).await.unwrap();
    let mut line = vec![0; 8192];
    let len = reader.read(&mut line).unwrap();
    let before = String::from_utf8(line.get(..len).unwrap().to_vec()).unwrap();
    // One page is left, in which no second line has room.
    let filled = fill(&mut writer);
    for number in 0..100 {
        let refused = recorder.open(opening(&format!("/refused/{number}"))).await;
        assert!(refused.is_err(), "{number}");
    }
    assert_eq!(recorder.stats().refused, 100);
    call.close(done());
    let mut rubbish = vec![0; filled];
    reader.read_exact(&mut rubbish).unwrap();
    drop(writer);
    let mut after = None;
    while after.is_none() {
        after = recorder.open(opening("/after")).await.ok();
    }
    after.unwrap().close(done());
    assert!(recorder.shutdown(LONG).await);
    drop(recorder);
    let all = before + &text(reader);
    assert!(!all.contains("/refused/"), "{all}");
    assert_eq!(chain(&all).len(), 4);
}

/// Fills a pipe to the last page, and returns with how much.
fn fill(writer: &mut PipeWriter) -> usize {
    let mut filled = 0;
    let mut probe = Stream(writer.try_clone().unwrap());
    while probe.ready(Duration::ZERO).unwrap() {
        filled += writer.write(&[b'x'; 4096]).unwrap();
    }
    filled
}

#[tokio::test]
async fn a_successor_continues_the_chain_and_closes_what_was_open() {
    let folder = tempfile::tempdir().unwrap();
    let (first, mut reader, _writer) = over_pipe(LONG, Some(folder.path()));
    let open = first.open(opening("/open?a=\"\n\"")).await.unwrap();
    first.open(opening("/closed")).await.unwrap().close(done());
    let mut all = String::new();
    while all.lines().count() < 3 {
        let mut bytes = [0; 8192];
        let len = reader.read(&mut bytes).unwrap();
        all.push_str(std::str::from_utf8(bytes.get(..len).unwrap()).unwrap());
    }
    // As after a kill: nothing of the first one writes any more.
    std::mem::forget(open);
    let (second, reader, writer) = over_pipe(LONG, Some(folder.path()));
    drop(writer);
    second.open(opening("/new")).await.unwrap().close(done());
    assert!(second.shutdown(LONG).await);
    drop(second);
    all.push_str(&text(reader));
    let outcomes: Vec<String> = chain(&all)
        .into_iter()
        .map(|(_, outcome)| outcome)
        .collect();
    assert_eq!(outcomes, ["", "", "completed", "aborted", "", "completed"]);
}

mod docs;
mod kills;
mod lines;
mod sinks;
