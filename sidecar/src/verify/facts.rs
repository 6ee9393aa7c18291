//! What the join needs of a line or an event: a few numbers, so that millions of them fit.

use sha2::{Digest as _, Sha256};
use tollgate_shared::record::{AuditId, Event, Stage, outcome};

use super::request::Object;

/// A credential id as a number: its UUID, or a hash of whatever else it is.
pub(super) type Jti = u128;

/// One line of the record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recorded {
    pub(super) audit: u128,
    pub(super) class: u64,
    pub(super) object: Object,
    /// Microseconds since 1970: when the request came.
    pub(super) time: u64,
    /// And when this line was made.
    pub(super) until: u64,
    /// The sidecar's own TokenRequest, for its stock.
    pub(super) stock: bool,
    pub(super) denied: bool,
    pub(super) jti: Option<Jti>,
}

/// One thing known about one token, from either side. They are sorted by token, then by call, records first, then by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fact {
    pub(super) jti: Jti,
    pub(super) audit: u128,
    pub(super) kind: Kind,
    /// When the request came. All that one server logs of one request has the same.
    pub(super) time: u64,
    /// When the line or the event was made; [`OPEN`] where more is to come.
    pub(super) until: u64,
    pub(super) object: Object,
    /// The kind of request; of an event, [`AGGREGATED`] if two servers may log it.
    pub(super) class: u64,
}

/// [`Fact::until`] of a call that no line closes.
pub(super) const OPEN: u64 = u64::MAX;
/// [`Fact::class`] of an event that an aggregated API server may have logged too.
pub(super) const AGGREGATED: u64 = 1;
/// Clocks of two servers may differ by as many microseconds.
const SKEW: u64 = 1_000_000;

/// What a [`Fact`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    /// A record: the token was minted for the stock, and went to a call, or nobody knows.
    Stock,
    /// A record: the sidecar minted the token for itself, and dropped it unused.
    Dropped,
    /// A record: the token was minted for this call, and the API server answered it.
    Answered,
    /// A record: the API server answered 401, so its log has no credential id.
    Rejected,
    /// A record: the answer is one that a load balancer, or an API server that begins or ends, gives before it logs anything.
    Turned,
    /// A record: the token was minted for this call, and that is all.
    Unanswered,
    /// A record: nobody knows how the call ended.
    Aborted,
    /// An event: a call of one of the pods.
    Call,
    /// An event: a call of unknown origin, or one that needs no record unless its token is a minted one.
    OtherCall,
    /// An event: one of the pods minted this token.
    Issued,
}

impl Kind {
    pub(super) const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Stock,
            1 => Self::Dropped,
            2 => Self::Answered,
            3 => Self::Rejected,
            4 => Self::Turned,
            5 => Self::Unanswered,
            6 => Self::Aborted,
            7 => Self::Call,
            8 => Self::OtherCall,
            9 => Self::Issued,
            _ => return None,
        })
    }
}

impl Fact {
    pub(super) fn is_record(&self) -> bool {
        self.kind <= Kind::Aborted
    }

    /// Whether this record is that of a call, and not of a mint of the sidecar's own.
    pub(super) const fn is_of_call(&self) -> bool {
        !matches!(self.kind, Kind::Stock | Kind::Dropped)
    }

    /// Whether the API server answered, as the record has it.
    pub(super) const fn is_answered(&self) -> bool {
        matches!(self.kind, Kind::Answered | Kind::Rejected | Kind::Turned)
    }

    pub(super) const fn is_call(&self) -> bool {
        matches!(self.kind, Kind::Call | Kind::OtherCall)
    }

    /// Whether this event of the same `auditID` is that of a recorded call.
    pub(super) fn is_of(&self, record: &Self) -> bool {
        record.is_of_call() && self.object.agrees(record.object)
    }

    /// Whether this event of the same `auditID` is another stage of that request, or what an aggregated API server logged
    /// while that request went through it.
    pub(super) fn is_same(&self, request: &Self) -> bool {
        let within = self.class == AGGREGATED && self.until <= request.until.saturating_add(SKEW);
        self.object.agrees(request.object) && (self.time == request.time || within)
    }

    /// For people.
    pub(super) fn describe(&self, why: &str) -> String {
        let what = match self.kind {
            Kind::Issued => "a mint",
            _ => "a call",
        };
        let [audit, jti] = [self.audit, self.jti].map(AuditId::from_number);
        format!("{what} with auditID {audit} and credential JTI={jti}: {why}")
    }
}

impl Recorded {
    /// What is known of the token of a call, if it had one.
    pub(super) fn fact(&self, jti: Jti, kind: Kind) -> Fact {
        Fact {
            jti,
            kind: match kind {
                Kind::Dropped if self.stock => Kind::Dropped,
                _ if self.stock => Kind::Stock,
                // No call ends so.
                Kind::Dropped => Kind::Unanswered,
                kind => kind,
            },
            audit: self.audit,
            object: self.object,
            class: self.class,
            time: self.time,
            until: self.until,
        }
    }
}

/// How a closing line says that the call ended.
pub(super) fn ending(event: &Event<'_>) -> Kind {
    let notes = &event.annotations;
    let code = event
        .response_status
        .as_ref()
        .and_then(|status| status.code);
    let outcome = notes.outcome.as_deref();
    if event.stage == Stage::ResponseComplete && outcome == Some(outcome::ABORTED) {
        Kind::Aborted
    } else if event.stage == Stage::ResponseComplete && outcome == Some(outcome::UNUSED) {
        Kind::Dropped
    } else if notes.upstream_seconds.is_none() && event.stage == Stage::ResponseComplete {
        Kind::Unanswered
    } else if code == Some(401) {
        Kind::Rejected
    } else if matches!(code, Some(429 | 502..=504)) {
        Kind::Turned
    } else {
        Kind::Answered
    }
}

pub(super) const fn audit(id: AuditId) -> u128 {
    id.number()
}

pub(super) fn jti(credential_id: &str) -> Jti {
    let text = credential_id.strip_prefix("JTI=").unwrap_or(credential_id);
    text.parse().map(audit).unwrap_or_else(|_| {
        let hash = Sha256::digest(text);
        hash.iter()
            .take(16)
            .fold(0, |number, byte| (number << 8) | u128::from(*byte))
    })
}
