//! Allowed calls whose records know no token: killed, still open, or the mint failed. What the cluster's log says under the call's
//! `Audit-ID`, or under that of its mint, may tell the token; the first one counts, a second one is somebody else's.

use std::collections::HashMap;

use tollgate_shared::record::AuditId;

use super::facts::{Fact, Jti, Kind, Recorded};

/// These calls.
#[derive(Default)]
pub(super) struct Lost {
    calls: HashMap<AuditId, Call>,
    /// By the `Audit-ID` of the mint.
    mints: HashMap<AuditId, AuditId>,
}

struct Call {
    recorded: Recorded,
    end: End,
    token: Option<Jti>,
}

/// How a call without a token ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Aborted,
    /// The sidecar answered: no token, no call.
    Refused,
    /// Not yet.
    Open,
}

impl Lost {
    pub(super) fn add(&mut self, id: AuditId, recorded: Recorded, end: End) {
        self.mints.insert(id.for_mint(), id);
        let call = Call {
            recorded,
            end,
            token: None,
        };
        self.calls.insert(id, call);
    }

    /// A token was minted under this `Audit-ID`: what the record of its call would have said.
    pub(super) fn minted(&mut self, id: AuditId, token: Jti) -> Option<Fact> {
        let call = self.calls.get_mut(self.mints.get(&id)?)?;
        call.token.is_none().then(|| call.tell(token))
    }

    /// A call was made with this token: what its record would have said.
    pub(super) fn called(&mut self, id: AuditId, token: Jti) -> Option<Fact> {
        let call = self.calls.get_mut(&id)?;
        let may = call.token.is_none() && call.end != End::Refused;
        may.then(|| call.tell(token))
    }

    /// The same where the event names no pod, as those of tokens that are bound to a node: it has to be that very request, which
    /// the sidecar's own mints never are.
    pub(super) fn called_as(&mut self, event: &Fact) -> Option<Fact> {
        let id = AuditId::from_number(event.audit);
        let call = self.calls.get(&id)?;
        let told = call.recorded.fact(event.jti, Kind::Aborted);
        event.is_of(&told).then(|| self.called(id, event.jti))?
    }

    /// Calls that were aborted and whose token, if there was one, nothing tells.
    pub(super) fn untold(&self) -> u64 {
        let calls = self.calls.values();
        let untold = calls.filter(|call| call.end == End::Aborted && call.token.is_none());
        untold.count() as u64
    }
}

impl Call {
    fn tell(&mut self, token: Jti) -> Fact {
        self.token = Some(token);
        let kind = match self.end {
            End::Aborted => Kind::Aborted,
            End::Refused | End::Open => Kind::Unanswered,
        };
        self.recorded.fact(token, kind)
    }
}
