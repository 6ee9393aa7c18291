//! The real sidecar on free ports, with a stand-in for the API server behind it and a raw TLS client before it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test rig fails by panicking"
)]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test file uses its part of the rig"
)]

pub(crate) mod api_server;
pub(crate) mod logged;
pub(crate) mod program;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api_server::ApiServer;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tollgate_shared::drain;
use tollgate_sidecar::app::App;
use tollgate_sidecar::config::Config;

/// The bootstrap token of the rig.
pub(crate) const BOOTSTRAP: &str = "Ym9vdA.c3RyYXA.dG9rZW4";

/// Longer than anything here takes; only a hang meets it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Rig {
    pub(crate) api: ApiServer,
    pub(crate) folder: TempDir,
    port: u16,
    admin: u16,
    stop: drain::Drain,
    served: tokio::task::JoinHandle<()>,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// `knobs` are added to what a pod gives; `{port}` is that of the stand-in.
    pub(crate) async fn with(knobs: &[(&'static str, &str)]) -> Self {
        let api = ApiServer::start().await;
        let (folder, flags) = prepare(&api, knobs);
        let config = Config::read(flags, []).unwrap();
        let (stop, watch) = drain::channel();
        let app = App::start(&config, watch).await.unwrap();
        let (port, admin) = (app.addresses()[0].port(), app.admin_address().port());
        let served = tokio::spawn(app.run());
        let rig = Self {
            api,
            folder,
            port,
            admin,
            stop,
            served,
        };
        let ready =
            tokio::task::spawn_blocking(move || tollgate_sidecar::probe::wait(admin, PATIENCE));
        ready.await.unwrap().unwrap();
        rig
    }

    /// The local token of a container.
    pub(crate) fn token(&self, container: &str) -> String {
        token(self.folder.path(), container)
    }

    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        connect(self.folder.path(), self.port).await
    }

    /// Sends raw bytes with the agent's own token in place of `{auth}`, gives all that comes back until the end. A request
    /// should say `Connection: close`.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        let auth = format!("Authorization: Bearer {}\r\n", self.token("agent"));
        stream
            .write_all(request.replace("{auth}", &auth).as_bytes())
            .await
            .unwrap();
        read_to_end(&mut stream).await
    }

    /// A plain GET of a path by the agent.
    pub(crate) async fn get(&self, path: &str) -> String {
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\n{{auth}}Connection: close\r\n\r\n"
        ))
        .await
    }

    /// Everything that it counts.
    pub(crate) async fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        page
    }

    /// A metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let page = self.metrics().await;
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {page}"))
            .parse()
            .unwrap()
    }

    /// Waits until a metric has a value.
    pub(crate) async fn until_metric(&self, name: &str, value: f64) {
        let reached = async {
            while self.metric(name).await != value {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        reached.unwrap_or_else(|_| panic!("{name} does not become {value}"));
    }

    /// Ends the sidecar and gives its records.
    pub(crate) async fn end(mut self) -> Vec<Value> {
        self.stop.signal();
        tokio::time::timeout(PATIENCE, &mut self.served)
            .await
            .unwrap()
            .unwrap();
        self.records()
    }

    /// The records so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("records")).unwrap();
        for secret in [
            BOOTSTRAP,
            api_server::MINTED,
            &self.token("agent"),
            &self.token("helper"),
        ] {
            assert!(!text.contains(secret), "a token stands in the records");
        }
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// The folders of a pod, and what it gives to its sidecar; `knobs` are added, and `{port}` in them is that of the stand-in.
pub(crate) fn prepare(
    api: &ApiServer,
    knobs: &[(&'static str, &str)],
) -> (TempDir, Vec<(&'static str, String)>) {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["bootstrap", "agent", "state"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("bootstrap/token"), BOOTSTRAP).unwrap();
    fs::write(path("bootstrap/ca.crt"), &api.ca_pem).unwrap();
    let mut flags = vec![
        ("namespace", "agents".to_owned()),
        ("pod-name", "agent-0".to_owned()),
        ("pod-uid", "11111111-2222-3333-4444-555555555555".to_owned()),
        ("pod-service-account", "default".to_owned()),
        ("containers", "agent,helper".to_owned()),
        ("api-server", format!("https://{}", api.address)),
        ("bootstrap-dir", path("bootstrap")),
        ("agent-dir", path("agent")),
        ("state-dir", path("state")),
        ("record-file", path("records")),
        ("port", "0".to_owned()),
        ("admin-port", "0".to_owned()),
    ];
    let port = api.address.port().to_string();
    flags.extend(
        knobs
            .iter()
            .map(|(knob, value)| (*knob, value.replace("{port}", &port))),
    );
    (folder, flags)
}

/// What the kubelet does with a volume: `pkg/volume/util/atomic_writer.go`.
pub(crate) fn swap(folder: &Path, version: &str, token: &str) {
    fs::create_dir(folder.join(version)).unwrap();
    fs::write(folder.join(version).join("token"), token).unwrap();
    symlink(version, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

/// The local token of a container of the pod whose folders these are.
pub(crate) fn token(folder: &Path, container: &str) -> String {
    fs::read_to_string(folder.join("agent").join(container).join("token")).unwrap()
}

/// A connection as an agent of that pod makes it.
pub(crate) async fn connect(folder: &Path, port: u16) -> TlsStream<TcpStream> {
    let ca = fs::read(folder.join("agent/agent/ca.crt")).unwrap();
    let tls = tollgate_shared::tls::client_config(&ca, &[]).unwrap();
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let tls = TlsConnector::from(Arc::new(tls)).connect(name, tcp);
    tls.await.unwrap()
}

pub(crate) async fn read_to_end(stream: &mut TlsStream<TcpStream>) -> String {
    let mut bytes = Vec::new();
    // An end without close_notify is an end too.
    drop(
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes))
            .await
            .unwrap(),
    );
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until the text ends like this.
pub(crate) async fn read_until(stream: &mut TlsStream<TcpStream>, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8())
            .await
            .unwrap();
        text.push(
            byte.unwrap_or_else(|error| panic!("{error} after {text:?}"))
                .into(),
        );
    }
    text
}

/// An annotation of a record.
pub(crate) fn note<'a>(record: &'a Value, name: &str) -> &'a str {
    record["annotations"][format!("tollgate.dev/{name}")]
        .as_str()
        .unwrap_or_default()
}

/// The closing lines of agents' calls.
pub(crate) fn closings(records: &[Value]) -> Vec<&Value> {
    let of_call = |record: &&Value| !["first-mint", "mint-ahead"].contains(&note(record, "reason"));
    records
        .iter()
        .filter(|record| record["stage"] == "ResponseComplete")
        .filter(of_call)
        .collect()
}
