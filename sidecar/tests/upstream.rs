//! The way to an API server that is replaced under our feet: its certificates, its connections, its name.

mod rig;

use std::fs;
use std::time::{Duration, Instant};

use rig::Rig;
use rig::api_server::Answer;

/// Longer than a changed file may go unseen (`file::FRESH`), by far.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_new_cluster_ca_is_taken_up_and_the_old_connections_go() {
    let rig = Rig::start().await;
    assert!(rig.get("/api/v1/pods").await.starts_with("HTTP/1.1 200 "));
    let old = rig.api.seen_calls()[0].connection;
    let ca_pem = rig.api.renew();
    fs::write(rig.folder.path().join("bootstrap/ca.crt"), ca_pem).unwrap();
    let begun = Instant::now();
    loop {
        let answer = rig.get("/api/v1/pods").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let calls = rig.api.seen_calls();
        if calls.last().is_some_and(|call| call.connection != old) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the new CA is not taken up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rig.api.connection_closed().await;
    let last = rig.api.seen_mints().pop().unwrap();
    assert_ne!(last.connection, old, "mints take the new way, too");
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let rig = Rig::start().await;
    rig.api.renew();
    // What is pooled was verified; without it a new connection is needed.
    rig.api.calls(Answer::Last(
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(),
    ));
    rig.get("/api/v1/pods").await;
    rig.api.connection_closed().await;
    let before = rig.api.seen_calls().len();
    let answer = rig.get("/api/v1/pods").await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("invalid peer certificate"),
        "{answer}"
    );
    assert_eq!(rig.api.seen_calls().len(), before);
}

#[tokio::test]
async fn an_api_server_is_found_by_its_name() {
    let rig = Rig::with(&[("api-server", "https://localhost:{port}")]).await;
    let answer = rig.get("/api/v1/pods").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let call = &rig.api.seen_calls()[0].head;
    let host = format!("\r\nhost: localhost:{}\r\n", rig.api.address.port());
    assert!(call.contains(&host), "{call}");
}

#[tokio::test]
async fn connections_that_a_rolling_api_server_closes_cost_no_call() {
    let rig = Rig::start().await;
    let ok = |headers: &str| {
        Answer::Last(format!("HTTP/1.1 200 OK\r\n{headers}content-length: 0\r\n\r\n").into_bytes())
    };
    for headers in ["", "connection: close\r\n"] {
        rig.api.calls(ok(headers));
        for call in 0..5 {
            let answer = rig.get("/api/v1/pods").await;
            assert!(
                answer.starts_with("HTTP/1.1 200 "),
                "{headers:?} {call}: {answer}"
            );
            // Closed between two calls: the pool must have noticed.
            rig.api.connection_closed().await;
        }
    }
    let calls = rig.api.seen_calls();
    assert_eq!(calls.len(), 10, "none was sent twice");
}
