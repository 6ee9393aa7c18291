//! The proxy as a whole, against a stand-in that shows every byte and fails on demand.

mod rig;

use http::StatusCode;
use rig::api_server::{Answer, MINTED};
use rig::{BOOTSTRAP, Rig, closings, note, read_to_end, read_until};
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn what_arrives_is_the_agents_request_with_our_credential() {
    let rig = Rig::start().await;
    rig.api.calls(Answer::json(
        "200 OK",
        "warning: 299 - \"a\"\r\nwarning: 299 - \"b\"\r\nconnection: x-hop\r\nx-hop: 1\r\n",
        "{}",
    ));
    let answer = rig
        .raw(
            "POST /api/v1/namespaces/agents/pods?dryRun=All&x=%2f HTTP/1.1\r\nHost: localhost\r\n{auth}User-Agent: test/1\r\n\
             Accept: application/json;as=Table, */*\r\nAccept-Encoding: gzip\r\nAudit-ID: forged\r\nX-Forwarded-For: 1.2.3.4\r\n\
             X-Remote-User: admin\r\nTraceparent: 00-1-2-01\r\nConnection: close, x-mine\r\nX-Mine: 1\r\nTE: trailers\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(answer.matches("warning: 299").count(), 2, "{answer}");
    assert!(!answer.contains("x-hop"), "{answer}");
    let calls = rig.api.seen_calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].body, b"{}");
    let mut lines: Vec<&str> = calls[0].head.trim_end().split("\r\n").collect();
    assert_eq!(
        lines.remove(0),
        "POST /api/v1/namespaces/agents/pods?dryRun=All&x=%2f HTTP/1.1"
    );
    lines.sort_unstable();
    let records = rig.records();
    let id = records.last().unwrap()["auditID"].as_str().unwrap();
    let host = format!("host: {}", rig.api.address);
    let (authorization, audit_id) = (
        format!("authorization: Bearer {MINTED}"),
        format!("audit-id: {id}"),
    );
    let expected = [
        "accept-encoding: gzip",
        "accept: application/json;as=Table, */*",
        &audit_id,
        &authorization,
        "content-length: 2",
        "content-type: application/json",
        &host,
        "traceparent: 00-1-2-01",
        "user-agent: test/1",
    ];
    assert_eq!(lines, expected);
    let mints = rig.api.seen_mints();
    assert_eq!(mints.len(), 2, "the first mint, and one for the call");
    assert!(
        mints[1]
            .head
            .contains(&format!("authorization: Bearer {BOOTSTRAP}"))
    );
    let body: serde_json::Value = serde_json::from_slice(&mints[1].body).unwrap();
    assert_eq!(body["spec"]["expirationSeconds"], 600);
    assert_eq!(body["spec"]["audiences"], serde_json::json!([]));
    assert_eq!(
        body["spec"]["boundObjectRef"]["uid"],
        "11111111-2222-3333-4444-555555555555"
    );
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
async fn what_no_agent_may_do_is_refused_before_anything_is_minted() {
    let rig = Rig::start().await;
    let mints = rig.api.seen_mints().len();
    let mut answers = Vec::new();
    for (request, code, reason) in [
        (
            "GET /api/v1/pods HTTP/1.1\r\nHost: localhost\r\n",
            StatusCode::UNAUTHORIZED,
            "local-token-missing",
        ),
        (
            "GET /api/v1/pods HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer tgl1_x\r\n",
            StatusCode::UNAUTHORIZED,
            "local-token-wrong",
        ),
        (
            "GET /api/v1/pods HTTP/1.1\r\nHost: evil.example\r\n{auth}",
            StatusCode::FORBIDDEN,
            "foreign-host",
        ),
        (
            "GET /api/v1/pods HTTP/1.1\r\nHost: localhost\r\n{auth}Origin: https://evil.example\r\n",
            StatusCode::FORBIDDEN,
            "browser-request",
        ),
        (
            "GET /api/v1/pods HTTP/1.1\r\nHost: localhost\r\n{auth}Impersonate-User: admin\r\n",
            StatusCode::FORBIDDEN,
            "floor-impersonation",
        ),
        (
            "POST /api/v1/namespaces/agents/serviceaccounts/default/token HTTP/1.1\r\nHost: localhost\r\n{auth}",
            StatusCode::FORBIDDEN,
            "floor-token-request",
        ),
        (
            "GET /api/v1/namespaces/agents/pods/x/exec?container=tollgate&command=ls HTTP/1.1\r\nHost: localhost\r\n{auth}",
            StatusCode::FORBIDDEN,
            "floor-sidecar-exec",
        ),
        (
            "GET /api/v1/namespaces/a%2Fpods HTTP/1.1\r\nHost: localhost\r\n{auth}",
            StatusCode::BAD_REQUEST,
            "ambiguous-path",
        ),
        (
            "BREW /api/v1/pods HTTP/1.1\r\nHost: localhost\r\n{auth}",
            StatusCode::METHOD_NOT_ALLOWED,
            "unknown-method",
        ),
    ] {
        let answer = rig
            .raw(&format!("{request}Connection: close\r\n\r\n"))
            .await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {} ", code.as_u16())),
            "{reason}: {answer}"
        );
        assert!(
            answer.contains(&format!("\"reason\":\"{reason}\"")),
            "{reason}: {answer}"
        );
        answers.push((reason, answer));
    }
    assert_eq!(rig.api.seen_mints().len(), mints);
    assert!(rig.api.seen_calls().is_empty());
    let records = rig.end().await;
    assert_eq!(records.len(), 2 + 2 * answers.len());
    for (pair, (reason, answer)) in records[2..].chunks(2).zip(answers) {
        assert_eq!(
            [&pair[0]["stage"], &pair[1]["stage"]],
            ["RequestReceived", "ResponseComplete"],
            "{reason}"
        );
        assert_eq!(
            (note(&pair[0], "decision"), note(&pair[0], "reason")),
            ("deny", reason)
        );
        assert_eq!(pair[0]["auditID"], pair[1]["auditID"], "{reason}");
        assert!(
            answer.contains(pair[0]["auditID"].as_str().unwrap()),
            "{reason}: the agent can name the record"
        );
    }
}

#[tokio::test]
async fn a_disconnect_reaches_the_api_server_at_once() {
    let rig = Rig::start().await;
    rig.api.calls(Answer::Bytes(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n".to_vec(),
    ));
    let mut stream = rig.connect().await;
    let request = format!(
        "GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        rig.token("helper")
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut stream, "abc\r\n").await;
    drop(stream);
    rig.api.connection_closed().await;
    let records = rig.end().await;
    let stages: Vec<&str> = records
        .iter()
        .skip(2)
        .map(|record| record["stage"].as_str().unwrap())
        .collect();
    assert_eq!(
        stages,
        ["RequestReceived", "ResponseStarted", "ResponseComplete"]
    );
    let closing = closings(&records)[0];
    assert_eq!(note(closing, "outcome"), "client-disconnected");
    assert_eq!(note(closing, "response-bytes"), "3");
    assert_eq!(note(closing, "container"), "helper");
}

#[tokio::test]
async fn an_upgraded_connection_passes_bytes_and_half_closes() {
    let rig = Rig::start().await;
    rig.api.calls(Answer::Echo(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n\r\nearly".to_vec(),
    ));
    let mut stream = rig.connect().await;
    let request = format!(
        "POST /api/v1/namespaces/agents/pods/x/exec?command=ls HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
         Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\
         X-Stream-Protocol-Version: v3.channel.k8s.io\r\n\r\n",
        rig.token("agent")
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: SPDY/3.1"),
        "{head}"
    );
    assert!(
        head.contains("x-stream-protocol-version: v4.channel.k8s.io"),
        "{head}"
    );
    assert_eq!(read_until(&mut stream, "early").await, "early");
    stream.write_all(b"\x00\x01\xff ping").await.unwrap();
    read_until(&mut stream, "ping").await;
    stream.shutdown().await.unwrap();
    assert_eq!(
        read_to_end(&mut stream).await,
        "bye",
        "the other half stays open"
    );
    let call = &rig.api.seen_calls()[0].head;
    assert_eq!(
        call.matches("x-stream-protocol-version").count(),
        2,
        "{call}"
    );
    assert!(
        call.contains("connection: Upgrade") && call.contains("upgrade: SPDY/3.1"),
        "{call}"
    );
    let records = rig.end().await;
    let closing = closings(&records)[0];
    assert_eq!(
        (note(closing, "outcome"), note(closing, "request-bytes")),
        ("completed", "8")
    );
    assert_eq!(note(closing, "response-bytes"), "16");
    assert!(
        !closing["requestURI"]
            .as_str()
            .unwrap()
            .contains("command=ls"),
        "commands are redacted"
    );
}

#[tokio::test]
async fn a_stream_ends_at_its_age() {
    let rig = Rig::with(&[("max-stream-age", "100ms")]).await;
    let begin = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n".to_vec();
    rig.api.calls(Answer::Bytes(begin));
    let watch = rig.get("/api/v1/pods?watch=1").await;
    assert!(
        watch.ends_with("abc\r\n0\r\n\r\n"),
        "a watch ends as the API server ends it: {watch}"
    );
    let log = rig
        .get("/api/v1/namespaces/agents/pods/x/log?follow=true")
        .await;
    assert!(
        log.ends_with("abc\r\n"),
        "half a log does not look whole: {log}"
    );
    let records = rig.end().await;
    for closing in closings(&records) {
        assert_eq!(note(closing, "outcome"), "max-stream-age");
    }
}

#[tokio::test]
async fn shutdown_ends_streams_and_closes_their_records() {
    let rig = Rig::start().await;
    rig.api.calls(Answer::Bytes(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n".to_vec(),
    ));
    let mut stream = rig.connect().await;
    let request = format!(
        "GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        rig.token("agent")
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut stream, "abc\r\n").await;
    let (records, rest) = tokio::join!(rig.end(), read_to_end(&mut stream));
    assert_eq!(rest, "0\r\n\r\n");
    assert_eq!(note(closings(&records)[0], "outcome"), "shutdown");
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off() {
    let rig = Rig::start().await;
    rig.api.calls(Answer::Last(
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".to_vec(),
    ));
    let answer = rig.get("/api/v1/pods").await;
    assert!(answer.ends_with("abc"), "{answer}");
    rig.api.calls(Answer::Last(Vec::new()));
    let answer = rig.get("/api/v1/pods").await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("upstream-unavailable"),
        "{answer}"
    );
    let records = rig.end().await;
    let outcomes: Vec<&str> = closings(&records)
        .into_iter()
        .map(|closing| note(closing, "outcome"))
        .collect();
    assert_eq!(outcomes, ["upstream-failed", "refused"]);
}
