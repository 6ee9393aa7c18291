//! Reviews over real TLS: bad input, certificates that change under load, a drain that loses nothing.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's own helpers"
)]

use std::iter;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tollgate_shared::serve::{Limits, Listener};
use tollgate_shared::{drain, tls};
use tollgate_webhook::inject::InjectConfig;
use tollgate_webhook::metrics::Metrics;
use tollgate_webhook::review::{BODY_LIMIT, Review};
use tollgate_webhook::voucher::Vouchers;

const PATIENCE: Duration = Duration::from_secs(60);

struct Identity {
    server: Arc<ServerConfig>,
    pem: String,
}

fn identity() -> Identity {
    let pair = rcgen::generate_simple_self_signed(["webhook".to_owned()]).expect("a certificate");
    let key = pair.signing_key.serialize_pem();
    let key = tls::private_key(key.as_bytes(), "key").expect("its key");
    let chain = vec![pair.cert.der().clone()];
    let server = tls::server_config(chain, key, &[tls::HTTP_1_1]).expect("a pair");
    Identity {
        server: Arc::new(server),
        pem: pair.cert.pem(),
    }
}

fn trust(bundle: &str) -> TlsConnector {
    let config = tls::client_config(bundle.as_bytes(), &[tls::HTTP_1_1]).expect("a bundle");
    TlsConnector::from(Arc::new(config))
}

struct Rig {
    address: SocketAddr,
    drain: drain::Drain,
    config: watch::Sender<Arc<ServerConfig>>,
    registry: Registry,
    served: JoinHandle<()>,
    _inject: watch::Sender<Arc<InjectConfig>>,
}

async fn rig(server: Arc<ServerConfig>, linger: Duration) -> Rig {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let (inject, current) = watch::channel(Arc::new(InjectConfig::with_image("i@sha256:1")));
    let (config, receiver) = watch::channel(server);
    let limits = Limits {
        linger,
        ..Limits::default()
    };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(any, limits).await.expect("a free port");
    let listener = listener.with_tls(receiver);
    let address = listener.address();
    let (drain, signal) = drain::channel();
    let (_, vouchers) = watch::channel(Arc::new(Vouchers::new([])));
    let review = Review::new(current, vouchers, metrics);
    let make = move |_peer| {
        let review = review.clone();
        service_fn(move |request| review.clone().answer(request))
    };
    Rig {
        address,
        drain,
        config,
        registry,
        served: tokio::spawn(listener.serve(make, signal)),
        _inject: inject,
    }
}

type Tls = TlsStream<TcpStream>;

async fn connect(address: SocketAddr, trust: &TlsConnector) -> std::io::Result<Tls> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("webhook").expect("a name");
    trust.connect(name, tcp).await
}

fn head(method: &str, path: &str, kind: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: webhook\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// Sends one request and reads its whole answer: status, head, body.
async fn exchange(
    tls: &mut Tls,
    head: &str,
    body: &[u8],
) -> std::io::Result<(u16, String, Vec<u8>)> {
    tls.write_all(head.as_bytes()).await?;
    // A server may answer, and close, before it has read a body that it will not have.
    let _sent = tls.write_all(body).await;
    let _flushed = tls.flush().await;
    read_answer(tls).await
}

async fn read_answer(tls: &mut Tls) -> std::io::Result<(u16, String, Vec<u8>)> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|part| part == b"\r\n\r\n") {
            break end + 4;
        }
        if tls.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|length| length.parse::<usize>().ok())
        .unwrap_or(0);
    while read.len() < end + length {
        if tls.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let status = head[9..12].parse().expect("a status");
    Ok((status, head, read.split_off(end)))
}

fn review(uid: &str, padding: usize) -> Vec<u8> {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": uid, "operation": "CREATE", "namespace": "n",
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": {
                "metadata": {"name": "p", "annotations": {"padding": "x".repeat(padding)}},
                "spec": {"containers": [{"name": "agent", "image": "i"}]},
            },
        },
    });
    serde_json::to_vec(&review).expect("JSON")
}

#[tokio::test]
async fn bad_input_is_a_4xx_or_a_denial() {
    let Identity { server, pem } = identity();
    let rig = rig(server, Duration::ZERO).await;
    let trust = trust(&pem);
    let json = "application/json";
    let mutate = "/mutate/enabled";
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)).into_bytes();
    let huge = vec![b' '; BODY_LIMIT + 1];
    let v1beta1 = String::from_utf8_lossy(&review("u", 0)).replace("k8s.io/v1", "k8s.io/v1beta1");
    let twice = String::from_utf8_lossy(&review("u", 0)).replacen("{", "{\"request\":{},", 1);
    let good = review("u", 0);
    for (method, path, kind, body, status) in [
        ("POST", mutate, json, b"".as_slice(), 400),
        ("POST", mutate, json, b"{", 400),
        ("POST", mutate, json, b"\xff\xfe\x00", 400),
        ("POST", mutate, json, b"{}", 400),
        ("POST", mutate, json, deep.as_slice(), 400),
        ("POST", mutate, json, v1beta1.as_bytes(), 400),
        ("POST", mutate, json, twice.as_bytes(), 400),
        ("POST", mutate, json, huge.as_slice(), 413),
        ("POST", mutate, "application/yaml", good.as_slice(), 415),
        ("POST", mutate, "", good.as_slice(), 415),
        ("GET", mutate, json, b"", 405),
        ("PUT", mutate, json, good.as_slice(), 405),
        ("POST", "/mutate", json, good.as_slice(), 404),
        ("POST", "/mutate/", json, good.as_slice(), 404),
        ("POST", "/mutate/Enabled", json, good.as_slice(), 404),
        ("POST", "/mutate/enabled/x", json, good.as_slice(), 404),
        ("POST", "/validate/off", json, good.as_slice(), 404),
        ("POST", "/", json, good.as_slice(), 404),
    ] {
        let mut tls = connect(rig.address, &trust).await.expect("a connection");
        let head = head(method, path, kind, body.len());
        let answer = tokio::time::timeout(PATIENCE, exchange(&mut tls, &head, body)).await;
        let (got, _, text) = answer.expect("in time").expect("an answer");
        let text = String::from_utf8_lossy(&text);
        assert_eq!(
            got,
            status,
            "{method} {path} {kind} {} bytes: {text}",
            body.len()
        );
        assert!(!text.trim().is_empty(), "{method} {path}");
    }
}

#[tokio::test]
async fn a_body_has_a_limit_and_large_pods_are_below_it() {
    let Identity { server, pem } = identity();
    let rig = rig(server, Duration::ZERO).await;
    let trust = trust(&pem);
    let json = "application/json";
    let huge = vec![b' '; BODY_LIMIT + 1];
    let mut tls = connect(rig.address, &trust).await.expect("a connection");
    let chunked = format!(
        "POST /mutate/enabled HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        BODY_LIMIT + 10
    );
    let answer = exchange(&mut tls, &chunked, &huge)
        .await
        .expect("an answer");
    assert_eq!(answer.0, 413);

    let large = review("large", 2_500_000);
    let mut tls = connect(rig.address, &trust).await.expect("a connection");
    let head = head("POST", "/mutate/enabled?timeout=5s", json, large.len());
    let (status, _, body) = exchange(&mut tls, &head, &large).await.expect("an answer");
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(answer["response"]["uid"], "large");
    assert_eq!(answer["response"]["patchType"], "JSONPatch");

    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &rig.registry).expect("metrics");
    assert!(page.contains("panics_total 0"), "{page}");
    assert!(
        page.contains("dry_run=\"false\",decision=\"patched\",reason=\"injected\"} 1"),
        "{page}"
    );
}

/// Only one of the largest bodies is read at a time, and there are enough of others to fill any room.
#[tokio::test]
async fn bodies_that_do_not_come_keep_no_ordinary_one_out() {
    let Identity { server, pem } = identity();
    let rig = rig(server, Duration::ZERO).await;
    let trust = trust(&pem);
    let json = "application/json";
    let mut waiting = Vec::new();
    for size in iter::once(BODY_LIMIT).chain(iter::repeat_n(32 * 1024, 300)) {
        let mut slow = connect(rig.address, &trust).await.expect("a connection");
        let announced = head("POST", "/mutate/enabled", json, size);
        let asking = announced.replacen("\r\n", "\r\nExpect: 100-continue\r\n", 1);
        slow.write_all(asking.as_bytes()).await.expect("sent");
        slow.flush().await.expect("sent");
        // The body is asked for: it has its room.
        let mut asked = [0; 12];
        slow.read_exact(&mut asked).await.expect("an answer");
        assert_eq!(&asked, b"HTTP/1.1 100");
        waiting.push(slow);
    }

    let body = review("u", 5_000);
    let mut tls = connect(rig.address, &trust).await.expect("a connection");
    let head = head("POST", "/mutate/enabled", json, body.len());
    let (status, _, _) = exchange(&mut tls, &head, &body).await.expect("an answer");
    assert_eq!(status, 200);
}

/// Reviews one after the other on kept connections until `stop`; every one that was sent must be answered.
async fn load(
    address: SocketAddr,
    trust: TlsConnector,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
) -> Result<(), String> {
    let mut kept: Option<Tls> = None;
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        n += 1;
        let uid = format!("u-{n}");
        let body = review(&uid, 5_000);
        let mut tls = match kept.take() {
            Some(tls) => tls,
            None => connect(address, &trust)
                .await
                .map_err(|e| format!("connect: {e}"))?,
        };
        let head = head("POST", "/mutate/enabled", "application/json", body.len());
        let answer = exchange(&mut tls, &head, &body).await;
        let (status, head, body) = answer.map_err(|error| format!("review {n}: {error}"))?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status != 200 || answer["response"]["uid"] != uid.as_str() {
            return Err(format!("review {n}: {status}"));
        }
        answered.fetch_add(1, Ordering::SeqCst);
        if !head.contains("connection: close") {
            kept = Some(tls);
        }
    }
    Ok(())
}

async fn until_answered(answered: &AtomicUsize, more: usize) {
    let wanted = answered.load(Ordering::SeqCst) + more;
    let reached = async {
        while answered.load(Ordering::SeqCst) < wanted {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached)
        .await
        .expect("the load goes on");
}

#[tokio::test]
async fn no_review_is_lost_while_certificates_change_and_a_replica_ends() {
    let (first, second) = (identity(), identity());
    let trust = trust(&format!("{}{}", first.pem, second.pem));
    let rig = rig(Arc::clone(&first.server), Duration::from_hours(1)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
        clients.spawn(load(rig.address, trust.clone(), stop, answered));
    }
    for n in 0..10 {
        let identity = if n % 2 == 0 { &second } else { &first };
        rig.config.send_replace(Arc::clone(&identity.server));
        until_answered(&answered, 10).await;
    }
    // The end is signalled; until endpoints are empty, reviews still come here, and are answered.
    rig.drain.signal();
    until_answered(&answered, 100).await;
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = clients.join_next().await {
        assert_eq!(ended.expect("no panic"), Ok(()));
    }
    rig.served.abort();
}
