//! A stand-in for the API server, for what a real one cannot be made to show: it keeps every byte that arrives, and answers as
//! it is told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The bearer token that the stand-in mints: `{"jti":"minted-1","iat":1700000000,"exp":1700000600}`, so its clock is years behind.
pub(crate) const MINTED: &str =
    "aGVhZA.eyJqdGkiOiJtaW50ZWQtMSIsImlhdCI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAwNjAwfQ.c2lnbmF0dXJl";

/// The bytes of a part of a token.
pub(crate) fn decode(part: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(part).unwrap()
}

/// What to do with one kind of request.
#[derive(Clone)]
pub(crate) enum Answer {
    /// These bytes; the connection stays open.
    Bytes(Vec<u8>),
    /// These bytes, then the end of the connection.
    Last(Vec<u8>),
    /// A TokenRequest that succeeded, with a token of its own each time.
    Token,
    /// A TokenRequest that succeeds with this credential, and gets 401 with any other.
    TokenFor(&'static str),
    /// Nothing, ever.
    Silence,
    /// These bytes, and then chunks for as long as anybody takes them.
    Flood(Vec<u8>),
    /// These bytes; then every byte comes back, until the agent's half is closed, then `bye`.
    Echo(Vec<u8>),
}

impl Answer {
    /// A JSON answer.
    pub(crate) fn json(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Bytes(
            format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
            )
            .into_bytes(),
        )
    }

    /// A TokenRequest that succeeded.
    pub(crate) fn minted() -> Self {
        Self::token(MINTED)
    }

    /// A TokenRequest that succeeded, with this token.
    pub(crate) fn token(token: &str) -> Self {
        let body = format!(r#"{{"status":{{"token":"{token}"}}}}"#);
        Self::json("201 Created", "", &body)
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Request line and headers.
    pub(crate) head: String,
    /// The body, chunks as they came.
    pub(crate) body: Vec<u8>,
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
    /// The token that [`Answer::Token`] gave.
    pub(crate) minted: Option<String>,
}

/// A token with these claims.
pub(crate) fn jwt(claims: &serde_json::Value) -> String {
    let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
    format!("aGVhZA.{payload}.c2lnbmF0dXJl")
}

impl Seen {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        let mut lines = self.head.lines();
        let value = lines.find_map(|line| line.strip_prefix(prefix.as_str()));
        value.unwrap_or_default()
    }

    /// Whether it asks for a token.
    pub(crate) fn is_mint(&self) -> bool {
        self.head
            .starts_with("POST /api/v1/namespaces/agents/serviceaccounts/default/token ")
    }
}

struct Shared {
    acceptor: Mutex<TlsAcceptor>,
    seen: Mutex<Vec<Seen>>,
    mint: Mutex<Answer>,
    call: Mutex<Answer>,
    minted: AtomicU32,
    closed: mpsc::UnboundedSender<()>,
}

/// The stand-in, serving until it is dropped.
pub(crate) struct ApiServer {
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    shared: Arc<Shared>,
    closed: tokio::sync::Mutex<mpsc::UnboundedReceiver<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl ApiServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ca_pem, acceptor) = certificates();
        let (closed, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            acceptor: Mutex::new(acceptor),
            seen: Mutex::default(),
            mint: Mutex::new(Answer::minted()),
            call: Mutex::new(Answer::json("200 OK", "", "{}")),
            minted: AtomicU32::new(0),
            closed,
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self {
            address,
            ca_pem,
            shared,
            closed: tokio::sync::Mutex::new(receiver),
            task,
        }
    }

    /// Shows a certificate of a new CA on new connections from now on; gives that CA.
    pub(crate) fn renew(&self) -> String {
        let (ca_pem, acceptor) = certificates();
        *self.shared.acceptor.lock().unwrap() = acceptor;
        ca_pem
    }

    /// Ends like a process that is killed: its connections break, and there are no new ones.
    pub(crate) async fn stop(&mut self) {
        self.task.abort();
        drop((&mut self.task).await);
    }

    /// Begins again where it was.
    pub(crate) async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.task = tokio::spawn(serve(listener, Arc::clone(&self.shared)));
    }

    /// Answers mints like this from now on.
    pub(crate) fn mints(&self, answer: Answer) {
        *self.shared.mint.lock().unwrap() = answer;
    }

    /// Answers everything else like this from now on.
    pub(crate) fn calls(&self, answer: Answer) {
        *self.shared.call.lock().unwrap() = answer;
    }

    /// What arrived, mints apart.
    pub(crate) fn seen_calls(&self) -> Vec<Seen> {
        self.shared
            .seen
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| !seen.is_mint())
            .cloned()
            .collect()
    }

    /// Waits until a call has arrived.
    pub(crate) async fn seen_call(&self) {
        while self.seen_calls().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Mints that arrived.
    pub(crate) fn seen_mints(&self) -> Vec<Seen> {
        self.shared
            .seen
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| seen.is_mint())
            .cloned()
            .collect()
    }

    /// Waits until the sidecar has closed one more connection.
    pub(crate) async fn connection_closed(&self) {
        self.closed.lock().await.recv().await.unwrap();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn certificates() -> (String, TlsAcceptor) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![
        SanType::IpAddress([127, 0, 0, 1].into()),
        SanType::DnsName("localhost".try_into().unwrap()),
    ];
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config =
        tollgate_shared::tls::server_config(vec![leaf.der().clone()], key, &[b"http/1.1"]).unwrap();
    (ca_pem, TlsAcceptor::from(Arc::new(config)))
}

/// Owns its connections.
async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    for number in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(connection(stream, number, Arc::clone(&shared)));
    }
}

async fn connection(stream: TcpStream, number: usize, shared: Arc<Shared>) {
    let acceptor = shared.acceptor.lock().unwrap().clone();
    let Ok(mut stream) = acceptor.accept(stream).await else {
        return;
    };
    while let Some(mut seen) = request(&mut stream, number).await {
        let answer = if seen.is_mint() {
            &shared.mint
        } else {
            &shared.call
        };
        let mut answer = answer.lock().unwrap().clone();
        if matches!(answer, Answer::Token) {
            let number = shared.minted.fetch_add(1, Ordering::SeqCst);
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let now = now.unwrap().as_secs();
            let token = jwt(
                &json!({ "jti": format!("00000000-0000-4000-8000-{number:012x}"), "iat": now, "exp": now + 600 }),
            );
            answer = Answer::token(&token);
            seen.minted = Some(token);
        }
        if let Answer::TokenFor(credential) = answer {
            let good = seen.header("authorization") == format!("Bearer {credential}");
            answer = match good {
                true => Answer::minted(),
                false => Answer::json("401 Unauthorized", "", "{}"),
            };
        }
        shared.seen.lock().unwrap().push(seen);
        match answer {
            Answer::Bytes(bytes) => stream.write_all(&bytes).await.unwrap_or_default(),
            Answer::Last(bytes) => {
                stream.write_all(&bytes).await.unwrap_or_default();
                stream.shutdown().await.unwrap_or_default();
                break;
            }
            Answer::Silence | Answer::Token | Answer::TokenFor(_) => break,
            Answer::Flood(bytes) => {
                stream.write_all(&bytes).await.unwrap_or_default();
                let chunk = [b"1000\r\n".as_slice(), &[b'x'; 0x1000], b"\r\n"].concat();
                while stream.write_all(&chunk).await.is_ok() {}
                shared.closed.send(()).unwrap_or_default();
                return;
            }
            Answer::Echo(bytes) => return echo(stream, &bytes).await,
        }
    }
    // Reads to the end, so that the end is noticed.
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest).await);
    shared.closed.send(()).unwrap_or_default();
}

async fn request(stream: &mut TlsStream<TcpStream>, connection: usize) -> Option<Seen> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    if head.contains("transfer-encoding: chunked") {
        while !body.ends_with(b"0\r\n\r\n") {
            body.push(stream.read_u8().await.ok()?);
        }
    }
    Some(Seen {
        head,
        body,
        connection,
        minted: None,
    })
}

async fn echo(mut stream: TlsStream<TcpStream>, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await.unwrap_or(0) {
            0 => break,
            read => stream.write_all(&buffer[..read]).await.unwrap(),
        }
    }
    stream.write_all(b"bye").await.unwrap();
    stream.shutdown().await.unwrap_or_default();
}
