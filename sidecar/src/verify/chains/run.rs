//! Lines of one pod, one after the other.

use std::collections::VecDeque;

use tollgate_shared::record::{Chain, Digest, MAX_REPEATED};

/// Where a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) struct Place {
    pub(in crate::verify) file: usize,
    pub(in crate::verify) line: u64,
}

/// Lines of one pod, each the successor of the one before.
pub(super) struct Run {
    pub(super) pod: String,
    pub(super) first: Place,
    /// The place in the chain before the first line, and the first line's hash.
    pub(super) before: Chain,
    pub(super) begin: Digest,
    pub(super) last: Chain,
    pub(super) last_place: Place,
    /// Hashes of the last lines, oldest first: those that a restarted recorder may write again.
    recent: VecDeque<Digest>,
    /// The break before this run was reported, or there is none.
    pub(super) explained: bool,
    /// A later run continues this one.
    pub(super) continued: bool,
}

impl Run {
    pub(super) fn new(
        pod: &str,
        first: Place,
        before: Chain,
        here: Chain,
        explained: bool,
    ) -> Self {
        Self {
            pod: pod.to_owned(),
            first,
            before,
            begin: here.hash,
            last: here,
            last_place: first,
            recent: VecDeque::from([here.hash]),
            explained,
            continued: false,
        }
    }

    /// Whether a line comes next, or is the repetition of one of the last.
    pub(super) fn knows(&self, before: Chain, here: Chain) -> bool {
        before == self.last || self.repeats(here)
    }

    fn repeats(&self, here: Chain) -> bool {
        let back = self.last.sequence.checked_sub(here.sequence);
        let back = back.and_then(|back| usize::try_from(back).ok());
        back.and_then(|back| self.recent.iter().rev().nth(back)) == Some(&here.hash)
    }

    /// `false` for a repetition.
    pub(super) fn extend(&mut self, here: Chain, place: Place) -> bool {
        if self.repeats(here) {
            return false;
        }
        self.last = here;
        self.last_place = place;
        if self.recent.len() == MAX_REPEATED {
            self.recent.pop_front();
        }
        self.recent.push_back(here.hash);
        true
    }
}
