//! The life of a call, strictly in the order of the design: canonical path, local checks, floor, record opened, mint, forward,
//! record closed. Each step passes on or answers with a `Status`; nothing is minted before the record is written, and nothing
//! is forwarded without a token.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::header::USER_AGENT;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use tollgate_shared::drain;

use crate::body::{AgentBody, CallBody, Fault, Pace, Received};
use crate::call::{Call, Verb};
use crate::headers::{self, Hop, Upgrade};
use crate::local::{self, LocalTokens};
use crate::metrics::Metrics;
use crate::mint::stock::Stock;
use crate::mint::{Mint, Minted};
use crate::rate::Bucket;
use crate::record::{Decision, ObjectRef, Opening, Recorder};
use crate::refusal::{Reason, Refusal};
use crate::upstream::{Upstream, UpstreamError};
use crate::{floor, status};

mod entry;
mod relay;
mod tunnel;

use entry::Entry;
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

/// A call that may go on.
struct Checked {
    call: Call,
    container: Option<String>,
    hop: Hop,
}

/// A call that may not, as far as it could be read.
struct Refused {
    call: Option<Box<Call>>,
    container: Option<String>,
    refusal: Refusal,
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

    /// Steps 2 to 4.
    fn check(&self, parts: &Parts, body: &Incoming) -> Result<Checked, Refused> {
        let unread = |refusal| Refused {
            call: None,
            container: None,
            refusal,
        };
        let call = Call::of_request(&parts.method, &parts.uri).map_err(unread)?;
        let mut container = None;
        match self.check_further(parts, body, &call, &mut container) {
            Ok(hop) => Ok(Checked {
                call,
                container,
                hop,
            }),
            Err(refusal) => Err(Refused {
                call: Some(Box::new(call)),
                container,
                refusal,
            }),
        }
    }

    fn check_further(
        &self,
        parts: &Parts,
        body: &Incoming,
        call: &Call,
        container: &mut Option<String>,
    ) -> Result<Hop, Refusal> {
        local::check(parts.version, &parts.headers)?;
        *container = self
            .local_tokens
            .authenticate(&parts.headers)?
            .map(str::to_owned);
        let hop = Hop::of(&parts.headers)?;
        if hop.upgrade().is_some() && !body.is_end_stream() {
            return Err(Refusal::new(
                Reason::BadRequest,
                "a request to upgrade the connection must have no body",
            ));
        }
        floor::check(call, &parts.headers)?;
        if self.drain.is_signaled() {
            return Err(Refusal::new(
                Reason::ShuttingDown,
                "the sidecar is shutting down with its pod",
            ));
        }
        self.within_cap()?;
        Ok(hop)
    }

    fn within_cap(&self) -> Result<(), Refusal> {
        let Some(cap) = &self.cap else {
            return Ok(());
        };
        let taken = cap
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(Instant::now());
        taken.map_err(|wait| Refusal {
            // Whole seconds, rounded up.
            retry_after: u32::try_from(wait.as_millis().div_ceil(1000)).ok(),
            ..Refusal::new(
                Reason::TooManyCalls,
                "this pod makes more calls a second than TOLLGATE_MAX_CALLS_PER_SECOND; try again after Retry-After",
            )
        })
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
                let refusal = received.fault().map_or(refusal, of_body);
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

/// A call that failed because of its own body.
fn of_body(fault: Fault) -> Refusal {
    match fault {
        Fault::Broken => Refusal::new(
            Reason::BadRequest,
            "the body of the request broke off, or its chunks are malformed",
        ),
        Fault::Slow => Refusal::new(
            Reason::BodyTooSlow,
            "the body of the request came too slowly; have it ready before the request begins",
        ),
    }
}

/// The verb as a metric label.
fn verb(checked: Result<&Checked, &Refused>) -> &'static str {
    match checked {
        Ok(checked) => checked.call.verb.as_str(),
        Err(refused) => refused.call.as_ref().map_or("", |call| call.verb.as_str()),
    }
}

fn opening(
    parts: &Parts,
    checked: Result<&Checked, &Refused>,
    peer: SocketAddr,
    received: SystemTime,
) -> Opening {
    let (call, container, refusal) = match checked {
        Ok(checked) => (Some(&checked.call), &checked.container, None),
        Err(refused) => (
            refused.call.as_deref(),
            &refused.container,
            Some(&refused.refusal),
        ),
    };
    Opening {
        verb: call.map_or_else(
            || parts.method.as_str().to_ascii_lowercase(),
            |call| call.verb.to_string(),
        ),
        uri: call.map_or_else(|| parts.uri.to_string(), |call| call.target().to_owned()),
        object: call.filter(|call| call.resource_request).map(object),
        container: container.clone(),
        user_agent: parts
            .headers
            .get(USER_AGENT)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        source_ip: Some(peer.ip()),
        decision: if refusal.is_some() {
            Decision::Deny
        } else {
            Decision::Allow
        },
        reason: refusal.map_or("no-policy", |refusal| refusal.reason.code()),
        tier: refusal.map_or("policy", |refusal| refusal.reason.tier()),
        policy: None,
        received,
    }
}

fn object(call: &Call) -> ObjectRef<'static> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned().into());
    ObjectRef {
        resource: text(&call.resource),
        namespace: text(&call.namespace),
        name: text(&call.name),
        api_group: text(&call.group),
        api_version: text(&call.version),
        subresource: text(&call.subresource),
    }
}
