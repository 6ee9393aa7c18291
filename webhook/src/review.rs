//! The webhook's HTTP side: `POST /mutate/<label>` and `/validate/<label>`, where `<label>` is the namespace's label as the API
//! server's own selector found it. Reads bodies within limits and answers; what is decided is `judge`'s business.

mod judge;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Incoming};
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tollgate_shared::contract::Injection;

use self::judge::{Answer, Stage, Terms};
use crate::events::Hints;
use crate::inject::InjectConfig;
use crate::metrics::{Admission, Metrics};
use crate::voucher::{Vouchers, Vouching};

/// The largest body. The API server takes objects of 3 MiB, and a review may hold two of them.
pub const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// All bodies that are being read or judged at a time, in KiB: parsed, a body takes several times its size.
const BODIES_KIB: usize = 32 * 1024;

/// How long a body may take. The API server waits 5 s for the whole answer.
const BODY_TIME: Duration = Duration::from_secs(5);

/// Answers reviews.
#[derive(Clone, Debug)]
pub struct Review {
    config: watch::Receiver<Arc<InjectConfig>>,
    vouchers: watch::Receiver<Arc<Vouchers>>,
    metrics: Metrics,
    room: Arc<Semaphore>,
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
            room: Arc::new(Semaphore::new(BODIES_KIB)),
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
    pub async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (stage, injection) = match route(request.method(), request.uri().path()) {
            Ok(found) => found,
            Err(refused) => return Ok(refuse(refused)),
        };
        let read = self.read(request).await;
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

    /// The body, and the room that it takes.
    async fn read(
        &self,
        request: Request<Incoming>,
    ) -> Result<(Bytes, OwnedSemaphorePermit), Refused> {
        check(request.headers())?;
        let known = request.body().size_hint().exact();
        let size = known.map_or(BODY_LIMIT, |size| {
            usize::try_from(size).unwrap_or(usize::MAX)
        });
        if size > BODY_LIMIT {
            return Err(too_large());
        }
        let slow = |_| {
            let text = "the body did not come in time".to_owned();
            (StatusCode::REQUEST_TIMEOUT, text)
        };
        let kib = u32::try_from(size / 1024 + 1).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(kib);
        let room = tokio::time::timeout(BODY_TIME, room).await.map_err(|_| {
            let text = "too many reviews at a time".to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, text)
        })?;
        let room = room.map_err(|_| internal())?;
        let body = Limited::new(request.into_body(), BODY_LIMIT).collect();
        let body = tokio::time::timeout(BODY_TIME, body).await.map_err(slow)?;
        let body = body.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                return too_large();
            }
            let text = "the body broke off".to_owned();
            (StatusCode::BAD_REQUEST, text)
        })?;
        Ok((body.to_bytes(), room))
    }

    /// Answers a body, and notes in `admission` what was decided.
    fn judge(
        &self,
        stage: Stage,
        injection: Injection,
        body: &[u8],
        admission: &mut Admission,
    ) -> Response<Full<Bytes>> {
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
pub fn reply(path: &str, body: &[u8], config: &InjectConfig) -> Result<serde_json::Value, String> {
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

fn check(headers: &HeaderMap) -> Result<(), Refused> {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::to_str);
    let essence = match kind {
        Some(Ok(kind)) => kind.split(';').next().unwrap_or_default().trim(),
        _ => "",
    };
    if !essence.eq_ignore_ascii_case("application/json") {
        let text = "the body must be application/json".to_owned();
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    // hyper has checked the value; here only its size counts, before a byte of the body is asked for.
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok());
    match length.map(str::parse::<usize>) {
        Some(Ok(length)) if length > BODY_LIMIT => Err(too_large()),
        _ => Ok(()),
    }
}

fn too_large() -> Refused {
    let text = format!("the body is larger than {BODY_LIMIT} bytes");
    (StatusCode::PAYLOAD_TOO_LARGE, text)
}

fn internal() -> Refused {
    let text = "an error of this webhook's own; see its log".to_owned();
    (StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn review(answer: &Answer) -> Response<Full<Bytes>> {
    match serde_json::to_vec(&answer.review) {
        Ok(body) => respond(StatusCode::OK, "application/json", body),
        Err(_) => refuse(internal()),
    }
}

fn refuse((status, text): Refused) -> Response<Full<Bytes>> {
    let body = format!("{text}\n").into_bytes();
    let mut response = respond(status, "text/plain; charset=utf-8", body);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = HeaderValue::from_static("POST");
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
