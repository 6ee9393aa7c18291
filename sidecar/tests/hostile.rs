//! What a hostile agent may send: a 4xx or a close, bounded memory, and one record when a call was recognised.

mod rig;

use rig::api_server::Answer;
use rig::{Rig, closings, note, read_to_end};
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn what_could_be_read_in_two_ways_gets_a_4xx_or_a_close() {
    let rig = Rig::start().await;
    let head = "Host: localhost\r\n{auth}";
    let long = format!(
        "GET /api/v1/pods HTTP/1.1\r\n{head}X: {}\r\n\r\n",
        "x".repeat(300 * 1024)
    );
    let many = format!(
        "GET /api/v1/pods HTTP/1.1\r\n{head}{}\r\n",
        "A: b\r\n".repeat(300)
    );
    for request in [
        &format!(
            "POST /api/v1/pods HTTP/1.1\r\n{head}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"
        ),
        &format!(
            "POST /api/v1/pods HTTP/1.1\r\n{head}Transfer-Encoding: gzip, chunked, x\r\n\r\n0\r\n\r\n"
        ),
        &format!(
            "POST /api/v1/pods HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n"
        ),
        &format!("POST /api/v1/pods HTTP/1.1\r\n{head}Content-Length: +2\r\n\r\n{{}}"),
        &format!("GET /api/v1/pods HTTP/1.1\r\n{head}X: a\r\n b\r\n\r\n"),
        &format!("GET /api/v1/pods HTTP/1.1\r\n{head}X : a\r\n\r\n"),
        &format!("GET https://evil.example/api HTTP/1.1\r\n{head}Connection: close\r\n\r\n"),
        &format!("GET * HTTP/1.1\r\n{head}Connection: close\r\n\r\n"),
        &format!("CONNECT evil.example:443 HTTP/1.1\r\n{head}Connection: close\r\n\r\n"),
        &format!("GET /api/v1/pods HTTP/1.1\r\n{head}Connection: authorization, close\r\n\r\n"),
        &format!("GET /api/v1/pods HTTP/1.0\r\n{head}\r\n"),
        &format!("GET /api/v1/pods HTTP/1.1\r\n{head}Host: 127.0.0.1\r\nConnection: close\r\n\r\n"),
        &format!("GET /api/v1/pods\r\n{head}\r\n"),
        &format!("GET /a b HTTP/1.1\r\n{head}\r\n"),
        &format!("GET /api/v1/pods\u{0} HTTP/1.1\r\n{head}\r\n"),
        &format!(
            "GET /api/v1/pods HTTP/1.1\r\n{head}Upgrade: websocket\r\nConnection: Upgrade, close\r\nContent-Length: 2\r\n\r\n{{}}"
        ),
        &"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        &"\u{16}\u{3}garbage\r\n\r\n".to_owned(),
        &long,
        &many,
    ] {
        let answer = rig.raw(request).await;
        let shown = &request[..request.len().min(120)];
        assert!(
            answer.is_empty()
                || answer.starts_with("HTTP/1.1 4")
                || answer.starts_with("HTTP/1.0 4"),
            "{shown:?}: {answer}"
        );
    }
    for call in rig.api.seen_calls() {
        // A body whose framing breaks in the middle may have begun upstream; it must never have been completed.
        assert!(
            call.head.contains("transfer-encoding: chunked"),
            "{}",
            call.head
        );
    }
    assert!(
        rig.get("/api").await.starts_with("HTTP/1.1 200 "),
        "it goes on"
    );
}

#[tokio::test]
async fn of_two_lengths_the_chunks_count_and_nothing_is_smuggled() {
    let rig = Rig::start().await;
    for lengths in [
        "Content-Length: 30\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
    ] {
        let answer = rig
            .raw(&format!(
                "POST /api/v1/pods HTTP/1.1\r\nHost: localhost\r\n{{auth}}{lengths}\r\n\r\n0\r\n\r\n\
                 GET /smuggled HTTP/1.1\r\nHost: localhost\r\n{{auth}}\r\n"
            ))
            .await;
        // RFC 9112 section 6.3: chunked overrides the length, and the connection ends after the answer.
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    for call in rig.api.seen_calls() {
        assert!(
            call.head.starts_with("POST /api/v1/pods ") && !call.head.contains("content-length"),
            "{}",
            call.head
        );
    }
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
