//! Bodies of reviews: read within limits of size and time, and of memory for all of them together.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{Refused, internal};

/// The largest body. The API server takes objects of 3 MiB, and a review may hold two of them.
pub const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// How long a body may take. The API server waits 5 s for the whole answer.
const BODY_TIME: Duration = Duration::from_secs(5);

/// Bodies of this size wait for nobody: whoever holds a room without filling it would keep the API server's out. They are read as they
/// come, and the number of connections bounds what all of them take.
const ORDINARY: usize = 32 * 1024;

/// Room for larger bodies that are being read or judged at a time, in KiB: one of the largest, three of 2.5 MB.
const LARGE_KIB: usize = BODY_LIMIT / 1024 + 1;

/// Room for the large bodies of all requests.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LARGE_KIB)))
    }
}

impl Room {
    /// The body of a request, and the room that a large one takes until it is let go.
    pub(super) async fn read(
        &self,
        request: Request<Incoming>,
    ) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Refused> {
        check(request.headers())?;
        let known = request.body().size_hint().exact();
        let known = known.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        let size = known.unwrap_or(BODY_LIMIT);
        if size > BODY_LIMIT {
            return Err(too_large());
        }
        let room = timeout(BODY_TIME, self.take(size)).await.map_err(|_| {
            let text = "too many reviews at a time".to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, text)
        })??;
        // What was only announced takes no memory yet.
        let announced = room.is_some().then_some(known).flatten();
        let body = collect(request.into_body(), announced.unwrap_or_default());
        let body = timeout(BODY_TIME, body).await.map_err(|_| {
            let text = "the body did not come in time".to_owned();
            (StatusCode::REQUEST_TIMEOUT, text)
        })??;
        Ok((body, room))
    }

    async fn take(&self, size: usize) -> Result<Option<OwnedSemaphorePermit>, Refused> {
        if size <= ORDINARY {
            return Ok(None);
        }
        let kib = u32::try_from(size / 1024 + 1).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.0).acquire_many_owned(kib).await;
        room.map(Some).map_err(|_| internal())
    }
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

/// The bytes in one piece from the start: pieces that are joined at the end are there twice.
async fn collect(mut body: Incoming, size: usize) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::with_capacity(size);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            let text = "the body broke off".to_owned();
            (StatusCode::BAD_REQUEST, text)
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > BODY_LIMIT {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn too_large() -> Refused {
    let text = format!("the body is larger than {BODY_LIMIT} bytes");
    (StatusCode::PAYLOAD_TOO_LARGE, text)
}
