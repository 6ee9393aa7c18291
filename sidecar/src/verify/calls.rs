//! Openings and closings: each call that closes was opened, once. Holds only what is open.

use std::collections::HashMap;

use tollgate_shared::record::{AuditId, Event, Stage};

use super::chains::Place;
use super::facts::Recorded;

/// Calls that are open at this point of reading.
#[derive(Default)]
pub(super) struct Calls {
    open: HashMap<AuditId, Recorded>,
    /// Closings read before their openings: files in an odd order.
    early: HashMap<AuditId, Place>,
}

impl Calls {
    /// Takes a line into account; `recorded` is what a join needs of it. `false` for a second closing.
    pub(super) fn line(&mut self, event: &Event<'_>, place: Place, recorded: Recorded) -> bool {
        let Some(id) = event.audit_id else {
            return true;
        };
        match event.stage {
            Stage::RequestReceived => {
                if self.early.remove(&id).is_none() {
                    self.open.insert(id, recorded);
                }
            }
            Stage::ResponseStarted => {
                if let Some(open) = self.open.get_mut(&id) {
                    open.jti = recorded.jti;
                }
            }
            Stage::ResponseComplete => {
                if self.open.remove(&id).is_none() {
                    return self.early.insert(id, place).is_none();
                }
            }
        }
        true
    }

    /// Calls that nothing closes, and closings that nothing opens.
    pub(super) fn finish(
        self,
    ) -> (
        impl ExactSizeIterator<Item = (AuditId, Recorded)>,
        impl Iterator<Item = Place>,
    ) {
        (self.open.into_iter(), self.early.into_values())
    }
}
