//! Thousands of calls of many kinds, and a sidecar that is killed meanwhile.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::{try_join, try_join_all};
use http::{Method, Request};
use kube::client::Body;
use serde_json::json;
use tokio::sync::watch;
use tollgate_e2e::process::Process;
use tollgate_e2e::wait;

use crate::Kept;

/// How much of it.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    /// Calls that get their answer.
    pub(crate) calls: u64,
    /// Times that the sidecar is killed meanwhile.
    pub(crate) kills: u64,
}

/// Calls at the same time.
const AGENTS: usize = 16;

/// One call of a mix, and the statuses that it may get.
struct Call {
    method: Method,
    path: String,
    body: Option<String>,
    expected: &'static [u16],
    /// The agent goes away once it begins to answer.
    leave: bool,
}

impl Call {
    /// The call of this number, in this namespace.
    fn new(number: u64, namespace: &str) -> Self {
        let all = format!("/api/v1/namespaces/{namespace}/configmaps");
        let get = |path: String, expected| Self {
            method: Method::GET,
            path,
            body: None,
            expected,
            leave: false,
        };
        let seed = format!("{all}/seed");
        match number % 20 {
            0..6 => get(seed, &[200]),
            6 => get(all, &[200]),
            7 => get(
                format!("{all}?labelSelector={}", "x%3Dy%2C".repeat(700)),
                &[200, 400],
            ),
            8..11 => Self {
                method: Method::POST,
                body: Some(json!({"metadata": {"name": format!("c-{number}")}}).to_string()),
                ..get(all, &[201])
            },
            // Some are made by a call that is killed, or still under way.
            11..14 => Self {
                method: Method::DELETE,
                ..get(format!("{all}/c-{}", number - 3), &[200, 404])
            },
            14 => get(format!("{all}/none-{number}"), &[404]),
            15 => get(
                "/api/v1/namespaces/kube-system/secrets/any".to_owned(),
                &[403],
            ),
            16 => Self {
                method: Method::POST,
                body: Some("{}".to_owned()),
                ..get(
                    format!("/api/v1/namespaces/{namespace}/serviceaccounts/default/token"),
                    &[403],
                )
            },
            17 => get(format!("{all}//seed"), &[400]),
            18 => Self {
                leave: true,
                ..get(format!("{all}?watch=true"), &[200])
            },
            _ => get("/version".to_owned(), &[200]),
        }
    }

    /// Whether it got its answer; `false` if the machine was too busy for it.
    async fn send(&self, agent: &kube::Client) -> anyhow::Result<bool> {
        let request = Request::builder()
            .method(&self.method)
            .uri(&self.path)
            .header("content-type", "application/json")
            .body(Body::from(
                self.body.clone().unwrap_or_default().into_bytes(),
            ))?;
        let answer = agent.send(request).await?;
        let code = answer.status().as_u16();
        if !self.leave {
            answer.into_body().collect_bytes().await?;
        }
        if matches!(code, 429 | 503) {
            return Ok(false);
        }
        ensure!(
            self.expected.contains(&code),
            Unexpected(format!("{} {}: {code}", self.method, self.path))
        );
        Ok(true)
    }
}

/// An answer that no fault of the sidecar's end explains.
#[derive(Debug)]
struct Unexpected(String);

impl std::fmt::Display for Unexpected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unexpected {}

/// What all agents of the long test share.
struct Load {
    namespace: String,
    calls: u64,
    begun: Cell<u64>,
    answered: Cell<u64>,
    /// When the last one was.
    last: Cell<Instant>,
    /// Tells the one who kills how far it is.
    progress: watch::Sender<u64>,
}

impl Load {
    /// Calls until all have got their answers; a sidecar that dies has a successor.
    async fn agent(&self, mut sidecar: watch::Receiver<kube::Client>) -> anyhow::Result<()> {
        while self.answered.get() < self.calls {
            let call = Call::new(self.begun.replace(self.begun.get() + 1), &self.namespace);
            let agent = sidecar.borrow_and_update().clone();
            match call.send(&agent).await {
                Ok(true) => {
                    self.answered.set(self.answered.get() + 1);
                    self.last.set(Instant::now());
                    self.progress.send_replace(self.answered.get());
                    continue;
                }
                Ok(false) => {}
                Err(error) if error.is::<Unexpected>() => return Err(error),
                // It was killed, or closed the connection just when it was to be used again.
                Err(error) => ensure!(
                    self.last.get().elapsed() < wait::LIMIT,
                    "no answer: {error:#}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

/// Makes the calls, and kills the sidecar meanwhile.
pub(crate) async fn load(
    size: Size,
    namespace: &str,
    process: &mut Process,
    kept: &mut Kept,
) -> anyhow::Result<()> {
    let (current, sidecar) = watch::channel(process.client());
    let (progress, mut answered) = watch::channel(0);
    let load = Load {
        namespace: namespace.to_owned(),
        calls: size.calls,
        begun: Cell::new(0),
        answered: Cell::new(0),
        last: Cell::new(Instant::now()),
        progress,
    };
    let agents = (0..AGENTS).map(|_| load.agent(sidecar.clone()));
    let kills = async {
        for kill in 1..=size.kills {
            let enough = kill * size.calls / (size.kills + 1);
            answered.wait_for(|answered| *answered >= enough).await?;
            process.kill_and_restart(|stdout| kept.keep(stdout)).await?;
            current.send_replace(process.client());
        }
        anyhow::Ok(())
    };
    try_join(try_join_all(agents), kills).await?;
    Ok(())
}
