//! What verification found, and its verdict.

use std::fmt;

/// Faults that are described; more are only counted.
const DESCRIBED: usize = 20;

/// A bad line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Number of the file in the order of reading; faults are sorted by it.
    pub(super) file: usize,
    /// Line in the file, from 1.
    pub line: u64,
    /// `FILE:LINE: what is wrong with it`.
    pub message: String,
}

/// The counters of the join; the module's documentation says what each counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `joined`
    pub joined: u64,
    /// `aborted`
    pub aborted: u64,
    /// `unused-mint`
    pub unused_mint: u64,
    /// `missing-record`
    pub missing_record: u64,
    /// `missing-call`
    pub missing_call: u64,
    /// `not-logged`
    pub not_logged: u64,
}

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines of records, repetitions aside.
    pub lines: u64,
    /// Chains: one for each pod, and one more wherever a pod lost its state with its node.
    pub chains: u64,
    /// Calls that no line closes: still open, or the rest is missing.
    pub open: u64,
    /// Lines that a restarted recorder wrote again.
    pub repeated: u64,
    /// Lines that are none of ours.
    pub foreign: u64,
    /// The first bad lines, in order.
    pub faults: Vec<Fault>,
    /// All of them.
    pub fault_count: u64,
    /// With the cluster's audit log.
    pub counters: Option<Counters>,
    /// The first events and calls that are missing, for people.
    pub missing: Vec<String>,
    /// What is no fault, but should be known: what is not covered, and what is odd.
    pub notes: Vec<String>,
    /// All of them.
    pub note_count: u64,
}

impl Summary {
    /// The chains are whole, and no record and no call is missing.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let counters = self.counters.unwrap_or_default();
        self.fault_count == 0 && counters.missing_record == 0 && counters.missing_call == 0
    }

    /// For people: bad lines first, then what is missing, then what else should be known.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text = String::new();
        let faults = self.faults.iter().map(|fault| fault.message.as_str());
        for line in faults.chain(self.missing.iter().map(String::as_str)) {
            text.push_str(line);
            text.push('\n');
        }
        let more = self.fault_count.saturating_sub(self.faults.len() as u64);
        if more > 0 {
            text.push_str(&format!("and {more} more bad lines\n"));
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        let more = self.note_count.saturating_sub(self.notes.len() as u64);
        if more > 0 {
            text.push_str(&format!("and {more} more notes\n"));
        }
        text
    }

    pub(super) fn add(&mut self, fault: Fault) {
        self.fault_count += 1;
        self.faults.push(fault);
        self.faults.sort_by_key(|fault| (fault.file, fault.line));
        self.faults.truncate(DESCRIBED);
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        self.note_count += 1;
        if self.notes.len() < DESCRIBED {
            self.notes.push(what());
        }
    }

    pub(super) fn miss(&mut self, what: impl FnOnce() -> String) {
        if self.missing.len() < DESCRIBED {
            self.missing.push(what());
        }
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "joined={} aborted={} unused-mint={} missing-record={} missing-call={} not-logged={}",
            self.joined,
            self.aborted,
            self.unused_mint,
            self.missing_record,
            self.missing_call,
            self.not_logged
        )
    }
}

impl fmt::Display for Summary {
    /// The one line of results.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(counters) = &self.counters {
            return counters.fmt(f);
        }
        write!(
            f,
            "lines={} chains={} open={} repeated={} foreign={} bad={}",
            self.lines, self.chains, self.open, self.repeated, self.foreign, self.fault_count
        )
    }
}
