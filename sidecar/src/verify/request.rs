//! A request as both sides describe it, as a few numbers. Texts are hashed with keys of this process.

use std::hash::{BuildHasher as _, RandomState};

use tollgate_shared::record::{Decision, Event};

use super::cluster::Logged;
use super::facts::{Recorded, audit, jti};

/// Verb and object. What is 0 is not known: the API server learns some names from bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    verb: u32,
    namespace: u32,
    name: u32,
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
            until: event.stage_timestamp.micros(),
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
    /// Groups of Kubernetes' own without a dot, and the nameless one, are never served by another server.
    pub(super) fn may_be_aggregated(&self) -> bool {
        self.group.is_some_and(|group| group.contains('.'))
    }

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
