//! The life of a call, strictly in the order of the design: canonical path, local checks, floor, record opened, mint, forward,
//! record closed. Each step passes on or answers with a `Status`; nothing is minted before the record is written, and nothing
//! is forwarded without a token.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tollgate_shared::drain;

use crate::body::{AgentBody, CallBody, Pace, Received};
use crate::call::Verb;
use crate::headers::{self, Hop, Upgrade};
use crate::local::LocalTokens;
use crate::metrics::Metrics;
use crate::mint::stock::Stock;
use crate::mint::{Mint, Minted};
use crate::rate::Bucket;
use crate::record::Recorder;
use crate::refusal::{Reason, Refusal};
use crate::status;
use crate::upstream::{Upstream, UpstreamError};

mod check;
mod entry;
mod opening;
mod relay;
mod tunnel;

use check::Checked;
use entry::Entry;
use opening::{opening, verb};
pub use relay::AnswerBody;
use relay::{Pending, Relay};
pub use tunnel::Tunnels;

/// How a call ended, beyond the words of `shared::record::outcome`.
mod how {
    /// The agent went away before the end.
    pub(super) const CLIENT_DISCONNECTED: &str = "client-disconnected";
    /// The API server broke off in the middle of its answer.
    pub(super) const UPSTREAM_FAILED: &str = "upstream-failed";
    /// The stream became as old as a stream may.
    pub(super) const MAX_STREAM_AGE: &str = "max-stream-age";
    /// The sidecar ended.
    pub(super) const SHUTDOWN: &str = "shutdown";
}

/// The API server ends every call that is not long-running after 60 s (`--request-timeout`); what takes longer is lost.
const ANSWER_LIMIT: Duration = Duration::from_secs(65);

/// Everything a call needs.
pub struct Proxy {
    /// Connections to the API server.
    pub upstream: Arc<Upstream>,
    /// Tokens for the call at hand.
    pub mint: Arc<Mint>,
    /// Tokens minted ahead, where they are.
    pub stock: Option<Arc<Stock>>,
    /// How many calls may be made.
    pub cap: Option<Mutex<Bucket>>,
    /// Records.
    pub recorder: Recorder,
    /// The agents' own tokens.
    pub local_tokens: LocalTokens,
    /// How old a stream may become.
    pub max_stream_age: Duration,
    /// How long an agent may make a plain call wait for its body, whatever it sends.
    pub body_grace: Duration,
    /// Ends streams on shutdown.
    pub drain: drain::Watch,
    /// Owns the upgraded connections.
    pub tunnels: Tunnels,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl Proxy {
    /// Answers one request of an agent.
    pub async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<AnswerBody> {
        let received = SystemTime::now();
        let (parts, body) = request.into_parts();
        let checked = self.check(&parts, &body);
        let verb = verb(checked.as_ref());
        let record = match self
            .recorder
            .open(opening(&parts, checked.as_ref(), peer, received))
            .await
        {
            Ok(record) => record,
            Err(error) => {
                let message = format!(
                    "the call was refused because {error}; is the reader of the sidecar's log stuck?"
                );
                let refusal = Refusal {
                    retry_after: Some(1),
                    ..Refusal::new(Reason::RecordUnavailable, message)
                };
                return status::response(&refusal).map(|body| AnswerBody::Own(Some(body)));
            }
        };
        let entry = Entry::new(record, verb, Arc::clone(&self.metrics));
        match checked {
            Ok(checked) => self.forward(parts, body, checked, entry).await,
            Err(refused) => entry.refuse(&refused.refusal, None),
        }
    }

    /// Steps 7 to 9.
    async fn forward(
        &self,
        mut parts: Parts,
        body: Incoming,
        checked: Checked,
        mut entry: Entry,
    ) -> Response<AnswerBody> {
        let Checked { call, hop, .. } = checked;
        let received = Received::default();
        let agent = parts.extensions.remove::<OnUpgrade>();
        let stream = call.is_long_running() || hop.upgrade().is_some();
        let body = match hop.upgrade() {
            Some(_) => CallBody::Own(None),
            None => {
                let pace = (!stream).then(|| Pace::new(self.body_grace));
                CallBody::Agent(AgentBody::new(body, received.clone(), pace))
            }
        };
        let sent = async {
            let minted = self.mint(&mut entry).await?;
            self.send(self.request(parts, body, &hop, &minted, &entry)?, stream)
                .await
        };
        let (response, took) = match sent.await {
            Ok(answer) => answer,
            Err(refusal) => {
                let refusal = received.fault().map_or(refusal, Refusal::from);
                return entry.refuse(&refusal, Some(&received));
            }
        };
        let code = response.status();
        // What a proxied backend says is not of our token.
        if let Some(stock) = &self.stock
            && code == StatusCode::UNAUTHORIZED
            && call.subresource != "proxy"
        {
            stock.distrust();
        }
        if stream {
            entry.stream_started(code);
        }
        let pending = Pending {
            entry,
            code,
            received,
            took,
        };
        match (code, hop.upgrade(), agent) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(upgrade), Some(agent))
                if upgrade.is_of(response.headers()) =>
            {
                self.switch(response, upgrade, agent, pending)
            }
            (StatusCode::SWITCHING_PROTOCOLS, ..) => {
                let refusal = Refusal::new(
                    Reason::UpstreamUnavailable,
                    "the API server switched to a protocol that was not asked for",
                );
                pending.entry.refuse(&refusal, Some(&pending.received))
            }
            _ => self.relay(response, pending, stream.then_some(call.verb)),
        }
    }

    /// Step 7, with its trace in the record.
    async fn mint(&self, entry: &mut Entry) -> Result<Minted, Refusal> {
        let stock = self.stock.as_ref();
        if let Some((minted, mint)) = stock.and_then(|stock| stock.take()) {
            entry.stocked(&minted, mint);
            return Ok(minted);
        }
        let started = Instant::now();
        match self.mint.mint(&self.upstream, entry.mint_audit_id()).await {
            Ok(minted) => {
                entry.minted(&minted, started.elapsed());
                Ok(minted)
            }
            Err(refusal) => {
                stock.inspect(|stock| stock.refused(&refusal));
                Err(refusal)
            }
        }
    }

    /// The agent's request as the API server gets it: the same bytes of path and query, our credential in place of its own.
    fn request(
        &self,
        parts: Parts,
        body: CallBody,
        hop: &Hop,
        minted: &Minted,
        entry: &Entry,
    ) -> Result<Request<CallBody>, Refusal> {
        let target: Option<PathAndQuery> = parts.uri.into_parts().path_and_query;
        let target =
            target.ok_or_else(|| Refusal::new(Reason::BadRequest, "the request has no path"))?;
        let mut request = Request::new(body);
        *request.method_mut() = parts.method;
        *request.uri_mut() = self.upstream.uri(target);
        *request.headers_mut() =
            hop.upstream(parts.headers, minted.token.bearer(), entry.audit_id());
        Ok(request)
    }

    async fn send(
        &self,
        request: Request<CallBody>,
        stream: bool,
    ) -> Result<(Response<Incoming>, Duration), Refusal> {
        let started = Instant::now();
        let limit = if stream {
            self.max_stream_age
        } else {
            ANSWER_LIMIT
        };
        match self.upstream.send(request, Some(limit)).await {
            Ok(response) => Ok((response, started.elapsed())),
            Err(error @ UpstreamError::Timeout(_)) => Err(Refusal::new(
                Reason::UpstreamTimeout,
                format!("the API server gave {error}"),
            )),
            Err(error) => {
                tracing::warn!(%error, "call failed");
                let message = format!("the API server could not be reached or broke off: {error}");
                Err(Refusal {
                    retry_after: Some(1),
                    ..Refusal::new(Reason::UpstreamUnavailable, message)
                })
            }
        }
    }

    fn switch(
        &self,
        response: Response<Incoming>,
        upgrade: Upgrade,
        agent: OnUpgrade,
        pending: Pending,
    ) -> Response<AnswerBody> {
        let mut answer = Response::new(AnswerBody::Own(None));
        *answer.status_mut() = response.status();
        *answer.headers_mut() = headers::downstream(response.headers().clone(), Some(upgrade));
        self.tunnels
            .open(agent, hyper::upgrade::on(response), pending, self.cut());
        answer
    }

    /// `stream` is the verb of a call that has no end of its own. Any other has one, but its agent need not read that far.
    fn relay(
        &self,
        response: Response<Incoming>,
        pending: Pending,
        stream: Option<Verb>,
    ) -> Response<AnswerBody> {
        let (mut head, body) = response.into_parts();
        head.headers = headers::downstream(head.headers, None);
        let age = self.max_stream_age;
        let relay = match stream {
            Some(verb) => Relay::new(body, pending, self.cut(), verb == Verb::Watch),
            None => {
                let unread = async move {
                    tokio::time::sleep(age).await;
                    how::MAX_STREAM_AGE
                };
                Relay::new(body, pending, unread, false)
            }
        };
        Response::from_parts(head, AnswerBody::Relay(relay))
    }

    /// Ends a stream at its age or at shutdown, whichever comes first.
    fn cut(&self) -> impl Future<Output = &'static str> + Send + 'static {
        let (age, mut drain) = (self.max_stream_age, self.drain.clone());
        async move {
            tokio::select! {
                () = tokio::time::sleep(age) => how::MAX_STREAM_AGE,
                () = drain.signaled() => how::SHUTDOWN,
            }
        }
    }
}
