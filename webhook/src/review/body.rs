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

/// Bodies that are larger than this wait for each other alone.
const ORDINARY: usize = 64 * 1024;

/// Room for ordinary bodies that are being read or judged at a time, in KiB: some dozen of the largest.
const ORDINARY_KIB: usize = 2 * 1024;

/// The same for larger ones: one of the largest, three of 2.5 MB.
const LARGE_KIB: usize = BODY_LIMIT / 1024 + 1;

/// Room for the bodies of all requests.
#[derive(Clone, Debug)]
pub(super) struct Room {
    ordinary: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            ordinary: Arc::new(Semaphore::new(ORDINARY_KIB)),
            large: Arc::new(Semaphore::new(LARGE_KIB)),
        }
    }
}

impl Room {
    /// The body of a request, and the room that it takes until it is let go.
    pub(super) async fn read(
        &self,
        request: Request<Incoming>,
    ) -> Result<(Vec<u8>, OwnedSemaphorePermit), Refused> {
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
        let body = collect(request.into_body(), known.unwrap_or_default());
        let body = timeout(BODY_TIME, body).await.map_err(|_| {
            let text = "the body did not come in time".to_owned();
            (StatusCode::REQUEST_TIMEOUT, text)
        })??;
        Ok((body, room))
    }

    async fn take(&self, size: usize) -> Result<OwnedSemaphorePermit, Refused> {
        let kib = u32::try_from(size / 1024 + 1).unwrap_or(u32::MAX);
        let room = if size > ORDINARY {
            &self.large
        } else {
            &self.ordinary
        };
        let room = Arc::clone(room).acquire_many_owned(kib).await;
        room.map_err(|_| internal())
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
