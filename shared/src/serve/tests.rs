//! The loop with real sockets and real TLS on port 0.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::tls;

/// Far more than anything here takes: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

struct Identity {
    server: Arc<ServerConfig>,
    trust: TlsConnector,
}

fn identity() -> Identity {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = pair.signing_key.serialize_pem();
    let key = tls::private_key(key.as_bytes(), "key").unwrap();
    let chain = vec![pair.cert.der().clone()];
    let server = tls::server_config(chain, key, &[tls::HTTP_1_1]).unwrap();
    let client = tls::client_config(pair.cert.pem().as_bytes(), &[tls::HTTP_1_1]).unwrap();
    Identity {
        server: Arc::new(server),
        trust: TlsConnector::from(Arc::new(client)),
    }
}

/// A running listener. `/` answers at once, `/wait` when `release` is notified, `/panic` panics, `/upgrade` echoes.
struct Rig {
    address: SocketAddr,
    drain: drain::Drain,
    config: watch::Sender<Arc<ServerConfig>>,
    trust: TlsConnector,
    release: Arc<Notify>,
    waiting: Arc<AtomicUsize>,
    served: JoinHandle<()>,
}

async fn rig(limits: Limits) -> Rig {
    let Identity { server, trust } = identity();
    let (config, receiver) = watch::channel(server);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(any, limits).await.unwrap();
    let listener = listener.with_tls(receiver);
    let address = listener.address();
    let (drain, signal) = drain::channel();
    let release = Arc::new(Notify::new());
    let waiting = Arc::new(AtomicUsize::new(0));
    let make = {
        let (release, waiting) = (Arc::clone(&release), Arc::clone(&waiting));
        move |_peer| {
            let (release, waiting) = (Arc::clone(&release), Arc::clone(&waiting));
            service_fn(move |request| answer(request, Arc::clone(&release), Arc::clone(&waiting)))
        }
    };
    let served = tokio::spawn(listener.serve(make, signal));
    Rig {
        address,
        drain,
        config,
        trust,
        release,
        waiting,
        served,
    }
}

async fn answer(
    mut request: Request<Incoming>,
    release: Arc<Notify>,
    waiting: Arc<AtomicUsize>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"hello")));
    match request.uri().path() {
        "/wait" => {
            waiting.fetch_add(1, Ordering::SeqCst);
            release.notified().await;
        }
        "/panic" => panic!("asked for"),
        "/upgrade" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                let mut byte = [0];
                while io.read_exact(&mut byte).await.is_ok() {
                    io.write_all(&byte).await.unwrap();
                    io.flush().await.unwrap();
                }
            });
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            *response.body_mut() = Full::default();
            let headers = response.headers_mut();
            headers.insert("connection", "upgrade".parse().unwrap());
            headers.insert("upgrade", "echo/1".parse().unwrap());
        }
        _ => {}
    }
    Ok(response)
}

impl Rig {
    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn tls(&self) -> TlsStream<TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        self.trust.connect(name, self.tcp().await).await.unwrap()
    }

    async fn until_waiting(&self, count: usize) {
        until(|| self.waiting.load(Ordering::SeqCst) == count).await;
    }

    /// Ends the listener; gives how long that took.
    async fn end(self) -> Duration {
        let begun = Instant::now();
        self.drain.signal();
        patient(self.served).await.unwrap();
        begun.elapsed()
    }
}

async fn patient<F: Future>(future: F) -> F::Output {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.expect("this takes too long")
}

async fn until(condition: impl Fn() -> bool) {
    patient(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

async fn send(io: &mut (impl AsyncWrite + Unpin), text: &[u8]) {
    io.write_all(text).await.unwrap();
    io.flush().await.unwrap();
}

/// Reads until `end` was read, or the peer closed.
async fn read_until(io: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    patient(async {
        while !String::from_utf8_lossy(&text).ends_with(end) {
            if io.read_buf(&mut text).await.unwrap_or(0) == 0 {
                break;
            }
        }
    })
    .await;
    String::from_utf8_lossy(&text).into_owned()
}

/// All that comes until the peer closes.
async fn read_all(io: &mut (impl AsyncRead + Unpin)) -> String {
    read_until(io, "\0nothing ends so").await
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const WAIT: &[u8] = b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn plain_http_gets_a_400_that_says_https() {
    let rig = rig(Limits::default()).await;
    let big = format!("POST /x HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(40_000));
    for request in [GET, b"get", big.as_bytes()] {
        let mut tcp = rig.tcp().await;
        send(&mut tcp, request).await;
        let answer = read_all(&mut tcp).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{answer}"
        );
        assert!(answer.contains("this port speaks HTTPS"), "{answer}");
    }
    rig.end().await;
}

#[tokio::test]
async fn garbage_is_a_4xx_or_a_close() {
    let rig = rig(Limits::default()).await;
    for bytes in [
        &[0_u8; 100][..],
        &[22; 2000],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[255; 3],
        b"\r\n\r\n",
    ] {
        let mut tcp = rig.tcp().await;
        send(&mut tcp, bytes).await;
        // A peer that says no more: what it sent so far must not be answered with anything but an alert.
        tcp.shutdown().await.unwrap();
        assert!(!read_all(&mut tcp).await.contains("200"));
    }
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
    let long = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(70_000));
    for (bytes, status) in [
        (b"\x00\x01\x02\r\n\r\n".as_slice(), "400"),
        (b"GET / HTTP/9.9\r\n\r\n", "400"),
        (b"GET  HTTP/1.1\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\na: \x00\r\n\r\n", "400"),
        (
            b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "400",
        ),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"),
        (many.as_bytes(), "431"),
        (long.as_bytes(), "431"),
    ] {
        let mut tls = rig.tls().await;
        send(&mut tls, bytes).await;
        let answer = read_all(&mut tls).await;
        let line = answer.lines().next().unwrap_or_default();
        assert!(
            line.is_empty() || line.contains(status),
            "{:?}: {line:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    let mut tls = rig.tls().await;
    send(&mut tls, GET).await;
    assert!(read_until(&mut tls, "hello").await.contains("200 OK"));
    rig.end().await;
}

#[tokio::test]
async fn silence_and_slow_heads_are_cut() {
    let rig = rig(Limits {
        handshake: Duration::from_millis(200),
        head: Duration::from_millis(200),
        idle: Duration::from_hours(1),
        ..Limits::default()
    })
    .await;
    let mut silent = rig.tcp().await;
    assert_eq!(read_all(&mut silent).await, "");

    let mut slow = rig.tls().await;
    send(&mut slow, b"GET / HTTP/1.1\r\nHost: lo").await;
    assert_eq!(read_all(&mut slow).await, "");

    let mut slow_second = rig.tls().await;
    send(&mut slow_second, GET).await;
    read_until(&mut slow_second, "hello").await;
    send(&mut slow_second, b"G").await;
    assert_eq!(read_all(&mut slow_second).await, "");
    rig.end().await;
}

#[tokio::test]
async fn a_kept_connection_may_rest_longer_than_a_head_may_take() {
    let head = Duration::from_millis(50);
    let rig = rig(Limits {
        head,
        idle: Duration::from_hours(1),
        ..Limits::default()
    })
    .await;
    let mut tls = rig.tls().await;
    for _ in 0..3 {
        tokio::time::sleep(4 * head).await;
        send(&mut tls, GET).await;
        assert!(read_until(&mut tls, "hello").await.contains("200 OK"));
    }
    rig.end().await;
}

#[tokio::test]
async fn one_address_does_not_take_the_place_of_all() {
    let rig = rig(Limits {
        connections_of_peer: 2,
        ..Limits::default()
    })
    .await;
    let (first, _second) = (rig.tls().await, rig.tls().await);
    let mut third = rig.tcp().await;
    assert_eq!(read_all(&mut third).await, "", "closed at once");
    let elsewhere = tokio::net::TcpSocket::new_v4().unwrap();
    elsewhere.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let elsewhere = elsewhere.connect(rig.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut elsewhere = rig.trust.connect(name, elsewhere).await.unwrap();
    send(&mut elsewhere, GET).await;
    assert!(read_until(&mut elsewhere, "hello").await.contains("200 OK"));
    drop(first);
    patient(async {
        // Until the listener has seen that it is gone.
        while !is_served(&rig).await {}
    })
    .await;
    rig.end().await;
}

/// Whether a new connection of this address is answered.
async fn is_served(rig: &Rig) -> bool {
    let name = ServerName::try_from("localhost").unwrap();
    let Ok(mut tls) = rig.trust.connect(name, rig.tcp().await).await else {
        return false;
    };
    send(&mut tls, GET).await;
    read_until(&mut tls, "hello").await.contains("200 OK")
}

#[tokio::test]
async fn a_kept_connection_ends_at_the_idle_limit() {
    let rig = rig(Limits {
        head: Duration::from_hours(1),
        idle: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    let mut tls = rig.tls().await;
    send(&mut tls, GET).await;
    let answer = read_all(&mut tls).await;
    assert!(answer.ends_with("hello"), "{answer}");
    rig.end().await;
}

#[tokio::test]
async fn a_drain_loses_nothing_and_closes_what_rests() {
    let rig = rig(Limits::default()).await;
    let mut busy = rig.tls().await;
    send(&mut busy, WAIT).await;
    rig.until_waiting(1).await;
    let mut resting = rig.tls().await;
    send(&mut resting, GET).await;
    read_until(&mut resting, "hello").await;
    let mut fresh = rig.tls().await;
    let mut silent = rig.tcp().await;

    rig.drain.signal();
    assert_eq!(read_all(&mut resting).await, "");
    assert_eq!(read_all(&mut fresh).await, "");
    assert_eq!(read_all(&mut silent).await, "");
    until_refused(rig.address).await;
    assert!(!rig.served.is_finished());

    rig.release.notify_one();
    let answer = read_all(&mut busy).await;
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.ends_with("hello"), "{answer}");
    assert!(rig.end().await < Duration::from_secs(5));
}

async fn until_refused(address: SocketAddr) {
    patient(async { while TcpStream::connect(address).await.is_ok() {} }).await;
}

#[tokio::test]
async fn while_it_lingers_every_answer_closes_its_connection() {
    let rig = rig(Limits {
        linger: Duration::from_hours(1),
        ..Limits::default()
    })
    .await;
    let mut kept = rig.tls().await;
    send(&mut kept, GET).await;
    assert!(!read_until(&mut kept, "hello").await.contains("close"));
    rig.drain.signal();
    send(&mut kept, GET).await;
    assert!(read_all(&mut kept).await.contains("connection: close\r\n"));
    let mut late = rig.tls().await;
    send(&mut late, GET).await;
    let answer = read_all(&mut late).await;
    assert!(answer.contains("200 OK"), "{answer}");
    rig.served.abort();
}

#[tokio::test]
async fn the_drain_has_an_end() {
    let rig = rig(Limits {
        drain: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    let mut busy = rig.tls().await;
    send(&mut busy, WAIT).await;
    rig.until_waiting(1).await;
    assert!(rig.end().await >= Duration::from_millis(100));
    assert_eq!(read_all(&mut busy).await, "");
}

#[tokio::test]
async fn an_upgraded_connection_counts_until_it_ends() {
    let rig = rig(Limits {
        connections: 1,
        ..Limits::default()
    })
    .await;
    let mut upgraded = rig.tls().await;
    send(
        &mut upgraded,
        b"GET /upgrade HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: echo/1\r\n\r\n",
    )
    .await;
    let answer = read_until(&mut upgraded, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    send(&mut upgraded, b"ping").await;
    assert_eq!(read_until(&mut upgraded, "ping").await, "ping");

    let mut second = rig.tcp().await;
    send(&mut second, GET).await;
    let early = tokio::time::timeout(Duration::from_millis(100), second.read_u8()).await;
    assert!(early.is_err(), "the limit counts upgraded connections");
    rig.drain.signal();
    until_refused(rig.address).await;
    send(&mut upgraded, b"pong").await;
    assert_eq!(read_until(&mut upgraded, "pong").await, "pong");
    drop(upgraded);
    assert!(rig.end().await < Duration::from_secs(5));
}

#[tokio::test]
async fn the_next_connection_takes_the_new_certificate() {
    let rig = rig(Limits::default()).await;
    let mut old = rig.tls().await;
    let next = identity();
    rig.config.send_replace(next.server);
    send(&mut old, GET).await;
    assert!(read_until(&mut old, "hello").await.contains("200 OK"));

    let name = ServerName::try_from("localhost").unwrap();
    let refused = rig.trust.connect(name.clone(), rig.tcp().await).await;
    assert!(refused.is_err(), "the old root must not be served any more");
    let mut new = next.trust.connect(name, rig.tcp().await).await.unwrap();
    send(&mut new, GET).await;
    assert!(read_until(&mut new, "hello").await.contains("200 OK"));
    rig.end().await;
}

#[tokio::test]
async fn no_task_outlives_its_connection() {
    let rig = rig(Limits::default()).await;
    let handle = tokio::runtime::Handle::current();
    let before = handle.metrics().num_alive_tasks();
    for n in 0..200 {
        match n % 3 {
            0 => drop(rig.tcp().await),
            1 => drop(rig.tls().await),
            _ => {
                let mut tls = rig.tls().await;
                send(&mut tls, GET).await;
                read_until(&mut tls, "hello").await;
            }
        }
    }
    until(|| handle.metrics().num_alive_tasks() <= before).await;
    rig.end().await;
}

#[tokio::test]
async fn a_panic_ends_one_connection_only() {
    let rig = rig(Limits::default()).await;
    let mut other = rig.tls().await;
    let mut tls = rig.tls().await;
    send(&mut tls, b"GET /panic HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(read_all(&mut tls).await, "");
    send(&mut other, GET).await;
    assert!(read_until(&mut other, "hello").await.contains("200 OK"));
    rig.end().await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let first = Listener::bind(any, Limits::default()).await.unwrap();
    let error = Listener::bind(first.address(), Limits::default())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains(&first.address().to_string()),
        "{error}"
    );
}
