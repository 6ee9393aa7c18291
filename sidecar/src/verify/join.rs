//! Joins records with the cluster's audit log. Everything is decided per token: who recorded it, who used it, who minted it.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead};

use tollgate_shared::record::{AuditId, Event, Stage};

use super::ReadError;
use super::cluster::Logged;
use super::facts::{Fact, Hasher, Jti, Kind, Recorded, audit, ending, jti};
use super::lines::{CLUSTER_LIMIT, Lines};
use super::spill::Spill;
use super::summary::{Counters, Summary};

/// Collects both sides.
pub(super) struct Join {
    hasher: Hasher,
    spill: Spill,
    pods: HashSet<String>,
    /// Allowed calls whose records know no token: killed, open, or the mint failed. Their mint's `Audit-ID` may tell it.
    lost: HashMap<AuditId, Lost>,
    /// The `Audit-ID`s of their mints.
    lost_mints: HashMap<AuditId, AuditId>,
    /// Calls that the API server answered with 401, and whether the log has that.
    rejected: HashMap<u128, bool>,
    /// Kinds of requests in the records, and whether the log has any.
    classes: HashMap<u64, bool>,
    /// First and last time in the log.
    span: Option<(u64, u64)>,
    counters: Counters,
}

struct Lost {
    recorded: Recorded,
    aborted: bool,
    token: Option<Jti>,
}

impl Join {
    pub(super) fn new() -> Self {
        Self {
            hasher: Hasher::default(),
            spill: Spill::new(),
            pods: HashSet::new(),
            lost: HashMap::new(),
            lost_mints: HashMap::new(),
            rejected: HashMap::new(),
            classes: HashMap::new(),
            span: None,
            counters: Counters::default(),
        }
    }

    /// Takes a line of the record, and returns what must be known of its call while it is open.
    pub(super) fn record(&mut self, event: &Event<'_>) -> io::Result<Recorded> {
        let recorded = self.hasher.recorded(event);
        let pod: &str = &event.annotations.pod_uid;
        if !self.pods.contains(pod) {
            self.pods.insert(pod.to_owned());
        }
        if event.stage == Stage::ResponseComplete {
            self.closed(event, recorded)?;
        }
        Ok(recorded)
    }

    fn closed(&mut self, event: &Event<'_>, recorded: Recorded) -> io::Result<()> {
        let kind = ending(event);
        if let Some(token) = recorded.jti {
            return self.known(token, recorded, kind);
        }
        if recorded.denied {
            self.counters.aborted += u64::from(kind == Kind::Aborted);
        } else if let Some(id) = event.audit_id {
            self.lose(id, recorded, kind == Kind::Aborted);
        }
        Ok(())
    }

    /// A call whose token its record knows.
    fn known(&mut self, token: Jti, recorded: Recorded, kind: Kind) -> io::Result<()> {
        self.classes.entry(recorded.class).or_insert(false);
        if kind == Kind::Rejected {
            self.rejected.entry(recorded.audit).or_insert(false);
        }
        self.spill.push(&recorded.fact(token, kind))
    }

    fn lose(&mut self, id: AuditId, recorded: Recorded, aborted: bool) {
        self.lost_mints.insert(id.for_mint(), id);
        let lost = Lost {
            recorded,
            aborted,
            token: None,
        };
        self.lost.insert(id, lost);
    }

    /// Takes a call that no line closes.
    pub(super) fn open(&mut self, id: AuditId, recorded: Recorded) -> io::Result<()> {
        match recorded.jti {
            Some(token) => self.known(token, recorded, Kind::Answered),
            None if recorded.denied => Ok(()),
            None => {
                self.lose(id, recorded, false);
                Ok(())
            }
        }
    }

    /// Reads the cluster's log, once every record is read.
    pub(super) fn read_cluster(&mut self, reader: impl BufRead) -> Result<(), ReadError> {
        let mut lines = Lines::new(reader, CLUSTER_LIMIT);
        while let Some(line) = lines.next().map_err(ReadError::Read)? {
            if let Some(event) = Logged::parse(line.text) {
                self.event(&event).map_err(ReadError::Spill)?;
            }
        }
        Ok(())
    }

    fn event(&mut self, event: &Logged<'_>) -> io::Result<()> {
        if let Some(time) = event.time() {
            let (first, last) = self.span.unwrap_or((time, time));
            self.span = Some((first.min(time), last.max(time)));
        }
        if let Some(seen) = self.classes.get_mut(&self.hasher.class_of(event)) {
            *seen = true;
        }
        let id: Option<AuditId> = event.audit_id.parse().ok();
        let ours = event.pod_uid().is_some_and(|pod| self.pods.contains(pod));
        if ours && let Some(token) = event.issued().map(jti) {
            let call = id.and_then(|id| self.lost_mints.get(&id).copied());
            self.bind(call, token)?;
            self.spill
                .push(&self.fact(event, id, token, Kind::Issued))?;
        }
        let Some(token) = event.credential_id().map(jti) else {
            let rejected = id.and_then(|id| self.rejected.get_mut(&audit(id)));
            if let Some(seen) = rejected.filter(|_| event.code() == Some(401)) {
                *seen = true;
            }
            return Ok(());
        };
        let kind = if ours && !event.is_bootstrap() {
            self.bind(id, token)?;
            Kind::Call
        } else if ours || event.pod_uid().is_none() {
            Kind::OtherCall
        } else {
            return Ok(());
        };
        self.spill.push(&self.fact(event, id, token, kind))
    }

    /// The log knows the token of a call whose record does not: the first one counts, a second one is somebody else's.
    fn bind(&mut self, call: Option<AuditId>, token: Jti) -> io::Result<()> {
        let Some(lost) = call.and_then(|call| self.lost.get_mut(&call)) else {
            return Ok(());
        };
        if lost.token.is_some() {
            return Ok(());
        }
        lost.token = Some(token);
        let kind = if lost.aborted {
            Kind::Aborted
        } else {
            Kind::Unanswered
        };
        self.spill.push(&lost.recorded.fact(token, kind))
    }

    fn fact(&self, event: &Logged<'_>, id: Option<AuditId>, jti: Jti, kind: Kind) -> Fact {
        Fact {
            jti,
            kind,
            // Not a UUID: an identifier that no record has.
            audit: id.map_or(0, audit),
            object: self.hasher.object_of(event),
            class: 0,
            time: 0,
        }
    }
}

impl Join {
    /// Decides token by token, and adds the counters.
    pub(super) fn finish(self, summary: &mut Summary) -> io::Result<()> {
        let Self {
            spill,
            lost,
            counters,
            rejected,
            classes,
            span,
            ..
        } = self;
        let mut judge = Judge {
            counters,
            rejected,
            classes,
            span,
            summary,
        };
        let untold = lost
            .values()
            .filter(|lost| lost.aborted && lost.token.is_none());
        judge.counters.aborted += untold.count() as u64;
        for facts in spill.parts() {
            for token in facts?.chunk_by(|one, other| one.jti == other.jti) {
                judge.token(token);
            }
        }
        judge.summary.counters = Some(judge.counters);
        Ok(())
    }
}

struct Judge<'a> {
    counters: Counters,
    rejected: HashMap<u128, bool>,
    classes: HashMap<u64, bool>,
    span: Option<(u64, u64)>,
    summary: &'a mut Summary,
}

impl Judge<'_> {
    /// All facts about one token, records first.
    fn token(&mut self, facts: &[Fact]) {
        let recorded = facts
            .iter()
            .take_while(|fact| fact.kind <= Kind::Aborted)
            .count();
        let (records, events) = facts.split_at(recorded);
        for record in records {
            let joins = |event: &Fact| event.is_call() && event.is_of(record);
            self.record(record, events.iter().any(joins));
        }
        let mut used = false;
        let mut missing: Option<&Fact> = None;
        for event in events {
            used |= event.is_call();
            let known = match event.kind {
                Kind::Issued => recorded > 0,
                Kind::OtherCall if recorded == 0 => true,
                _ => records.iter().any(|record| event.is_of(record)),
            };
            // Stages of one event, or what several API servers logged of one request, miss one record.
            if !known && !missing.is_some_and(|missing| event.is_same(missing)) {
                missing = Some(event);
                self.counters.missing_record += 1;
                self.summary.miss(|| event.missing("missing-record"));
            }
        }
        let answered = |record: &Fact| matches!(record.kind, Kind::Answered | Kind::Rejected);
        if recorded > 0 && !used && !records.iter().any(answered) {
            self.counters.unused_mint += 1;
        }
    }

    fn record(&mut self, record: &Fact, logged: bool) {
        match record.kind {
            Kind::Aborted => self.counters.aborted += 1,
            Kind::Stock => {}
            _ if logged => self.counters.joined += 1,
            Kind::Rejected if self.rejected.get(&record.audit) == Some(&true) => {
                self.counters.joined += 1;
            }
            Kind::Answered | Kind::Rejected if self.covers(record) => {
                self.counters.missing_call += 1;
                self.summary.miss(|| record.missing("missing-call"));
            }
            Kind::Answered | Kind::Rejected => self.counters.not_logged += 1,
            _ => {}
        }
    }

    /// Whether the log would hold the event of this call.
    fn covers(&self, record: &Fact) -> bool {
        let in_time = |(first, last): (u64, u64)| (first..=last).contains(&record.time);
        self.span.is_some_and(in_time) && self.classes.get(&record.class) == Some(&true)
    }
}
