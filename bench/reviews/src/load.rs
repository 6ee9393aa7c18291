//! Sends reviews over kept-alive connections and times the answers. An answer that is no patch ends the measurement: it would be
//! fast for the wrong reason.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use crate::CONNECTIONS;
use crate::webhook::Webhook;

/// What came of a phase.
pub(crate) struct Measured {
    /// Of each review, sorted.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) wall: Duration,
}

impl Measured {
    /// The latency that this share of the reviews kept.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a position in a list"
        )]
        let position = (last as f64 * share).round() as usize;
        self.latencies.get(position).copied().unwrap_or_default()
    }
}

/// A review to send again and again.
pub(crate) struct Load<'a> {
    webhook: &'a Webhook,
    body: Bytes,
}

impl<'a> Load<'a> {
    pub(crate) const fn new(webhook: &'a Webhook, body: Bytes) -> Self {
        Self { webhook, body }
    }

    /// On every connection the next as soon as the last is answered.
    pub(crate) async fn at_most(self, time: Duration) -> anyhow::Result<Measured> {
        let end = Instant::now() + time;
        self.on_each(CONNECTIONS, async move |_, sender, body| {
            let mut latencies = Vec::new();
            while Instant::now() < end {
                latencies.push(ask(sender, body).await?);
            }
            Ok(latencies)
        })
        .await
    }

    /// At a fixed rate, whatever the answers take, as long as a connection is free for the next.
    pub(crate) async fn paced(self, rate: u32, time: Duration) -> anyhow::Result<Measured> {
        let connections = u32::try_from(CONNECTIONS)?;
        let step = Duration::from_secs(1) * connections / rate;
        let end = Instant::now() + time;
        self.on_each(CONNECTIONS, async move |index, sender, body| {
            let offset = step * u32::try_from(index)? / connections;
            let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + offset, step);
            let mut latencies = Vec::new();
            while Instant::now() < end {
                ticks.tick().await;
                latencies.push(ask(sender, body).await?);
            }
            Ok(latencies)
        })
        .await
    }

    /// Some, on one connection.
    pub(crate) async fn one_by_one(self, count: usize) -> anyhow::Result<Measured> {
        self.on_each(1, async move |_, sender, body| {
            let mut latencies = Vec::new();
            for _ in 0..count {
                latencies.push(ask(sender, body).await?);
            }
            Ok(latencies)
        })
        .await
    }

    async fn on_each<F>(self, connections: usize, work: F) -> anyhow::Result<Measured>
    where
        F: AsyncFn(usize, &mut SendRequest<Full<Bytes>>, &Bytes) -> anyhow::Result<Vec<Duration>>
            + Clone
            + 'static,
    {
        let mut senders = Vec::new();
        for _ in 0..connections {
            let stream = TokioIo::new(self.webhook.connect().await?);
            let (sender, connection) = http1::handshake(stream).await?;
            tokio::spawn(connection);
            senders.push(sender);
        }
        let begun = Instant::now();
        let local = tokio::task::LocalSet::new();
        let mut tasks = JoinSet::new();
        for (index, mut sender) in senders.into_iter().enumerate() {
            let (work, body) = (work.clone(), self.body.clone());
            tasks.spawn_local_on(async move { work(index, &mut sender, &body).await }, &local);
        }
        let mut latencies = Vec::new();
        local
            .run_until(async {
                while let Some(ended) = tasks.join_next().await {
                    latencies.extend(ended??);
                }
                anyhow::Ok(())
            })
            .await?;
        let wall = begun.elapsed();
        latencies.sort_unstable();
        Ok(Measured { latencies, wall })
    }
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>, body: &Bytes) -> anyhow::Result<Duration> {
    sender.ready().await?;
    let request = Request::post("/mutate/enabled")
        .header("host", "tollgate-webhook.tollgate-system.svc")
        .header("content-type", "application/json")
        .body(Full::new(body.clone()))?;
    let begun = Instant::now();
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let text = answer.into_body().collect().await?.to_bytes();
    let took = begun.elapsed();
    ensure!(status == StatusCode::OK, "{status}");
    let patch = br#""patchType":"JSONPatch""#;
    ensure!(
        text.windows(patch.len()).any(|window| window == patch),
        "no patch: {}",
        String::from_utf8_lossy(&text)
    );
    Ok(took)
}
