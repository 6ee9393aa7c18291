//! The verdict on each token, once all that is known of it is together.

use std::collections::{HashMap, HashSet};
use std::io;

use tollgate_shared::record::{AuditId, Timestamp};

use super::facts::{Fact, Kind};
use super::lost::Lost;
use super::spill::Spill;
use super::summary::{Counters, Summary};

/// What the cluster's log says beyond single tokens.
pub(super) struct Log {
    /// Calls that the API server answered with 401, and whether the log has that.
    pub(super) rejected: HashMap<u128, bool>,
    /// Kinds of requests in the records, and whether the log has any.
    pub(super) classes: HashMap<u64, bool>,
    /// First and last time in the log.
    pub(super) span: Option<(u64, u64)>,
}

struct Judge<'a> {
    log: &'a Log,
    lost: Lost,
    counters: Counters,
    /// Calls that the log does not cover.
    beyond: u64,
    summary: &'a mut Summary,
}

/// Decides token by token, and adds the counters.
pub(super) fn judge(
    spill: Spill,
    log: &Log,
    lost: Lost,
    counters: Counters,
    summary: &mut Summary,
) -> io::Result<()> {
    let mut judge = Judge {
        log,
        lost,
        counters,
        beyond: 0,
        summary,
    };
    for facts in spill.parts() {
        for token in facts?.chunk_by(|one, other| one.jti == other.jti) {
            judge.token(token);
        }
    }
    judge.counters.aborted += judge.lost.untold();
    let Judge {
        counters, beyond, ..
    } = judge;
    if let Some((first, last)) = log.span.filter(|_| beyond > 0) {
        let [first, last] = [first, last].map(Timestamp::from_micros);
        summary.note(|| {
            format!(
                "not covered: {beyond} calls lie outside of the cluster's log, which goes from {first} to {last}"
            )
        });
    }
    summary.counters = Some(counters);
    Ok(())
}

impl Judge<'_> {
    fn token(&mut self, facts: &[Fact]) {
        let records = || facts.iter().filter(|fact| fact.is_record());
        let mints: HashSet<AuditId> = records()
            .map(|record| AuditId::from_number(record.audit).for_mint())
            .collect();
        let recorded = !mints.is_empty();
        // Minted ahead, and no record says for which call it was taken.
        let mut free = records().all(|record| record.kind == Kind::Stock);
        let mut claimed = records().any(|record| record.kind == Kind::Dropped);
        for call in facts.chunk_by(|one, other| one.audit == other.audit) {
            let count = call.iter().take_while(|fact| fact.is_record()).count();
            let (mut records, events) = call.split_at(count);
            let taker = (recorded && free).then(|| self.taker(events)).flatten();
            if taker.is_some() {
                (records, free) = (taker.as_slice(), false);
            }
            self.call(records, events, recorded);
            let claims = records.iter().find(|record| record.is_of_call());
            if let Some(second) = claims.filter(|_| claimed) {
                self.missing(second, "another record accounts for the same token");
            }
            claimed |= claims.is_some();
        }
        let issued = facts.iter().filter(|fact| fact.kind == Kind::Issued);
        let stray = issued.filter(|mint| !mints.contains(&AuditId::from_number(mint.audit)));
        stray.for_each(|mint| self.missing(mint, "no record has this mint"));
        let used = facts.iter().any(Fact::is_call);
        if recorded && !used && !records().any(Fact::is_answered) {
            self.counters.unused_mint += 1;
        }
    }

    /// The call that a token was minted ahead for, if its sidecar was killed before the closing line that would say so.
    fn taker(&mut self, events: &[Fact]) -> Option<Fact> {
        let calls = events.iter().filter(|event| event.is_call());
        calls.filter_map(|event| self.lost.called_as(event)).next()
    }

    /// What is known under one `auditID`; `recorded` says whether any record knows the token.
    fn call(&mut self, records: &[Fact], events: &[Fact], recorded: bool) {
        let events = || events.iter().filter(|event| event.is_call());
        for record in records {
            self.record(record, events().any(|event| event.is_of(record)));
        }
        let mut known = false;
        let mut last: Option<Fact> = None;
        for event in events() {
            if event.kind == Kind::OtherCall && !recorded {
                continue;
            }
            if let Some(request) = last.as_mut().filter(|request| event.is_same(request)) {
                request.until = request.until.max(event.until);
                continue;
            }
            last = Some(*event);
            match records.iter().any(|record| event.is_of(record)) {
                true if !known => known = true,
                true => self.missing(event, "the call that has the record was another one"),
                false => self.missing(event, "no record has this call"),
            }
        }
    }

    fn record(&mut self, record: &Fact, logged: bool) {
        let rejected = || self.log.rejected.get(&record.audit) == Some(&true);
        match record.kind {
            Kind::Aborted => self.counters.aborted += 1,
            Kind::Stock | Kind::Dropped => {}
            _ if logged => self.counters.joined += 1,
            Kind::Rejected if rejected() => self.counters.joined += 1,
            Kind::Answered | Kind::Rejected if self.covers(record) => {
                self.counters.missing_call += 1;
                let what = record.describe("the log has no such call, but others of its kind");
                self.summary.miss(|| format!("missing-call: {what}"));
            }
            Kind::Answered | Kind::Rejected | Kind::Turned => {
                self.counters.not_logged += 1;
                self.beyond += u64::from(!self.in_time(record));
            }
            _ => {}
        }
    }

    fn missing(&mut self, event: &Fact, why: &str) {
        self.counters.missing_record += 1;
        self.summary
            .miss(|| format!("missing-record: {}", event.describe(why)));
    }

    /// Whether the log would hold the event of this call.
    fn covers(&self, record: &Fact) -> bool {
        self.in_time(record) && self.log.classes.get(&record.class) == Some(&true)
    }

    fn in_time(&self, record: &Fact) -> bool {
        let within = |(first, last)| first <= record.time && record.until <= last;
        self.log.span.is_some_and(within)
    }
}
