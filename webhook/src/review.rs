//! The webhook's HTTP side: `POST /mutate/<label>` and `/validate/<label>`, where `<label>` is the namespace's label as the API
//! server's own selector found it. Reads bodies within limits and answers; what is decided is `judge`'s business.

mod body;
mod judge;
mod pieces;
mod subject;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::watch;
use tollgate_shared::contract::Injection;

pub use self::body::BODY_LIMIT;
pub use self::pieces::Pieces;

use self::body::Room;
use self::judge::{Answer, Stage, Terms};
use crate::events::Hints;
use crate::inject::InjectConfig;
use crate::metrics::{Admission, Metrics};
use crate::voucher::{Vouchers, Vouching};

/// Answers reviews.
#[derive(Clone, Debug)]
pub struct Review {
    config: watch::Receiver<Arc<InjectConfig>>,
    vouchers: watch::Receiver<Arc<Vouchers>>,
    metrics: Metrics,
    room: Room,
    hints: Option<Hints>,
}

/// An answer that is no AdmissionReview: status, and one line of text.
type Refused = (StatusCode, String);

impl Review {
    /// Judges by the newest configuration of `config`, and vouches with the newest keys of `vouchers`.
    #[must_use]
    pub fn new(
        config: watch::Receiver<Arc<InjectConfig>>,
        vouchers: watch::Receiver<Arc<Vouchers>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            config,
            vouchers,
            metrics,
            room: Room::default(),
            hints: None,
        }
    }

    /// Leaves hints where there is something that a workload's owner should know.
    #[must_use]
    pub fn with_hints(self, hints: Hints) -> Self {
        Self {
            hints: Some(hints),
            ..self
        }
    }

    /// Answers one request, whatever it is.
    ///
    /// # Errors
    /// None; the type is what the serving loop wants.
    pub async fn answer(self, request: Request<Incoming>) -> Result<Response<Pieces>, Infallible> {
        let (stage, injection) = match route(request.method(), request.uri().path()) {
            Ok(found) => found,
            Err(refused) => return Ok(refuse(refused)),
        };
        let read = self.room.read(request).await;
        let begun = Instant::now();
        let mut admission = Admission {
            stage: stage.as_str(),
            injection: injection.as_str(),
            dry_run: "false",
            decision: "refused",
            reason: "bad-request",
        };
        let response = match read {
            Ok((body, _room)) => self.judge(stage, injection, &body, &mut admission),
            Err(refused) => refuse(refused),
        };
        self.metrics.admitted(&admission, begun.elapsed());
        Ok(response)
    }

    /// Answers a body, and notes in `admission` what was decided.
    fn judge(
        &self,
        stage: Stage,
        injection: Injection,
        body: &[u8],
        admission: &mut Admission,
    ) -> Response<Pieces> {
        let config = Arc::clone(&self.config.borrow());
        let keys = Arc::clone(&self.vouchers.borrow());
        let terms = Terms {
            config: &config,
            vouching: Some(Vouching {
                keys: &keys,
                now: OffsetDateTime::now_utc().unix_timestamp(),
            }),
        };
        let judge = || judge::answer(stage, injection, body, terms);
        // A panic is a fault of ours. It must cost one review, which then fails closed, not the process.
        match std::panic::catch_unwind(AssertUnwindSafe(judge)) {
            Ok(Ok(mut answer)) => {
                if let (Some(hints), Some(hint)) = (&self.hints, answer.hint.take()) {
                    hints.leave(hint);
                }
                if let Some(subject) = &answer.denied {
                    tracing::debug!(
                        stage = stage.as_str(),
                        namespace = subject.namespace,
                        pod_of = subject.pod_of,
                        reason = answer.reason.code(),
                        dry_run = answer.dry_run,
                        "denied"
                    );
                }
                admission.decision = answer.decision;
                admission.reason = answer.reason.code();
                admission.dry_run = if answer.dry_run { "true" } else { "false" };
                review(&answer)
            }
            Ok(Err(bad)) => {
                tracing::warn!(error = %bad, stage = stage.as_str(), "a review could not be read");
                refuse((StatusCode::BAD_REQUEST, bad.to_string()))
            }
            Err(_) => {
                self.metrics.panicked();
                tracing::error!(stage = stage.as_str(), "a review ended in a panic");
                admission.reason = "internal";
                refuse(internal())
            }
        }
    }
}

/// The AdmissionReview that answers a body posted to a path; pure, for replays and the fuzzer.
///
/// # Errors
/// What the 4xx would say.
pub fn reply(path: &str, body: &[u8], config: &InjectConfig) -> Result<Value, String> {
    let (stage, injection) = route(&Method::POST, path).map_err(|(_, text)| text)?;
    let terms = Terms {
        config,
        vouching: None,
    };
    let answer = judge::answer(stage, injection, body, terms);
    answer
        .map(|answer| answer.review)
        .map_err(|bad| bad.to_string())
}

/// What a request is about, by method and path.
fn route(method: &Method, path: &str) -> Result<(Stage, Injection), Refused> {
    let unknown = || {
        let text = "there are /mutate/… and /validate/…, with opt-in, enabled or enforced";
        (StatusCode::NOT_FOUND, text.to_owned())
    };
    let (stage, injection) = path
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .ok_or_else(unknown)?;
    let stage = match stage {
        "mutate" => Stage::Mutate,
        "validate" => Stage::Validate,
        _ => return Err(unknown()),
    };
    let injection = injection.parse().map_err(|_| unknown())?;
    if method != Method::POST {
        let text = "only POST".to_owned();
        return Err((StatusCode::METHOD_NOT_ALLOWED, text));
    }
    Ok((stage, injection))
}

fn internal() -> Refused {
    let text = "an error of this webhook's own; see its log".to_owned();
    (StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn review(answer: &Answer) -> Response<Pieces> {
    // A patch may be large, and a list that grows is copied.
    let patch = answer.review.pointer("/response/patch");
    let patch = patch.and_then(Value::as_str).unwrap_or_default();
    let mut body = Vec::with_capacity(patch.len() + 1024);
    match serde_json::to_writer(&mut body, &answer.review) {
        Ok(()) => respond(StatusCode::OK, "application/json", body),
        Err(_) => refuse(internal()),
    }
}

fn refuse((status, text): Refused) -> Response<Pieces> {
    let body = format!("{text}\n").into_bytes();
    let mut response = respond(status, "text/plain; charset=utf-8", body);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = HeaderValue::from_static("POST");
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Pieces> {
    let mut response = Response::new(Pieces::from(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
