//! What a hostile agent may send: a 4xx or a close, bounded memory, and one record when a call was recognised.

mod rig;

use rig::api_server::Answer;
use rig::{Rig, closings, note, read_to_end, read_until};
use tokio::io::AsyncWriteExt as _;

/// Requests that two parsers could read differently, or that none should read. `{auth}` is the agent's own token.
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn shapes() -> Vec<String> {
    let get = "GET /api/v1/pods HTTP/1.1\r\nHost: localhost\r\n{auth}";
    let post = "POST /api/v1/pods HTTP/1.1\r\nHost: localhost\r\n{auth}";
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n{auth}\r\n";
    let last = "Connection: close\r\n\r\n";
    let mut shapes = vec![
        // Lengths that conflict.
        format!("{post}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"),
        format!("{post}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}"),
        format!("{post}Content-Length: 2, 2\r\n\r\n{{}}"),
        format!("{post}Content-Length: +2\r\n\r\n{{}}"),
        format!("{post}Content-Length: 0x2\r\n\r\n{{}}"),
        format!(
            "{post}Content-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: gzip, chunked, x\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n"),
        format!("{post}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\n{{\r\n0\r\n\r\n"),
        format!(
            "{post}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nfffffffffffffffff\r\n"
        ),
        format!(
            "{post}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\n{{}}\r\n0\r\n\r\n"
        ),
        // Lines.
        format!("{get}X: a\r\n b\r\n\r\n"),
        format!("{get}X: a\r\n\tContent-Length: 9\r\n\r\n"),
        format!("{get}X : a\r\n\r\n"),
        format!("{get}X: a\n\r\n"),
        format!("{get}X: a\r\n\n"),
        format!("{get}X: a\rY: b\r\n\r\n"),
        format!("{get}X: a\u{0}b\r\n\r\n"),
        format!("{get}: a\r\n\r\n"),
        "GET /api/v1/pods HTTP/1.1\nHost: localhost\n{auth}\n".to_owned(),
        "GET /api/v1/pods\r\nHost: localhost\r\n{auth}\r\n".to_owned(),
        // Targets.
        format!("GET https://evil.example/api HTTP/1.1\r\nHost: localhost\r\n{{auth}}{last}"),
        format!("GET http://localhost/api HTTP/1.1\r\nHost: localhost\r\n{{auth}}{last}"),
        format!("GET //evil.example/api HTTP/1.1\r\nHost: localhost\r\n{{auth}}{last}"),
        format!("GET * HTTP/1.1\r\nHost: localhost\r\n{{auth}}{last}"),
        format!("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n{{auth}}{last}"),
        format!("CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n{{auth}}{last}"),
        "GET /a b HTTP/1.1\r\nHost: localhost\r\n{auth}\r\n".to_owned(),
        "GET /api/v1/pods\u{0} HTTP/1.1\r\nHost: localhost\r\n{auth}\r\n".to_owned(),
        "GET /api/v1/p\u{f6}ds HTTP/1.1\r\nHost: localhost\r\n{auth}Connection: close\r\n\r\n"
            .to_owned(),
        // What a Connection header may not take, and what an upgrade may not bring.
        format!("{get}Connection: authorization, close\r\n\r\n"),
        format!("{get}Connection: close, Audit_ID\r\n\r\n"),
        format!("{get}Connection: content-length, close\r\n\r\n"),
        format!(
            "{get}Upgrade: websocket\r\nConnection: Upgrade, close\r\nContent-Length: 2\r\n\r\n{{}}"
        ),
        format!("{get}Upgrade: websocket, SPDY/3.1\r\nConnection: Upgrade, close\r\n\r\n"),
        // Hosts and versions.
        format!("{get}Host: 127.0.0.1\r\n{last}"),
        format!("GET /api/v1/pods HTTP/1.1\r\n{{auth}}{last}"),
        "GET /api/v1/pods HTTP/1.0\r\nHost: localhost\r\n{auth}\r\n".to_owned(),
        "GET /api/v1/pods HTTP/2.0\r\nHost: localhost\r\n{auth}\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\u{16}\u{3}garbage\r\n\r\n".to_owned(),
        // Sizes.
        format!("{get}X: {}\r\n\r\n", "x".repeat(300 * 1024)),
        format!("{get}{}\r\n", "A: b\r\n".repeat(300)),
        format!(
            "GET /{} HTTP/1.1\r\nHost: localhost\r\n{{auth}}\r\n",
            "x".repeat(300 * 1024)
        ),
    ];
    shapes.sort();
    shapes.dedup();
    shapes
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_gets_a_4xx_or_a_close() {
    let rig = Rig::start().await;
    let mut recognised = Vec::new();
    for request in shapes() {
        let answer = rig.raw(&request).await;
        let shown = &request[..request.len().min(200)];
        assert!(
            answer.is_empty()
                || answer.starts_with("HTTP/1.1 4")
                || answer.starts_with("HTTP/1.0 4"),
            "{shown:?}: {answer}"
        );
        assert!(
            answer.matches("HTTP/1.1 ").count() <= 1,
            "{shown:?}: {answer}"
        );
        let ids = answer
            .lines()
            .filter_map(|line| line.strip_prefix("audit-id: "));
        recognised.extend(ids.map(str::to_owned));
    }
    // One whose chunks break in the middle may have begun upstream; none was ever whole there.
    let calls = rig.api.seen_calls();
    assert!(calls.is_empty(), "{calls:?}");
    assert!(
        rig.get("/api").await.starts_with("HTTP/1.1 200 "),
        "it goes on"
    );
    assert!(recognised.len() > 10, "{recognised:?}");
    let records = rig.end().await;
    let stage = |stage: &str| -> Vec<&str> {
        let of_stage = records.iter().filter(|record| record["stage"] == stage);
        let ids = of_stage.map(|record| record["auditID"].as_str().unwrap());
        // The first mint and the last call.
        let count = ids.clone().count();
        ids.skip(1).take(count - 2).collect()
    };
    assert_eq!(
        stage("RequestReceived"),
        recognised,
        "one opening line each"
    );
    assert_eq!(
        stage("ResponseComplete"),
        recognised,
        "one closing line each"
    );
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let rig = Rig::with(&[("body-grace", "200ms")]).await;
    let head = format!(
        "Host: localhost\r\nAuthorization: Bearer {}\r\n",
        rig.token("agent")
    );
    for body in [
        "Content-Length: 9\r\n\r\n",
        "Content-Length: 9\r\n\r\n{",
        "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    ] {
        let mut stream = rig.connect().await;
        let request = format!("POST /api/v1/namespaces/agents/pods HTTP/1.1\r\n{head}{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(
            answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"reason\":\"body-too-slow\""),
            "{body:?}: {answer}"
        );
    }
    assert!(rig.api.seen_calls().is_empty(), "none of them was whole");
    let records = rig.end().await;
    let closings = closings(&records);
    assert_eq!(closings.len(), 3);
    for (closing, bytes) in closings.into_iter().zip(["0", "1", "1"]) {
        assert_eq!(closing["responseStatus"]["code"], 408);
        assert_eq!(closing["responseStatus"]["reason"], "body-too-slow");
        assert_eq!(note(closing, "outcome"), "refused");
        assert_eq!(note(closing, "request-bytes"), bytes);
    }
}

#[tokio::test]
async fn a_stream_may_rest_as_long_as_it_likes() {
    let rig = Rig::with(&[("body-grace", "1ms")]).await;
    rig.api.calls(Answer::json("200 OK", "", "{}"));
    let mut stream = rig.connect().await;
    let request = format!(
        "POST /api/v1/namespaces/agents/services/x/proxy/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
         Content-Length: 2\r\nConnection: close\r\n\r\n{{",
        rig.token("agent")
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    // Much longer than a plain call could take; if it is not, the test proves less but does not fail.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    stream.write_all(b"}").await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\n\r\n";

#[tokio::test]
async fn what_follows_an_upgrade_is_no_request() {
    let rig = Rig::start().await;
    let exec = |rest: &str| {
        format!(
            "POST /api/v1/namespaces/agents/pods/x/exec?command=ls HTTP/1.1\r\nHost: localhost\r\n\
             Authorization: Bearer {}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n{rest}",
            rig.token("agent")
        )
    };
    let garbage = "GET /api/v1/secrets HTTP/1.1\nHost: x\n\n\u{0}\u{7f}garbage";
    // Switched: everything belongs to the new protocol.
    rig.api.calls(Answer::Echo(SWITCH.to_vec()));
    let mut stream = rig.connect().await;
    stream.write_all(exec("").as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    stream.write_all(garbage.as_bytes()).await.unwrap();
    assert_eq!(read_until(&mut stream, "garbage").await, garbage);
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, "bye");
    // Not switched: what was sent in advance never reaches the API server.
    rig.api.calls(Answer::json("400 Bad Request", "", "{}"));
    let mut stream = rig.connect().await;
    stream.write_all(exec(garbage).as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert_eq!(answer.matches("HTTP/1.1 400 ").count(), 2, "{answer}");
    let calls = rig.api.seen_calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert!(calls.iter().all(|call| call.head.starts_with("POST ")));
    let records = rig.end().await;
    let outcomes: Vec<_> = closings(&records)
        .into_iter()
        .map(|closing| {
            (
                closing["responseStatus"]["code"].clone(),
                note(closing, "outcome"),
            )
        })
        .collect();
    assert_eq!(
        outcomes,
        [(101.into(), "completed"), (400.into(), "completed")]
    );
}

#[tokio::test]
async fn nobody_switches_protocols_unasked() {
    let rig = Rig::start().await;
    rig.api.calls(Answer::Echo(SWITCH.to_vec()));
    for headers in [
        "",
        "Connection: Upgrade\r\n",
        "Upgrade: SPDY/3.1\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n",
        "Connection: Upgrade\r\nUpgrade: tls/1.0\r\n",
    ] {
        let answer = rig
            .raw(&format!(
                "GET /api/v1/pods HTTP/1.1\r\nHost: localhost\r\n{{auth}}{headers}Connection: close\r\n\r\n"
            ))
            .await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("upstream-unavailable"),
            "{headers:?}: {answer}"
        );
    }
    let asked_for_another = "Connection: Upgrade, close\r\nUpgrade: websocket\r\n";
    let before = rig.api.seen_calls().len();
    let answer = rig
        .raw(&format!(
            "GET /api/v1/pods HTTP/1.1\r\nHost: localhost\r\n{{auth}}{asked_for_another}\r\n"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    for call in rig.api.seen_calls().iter().take(before) {
        assert!(
            !call.head.to_lowercase().contains("upgrade"),
            "{}",
            call.head
        );
    }
}

#[tokio::test]
async fn what_an_agent_says_stays_in_its_field() {
    let rig = Rig::start().await;
    let agent = "x\"\t\\\u{e9} {\"stage\":\"ResponseComplete\"}";
    let calls = [
        (
            "GET /api/v1/namespaces/a\",\"b/configmaps/x%22,%22y%3Dz HTTP/1.1",
            "/api/v1/namespaces/a\",\"b/configmaps/x%22,%22y%3Dz",
            "x\",\"y=z",
        ),
        (
            "GET /api/v1/configmaps?fieldSelector=metadata.name%3D%0A%22%0Dx&%22{}\\=%0a HTTP/1.1",
            "/api/v1/configmaps?fieldSelector=metadata.name%3D%0A%22%0Dx&%22{}\\=%0a",
            "\n\"\rx",
        ),
        // Refused, and on record all the same.
        (
            "GET /api/v1/namespaces/a/configmaps/x%0Ay HTTP/1.1",
            "/api/v1/namespaces/a/configmaps/x%0Ay",
            "",
        ),
    ];
    for (line, ..) in calls {
        rig.raw(&format!(
            "{line}\r\nHost: localhost\r\n{{auth}}User-Agent: {agent}\r\nConnection: close\r\n\r\n"
        ))
        .await;
    }
    let records = rig.end().await;
    assert_eq!(records.len(), 2 + 2 * calls.len(), "two lines a call");
    let openings = records
        .iter()
        .filter(|record| record["stage"] == "RequestReceived")
        .skip(1);
    for (opening, (line, uri, name)) in openings.zip(calls) {
        assert_eq!(opening["requestURI"], uri, "{line}");
        assert_eq!(opening["userAgent"], agent, "{line}");
        let named = opening["objectRef"]["name"].as_str().unwrap_or_default();
        assert_eq!(named, name, "{line}");
    }
}

#[tokio::test]
async fn a_half_closed_agent_has_gone() {
    let rig = Rig::start().await;
    let head = format!(
        "HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n",
        rig.token("agent")
    );
    // In the middle of a body.
    let mut stream = rig.connect().await;
    let request = format!("POST /api/v1/pods {head}Content-Length: 9\r\n\r\n{{");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    read_to_end(&mut stream).await;
    // In the middle of a watch, which is never answered.
    rig.api.calls(Answer::Silence);
    let mut stream = rig.connect().await;
    let request = format!("GET /api/v1/pods?watch=1 {head}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    rig.api.seen_call().await;
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, "");
    let records = rig.end().await;
    let outcomes: Vec<_> = closings(&records)
        .into_iter()
        .map(|closing| note(closing, "outcome"))
        .collect();
    // Whether the API server would have done it, nobody knows.
    assert_eq!(outcomes, ["refused", "aborted"]);
}

#[tokio::test]
async fn who_does_not_read_holds_nothing_open() {
    let rig = Rig::with(&[("max-stream-age", "200ms")]).await;
    rig.api.calls(Answer::Flood(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
    ));
    let paths = [
        "/api/v1/pods?watch=1",
        "/api/v1/namespaces/agents/pods/x/log?follow=true",
        "/api/v1/pods",
    ];
    let mut unread = Vec::new();
    for path in paths {
        let mut stream = rig.connect().await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            rig.token("agent")
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        unread.push(stream);
    }
    // Nothing was read, and each is over for the API server all the same.
    for _ in paths {
        rig.api.connection_closed().await;
    }
    for mut stream in unread {
        assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 200 "));
    }
    let records = rig.end().await;
    let closings = closings(&records);
    assert_eq!(closings.len(), paths.len());
    for closing in closings {
        assert_eq!(note(closing, "outcome"), "max-stream-age", "{closing}");
    }
}
