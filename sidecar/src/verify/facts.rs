//! What the join needs of a line or an event: a few numbers, so that millions of them fit. Texts are hashed with keys of this
//! process.

use std::hash::{BuildHasher as _, RandomState};

use sha2::{Digest as _, Sha256};
use tollgate_shared::record::{AuditId, Decision, Event, Stage, outcome};

use super::cluster::Logged;

/// A credential id as a number: its UUID, or a hash of whatever else it is.
pub(super) type Jti = u128;

/// One line of the record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recorded {
    pub(super) audit: u128,
    pub(super) class: u64,
    pub(super) object: Object,
    /// Microseconds since 1970, of the request.
    pub(super) time: u64,
    /// The sidecar's own TokenRequest, for its stock.
    pub(super) stock: bool,
    pub(super) denied: bool,
    pub(super) jti: Option<Jti>,
}

/// Verb and object. What is 0 is not known: the API server learns some names from bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    verb: u32,
    namespace: u32,
    name: u32,
}

/// One thing known about one token, from either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fact {
    pub(super) jti: Jti,
    pub(super) kind: Kind,
    pub(super) audit: u128,
    pub(super) object: Object,
    pub(super) class: u64,
    pub(super) time: u64,
}

/// What a [`Fact`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    /// A record: the token was minted for the stock.
    Stock,
    /// A record: the token was minted for this call, and the API server answered it.
    Answered,
    /// A record: the API server answered 401, so its log has no credential id.
    Rejected,
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

/// Hashes texts.
#[derive(Clone, Debug, Default)]
pub(super) struct Hasher(RandomState);

impl Hasher {
    fn part(&self, text: Option<&str>) -> u32 {
        let text = text.filter(|text| !text.is_empty());
        // The lower half is as good as the whole; 0 is taken.
        text.map_or(0, |text| (self.0.hash_one(text) as u32).max(1))
    }

    pub(super) fn recorded(&self, event: &Event<'_>) -> Recorded {
        let object = event.object_ref.as_ref();
        let request = Request {
            user: &event.user.username,
            verb: &event.verb,
            uri: &event.request_uri,
            group: object.and_then(|object| object.api_group.as_deref()),
            resource: object.and_then(|object| object.resource.as_deref()),
            subresource: object.and_then(|object| object.subresource.as_deref()),
            namespace: object.and_then(|object| object.namespace.as_deref()),
            name: object.and_then(|object| object.name.as_deref()),
        };
        let denied = event.annotations.decision == Decision::Deny;
        let notes = &event.annotations;
        Recorded {
            audit: event.audit_id.map(audit).unwrap_or_default(),
            class: self.class(&request),
            object: self.object(&request),
            time: event.request_received_timestamp.micros(),
            stock: !denied && request.is_token_request(),
            denied,
            jti: notes.credential_id.as_deref().map(jti),
        }
    }

    pub(super) fn class_of(&self, event: &Logged<'_>) -> u64 {
        self.class(&event.request())
    }

    pub(super) fn object_of(&self, event: &Logged<'_>) -> Object {
        self.object(&event.request())
    }

    fn class(&self, request: &Request<'_>) -> u64 {
        let path = match request.resource {
            Some(_) => "",
            None => request.uri.split('?').next().unwrap_or_default(),
        };
        let parts = [
            request.group,
            request.resource,
            request.subresource,
            request.namespace,
        ];
        let parts = parts.map(Option::unwrap_or_default);
        self.0.hash_one((request.user, request.verb, path, parts))
    }

    fn object(&self, request: &Request<'_>) -> Object {
        let what = (request.verb, request.resource, request.subresource);
        Object {
            verb: (self.0.hash_one(what) as u32).max(1),
            namespace: self.part(request.namespace),
            name: self.part(request.name),
        }
    }
}

/// A request as either side describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) user: &'a str,
    pub(super) verb: &'a str,
    pub(super) uri: &'a str,
    pub(super) group: Option<&'a str>,
    pub(super) resource: Option<&'a str>,
    pub(super) subresource: Option<&'a str>,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: Option<&'a str>,
}

impl Request<'_> {
    pub(super) fn is_token_request(&self) -> bool {
        self.verb == "create"
            && self.resource == Some("serviceaccounts")
            && self.subresource == Some("token")
    }
}

impl Object {
    pub(super) const fn parts(self) -> [u32; 3] {
        [self.verb, self.namespace, self.name]
    }

    pub(super) const fn from_parts([verb, namespace, name]: [u32; 3]) -> Self {
        Self {
            verb,
            namespace,
            name,
        }
    }

    /// Whether both may be the same object.
    pub(super) const fn agrees(self, other: Self) -> bool {
        const fn same(one: u32, other: u32) -> bool {
            one == 0 || other == 0 || one == other
        }
        self.verb == other.verb
            && same(self.namespace, other.namespace)
            && same(self.name, other.name)
    }
}

impl Kind {
    pub(super) const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Stock,
            1 => Self::Answered,
            2 => Self::Rejected,
            3 => Self::Unanswered,
            4 => Self::Aborted,
            5 => Self::Call,
            6 => Self::OtherCall,
            7 => Self::Issued,
            _ => return None,
        })
    }
}

impl Fact {
    pub(super) const fn is_call(&self) -> bool {
        matches!(self.kind, Kind::Call | Kind::OtherCall)
    }

    /// Whether this event is that of a recorded call.
    pub(super) fn is_of(&self, record: &Self) -> bool {
        record.kind != Kind::Stock && self.agrees(record)
    }

    /// Whether two events may be of one request.
    pub(super) fn is_same(&self, event: &Self) -> bool {
        event.kind == self.kind && self.agrees(event)
    }

    fn agrees(&self, other: &Self) -> bool {
        self.audit == other.audit && self.object.agrees(other.object)
    }

    /// For people.
    pub(super) fn missing(&self, counter: &str) -> String {
        let what = if self.kind == Kind::Issued {
            "a mint"
        } else {
            "a call"
        };
        let (audit, jti) = (
            AuditId::from_number(self.audit),
            AuditId::from_number(self.jti),
        );
        format!("{counter}: {what} with auditID {audit} and credential JTI={jti}")
    }
}

impl Recorded {
    /// What is known of the token of a call, if it had one.
    pub(super) fn fact(&self, jti: Jti, kind: Kind) -> Fact {
        Fact {
            jti,
            kind: if self.stock { Kind::Stock } else { kind },
            audit: self.audit,
            object: self.object,
            class: self.class,
            time: self.time,
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
    if event.stage == Stage::ResponseComplete && notes.outcome.as_deref() == Some(outcome::ABORTED)
    {
        Kind::Aborted
    } else if notes.upstream_seconds.is_none() && event.stage == Stage::ResponseComplete {
        Kind::Unanswered
    } else if code == Some(401) {
        Kind::Rejected
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
