//! The sidecar as a process: what keeps it from starting, and how it ends.

mod rig;

use std::fs;

use rig::api_server::{Answer, ApiServer};
use rig::program::{Program, command, run};
use rig::{prepare, read_to_end, read_until, token};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

/// A request of the agent, for a connection of its own.
fn request(program: &Program, path: &str) -> String {
    let token = token(program.folder.path(), "agent");
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n")
}

/// Sends SIGTERM while a call waits for its answer; the call's connection.
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
async fn terminate_with_a_call(program: &Program) -> impl Sized + use<> {
    program.api.calls(Answer::Silence);
    let mut call = program.connect().await;
    let head = request(program, "/api/v1/pods");
    call.write_all(head.as_bytes()).await.unwrap();
    program.api.seen_call().await;
    program.terminate();
    call
}

#[tokio::test]
async fn a_bootstrap_token_that_is_none_fails_the_start_and_is_named() {
    let api = ApiServer::start().await;
    for (content, part) in [
        (None, "cannot read "),
        (Some(""), "the token is empty"),
        (Some(" \n"), "the token is empty"),
        (Some("sesame open"), "a character that no bearer token has"),
    ] {
        let (folder, flags) = prepare(&api, &[]);
        let file = folder.path().join("bootstrap/token");
        match content {
            Some(content) => fs::write(&file, content).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let mut command = run(flags);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{log}");
        let path = file.to_str().unwrap();
        assert!(log.contains(path) && log.contains(part), "{part}: {log}");
        assert!(!log.contains("sesame"), "{log}");
    }
    assert!(api.seen_mints().is_empty());
}

#[tokio::test]
async fn a_signal_ends_it_in_peace() {
    let program = Program::start(&[]).await;
    let begin = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    program.api.calls(Answer::Bytes(begin.to_vec()));
    let mut watch = program.connect().await;
    let head = request(&program, "/api/v1/pods?watch=1");
    watch.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut watch, "abc\r\n").await;
    program.terminate();
    assert_eq!(read_to_end(&mut watch).await, "0\r\n\r\n");
    let (code, log, folder) = program.ended().await;
    assert_eq!(code, Some(0), "{log}");
    let records = fs::read_to_string(folder.path().join("records")).unwrap();
    let last: Value = serde_json::from_str(records.lines().last().unwrap()).unwrap();
    assert_eq!(last["annotations"]["tollgate.dev/outcome"], "shutdown");
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}

#[tokio::test]
async fn what_still_runs_at_the_drain_deadline_is_cut() {
    let program = Program::start(&[("drain-deadline", "200ms")]).await;
    let _call = terminate_with_a_call(&program).await;
    let (code, log, folder) = program.ended().await;
    assert_eq!(code, Some(0), "{log}");
    let records = fs::read_to_string(folder.path().join("records")).unwrap();
    let last: Value = serde_json::from_str(records.lines().last().unwrap()).unwrap();
    assert_eq!(last["stage"], "ResponseComplete");
    assert_eq!(last["annotations"]["tollgate.dev/outcome"], "aborted");
}

#[tokio::test]
async fn it_is_not_ready_while_it_drains_and_a_second_signal_aborts() {
    // Nobody waits that long.
    let program = Program::start(&[("drain-deadline", "10m")]).await;
    let _call = terminate_with_a_call(&program).await;
    // The signal comes when it comes; from then on the probe fails.
    while program.probe("1ms").await.success() {}
    program.terminate();
    let (code, log, folder) = program.ended().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("a second signal came"), "{log}");
    let records = fs::read_to_string(folder.path().join("records")).unwrap();
    assert!(
        records.contains("\"requestURI\":\"/api/v1/pods\""),
        "{records}"
    );
}

#[tokio::test]
async fn logs_are_text_where_that_is_asked_for_and_a_probe_has_an_end() {
    let api = ApiServer::start().await;
    let (folder, mut flags) = prepare(&api, &[("log-format", "text")]);
    fs::remove_file(folder.path().join("bootstrap/token")).unwrap();
    flags.push(("log-level", "info".to_owned()));
    let mut start = run(flags);
    let output = tokio::task::spawn_blocking(move || start.output().unwrap())
        .await
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("ERROR") && !log.starts_with('{'), "{log}");

    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = unused.local_addr().unwrap().port().to_string();
    drop(unused);
    let arguments = ["probe", "--admin-port", &port, "--timeout", "100ms"];
    let mut probe = command(arguments.map(str::to_owned));
    let output = tokio::task::spawn_blocking(move || probe.output().unwrap())
        .await
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not ready after"), "{said}");
}

/// What cannot be read is no finding, which is 1, and no wrong call, which is 64.
#[test]
fn records_that_cannot_be_read_end_a_verification_with_66() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::write(&empty, "").unwrap();
    let (empty, missing) = (empty.to_str().unwrap(), "/nonexistent/records");
    for (arguments, code, part) in [
        (&["verify", missing][..], 66, missing),
        (&["verify", empty], 66, empty),
        (&["verify", empty, "--cluster-audit", missing], 66, empty),
        (&["verify"], 64, "FILE"),
        (&["verify", empty, "--whole"], 64, "--whole"),
    ] {
        let mut program = command(arguments.iter().map(|&argument| argument.to_owned()));
        let output = program.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{part}: {said}");
    }
}
