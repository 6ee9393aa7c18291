//! The sidecar as a process, for what concerns one: signals, exit codes, output.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::api_server::ApiServer;
use super::{PATIENCE, connect, prepare};

/// A running sidecar; killed when it is dropped.
pub(crate) struct Program {
    pub(crate) api: ApiServer,
    pub(crate) folder: TempDir,
    pub(crate) admin: u16,
    port: u16,
    child: Child,
    stderr: BufReader<ChildStderr>,
}

/// The program with these arguments and an empty environment.
pub(crate) fn command(arguments: impl IntoIterator<Item = String>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate-sidecar"));
    command.args(arguments).env_clear();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `run` with these flags.
pub(crate) fn run(flags: Vec<(&'static str, String)>) -> Command {
    let flags = flags
        .into_iter()
        .flat_map(|(knob, value)| [format!("--{knob}"), value]);
    command(std::iter::once("run".to_owned()).chain(flags))
}

impl Program {
    pub(crate) async fn start(knobs: &[(&'static str, &str)]) -> Self {
        let api = ApiServer::start().await;
        let (folder, flags) = prepare(&api, knobs);
        let mut child = run(flags).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let listening = tokio::task::spawn_blocking(move || {
            loop {
                let mut line = String::new();
                assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended");
                let line: Value = serde_json::from_str(&line).unwrap();
                if line["message"] == "listening" {
                    return (line, stderr);
                }
            }
        });
        let (line, stderr) = listening.await.unwrap();
        let port = |address: &str| address.parse::<SocketAddr>().unwrap().port();
        let proxy = line["proxy"].as_str().unwrap().trim_matches(['[', ']']);
        let program = Self {
            api,
            folder,
            admin: port(line["admin"].as_str().unwrap()),
            port: port(proxy.split(',').next().unwrap()),
            child,
            stderr,
        };
        let probe = program.probe("30s").await;
        assert!(probe.success(), "{probe}");
        program
    }

    /// `tollgate-sidecar probe`.
    pub(crate) async fn probe(&self, timeout: &str) -> ExitStatus {
        let port = self.admin.to_string();
        let arguments = ["probe", "--admin-port", &port, "--timeout", timeout];
        let mut probe = command(arguments.map(str::to_owned));
        let ended = tokio::task::spawn_blocking(move || probe.output().unwrap().status);
        ended.await.unwrap()
    }

    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        connect(self.folder.path(), self.port).await
    }

    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for the end, and gives the exit code and the log since the start.
    pub(crate) async fn ended(mut self) -> (Option<i32>, String, TempDir) {
        let mut child = self.child;
        let waiting = tokio::task::spawn_blocking(move || {
            let mut log = String::new();
            self.stderr.read_to_string(&mut log).unwrap();
            (child.wait().unwrap().code(), log)
        });
        let (code, log) = tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap()
            .unwrap();
        (code, log, self.folder)
    }
}
