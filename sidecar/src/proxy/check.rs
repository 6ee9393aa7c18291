//! Whether a call may go on: canonical path, local checks, floor, and the sidecar's own state.

use std::sync::PoisonError;
use std::time::Instant;

use http::request::Parts;
use hyper::body::{Body as _, Incoming};

use super::Proxy;
use crate::call::Call;
use crate::headers::Hop;
use crate::refusal::{Reason, Refusal};
use crate::{floor, local};

/// A call that may go on.
pub(super) struct Checked {
    pub(super) call: Call,
    pub(super) container: Option<String>,
    pub(super) hop: Hop,
}

/// A call that may not, as far as it could be read.
pub(super) struct Refused {
    pub(super) call: Option<Box<Call>>,
    pub(super) container: Option<String>,
    pub(super) refusal: Refusal,
}

impl Proxy {
    /// Steps 2 to 4.
    pub(super) fn check(&self, parts: &Parts, body: &Incoming) -> Result<Checked, Refused> {
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
}
