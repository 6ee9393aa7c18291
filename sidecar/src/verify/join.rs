//! Collects what both sides say of each token: who recorded it, who used it, who minted it.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead};

use tollgate_shared::record::{AuditId, Event, Stage};

use super::cluster::Logged;
use super::facts::{AGGREGATED, Fact, Jti, Kind, OPEN, Recorded, audit, ending, jti};
use super::judge::{Log, judge};
use super::lines::{CLUSTER_LIMIT, Line, Lines};
use super::lost::{End, Lost};
use super::request::Hasher;
use super::spill::Spill;
use super::summary::{Counters, Summary};
use super::uncovered::Uncovered;
use super::{ReadError, envelope};

/// Collects both sides.
pub(super) struct Join {
    hasher: Hasher,
    spill: Spill,
    pods: HashSet<String>,
    lost: Lost,
    /// Calls that the API server answered with 401, and whether the log has that.
    rejected: HashMap<u128, bool>,
    /// Kinds of requests in the records, and whether the log has any.
    classes: HashMap<u64, bool>,
    /// First and last time in the log.
    span: Option<(u64, u64)>,
    counters: Counters,
    /// Pods that mint, and whose records were not given.
    uncovered: Uncovered,
}

/// Lines that are no events.
#[derive(Default)]
pub(super) struct Odd {
    pub(super) count: u64,
    pub(super) first: Option<u64>,
}

impl Odd {
    fn line(&mut self, line: &Line<'_>) {
        if line.text.is_empty() && line.whole {
            return;
        }
        self.count += 1;
        self.first.get_or_insert(line.number);
    }
}

impl Join {
    pub(super) fn new() -> Self {
        Self {
            hasher: Hasher::default(),
            spill: Spill::new(),
            pods: HashSet::new(),
            lost: Lost::default(),
            rejected: HashMap::new(),
            classes: HashMap::new(),
            span: None,
            counters: Counters::default(),
            uncovered: Uncovered::default(),
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
            let end = match kind {
                Kind::Aborted => End::Aborted,
                _ => End::Refused,
            };
            self.lost.add(id, recorded, end);
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

    /// Takes a call that no line closes.
    pub(super) fn open(&mut self, id: AuditId, recorded: Recorded) -> io::Result<()> {
        // Its event may be still to come.
        let recorded = Recorded {
            until: OPEN,
            ..recorded
        };
        match recorded.jti {
            Some(token) => self.known(token, recorded, Kind::Answered),
            None if recorded.denied => Ok(()),
            None => {
                self.lost.add(id, recorded, End::Open);
                Ok(())
            }
        }
    }

    /// Reads a file of the cluster's log, once every record is read. Returns how many events it holds, and the lines that are
    /// none.
    pub(super) fn read_cluster(&mut self, reader: impl BufRead) -> Result<(u64, Odd), ReadError> {
        let mut lines = Lines::new(reader, CLUSTER_LIMIT);
        let (mut events, mut odd) = (0, Odd::default());
        while let Some(line) = lines.next().map_err(ReadError::Read)? {
            let inner;
            let event = match Logged::parse(line.text) {
                Some(event) => Some(event),
                None => {
                    inner = envelope::open(line.text);
                    inner
                        .as_deref()
                        .and_then(|text| Logged::parse(text.as_bytes()))
                }
            };
            match event {
                Some(event) if event.is_record() => {}
                Some(event) => {
                    events += 1;
                    self.event(&event).map_err(ReadError::Spill)?;
                }
                None => odd.line(&line),
            }
        }
        Ok((events, odd))
    }

    fn event(&mut self, event: &Logged<'_>) -> io::Result<()> {
        if let Some(time) = event.until() {
            let (first, last) = self.span.unwrap_or((time, time));
            self.span = Some((first.min(time), last.max(time)));
        }
        if let Some(seen) = self.classes.get_mut(&self.hasher.class_of(event)) {
            *seen = true;
        }
        let id: Option<AuditId> = event.audit_id.parse().ok();
        let ours = event.pod_uid().is_some_and(|pod| self.pods.contains(pod));
        if let Some(token) = event.issued().map(jti) {
            self.issued(event, id, token, ours)?;
        }
        let Some(credential) = event.credential_id() else {
            let rejected = id.and_then(|id| self.rejected.get_mut(&audit(id)));
            if let Some(seen) = rejected.filter(|_| event.code() == Some(401)) {
                *seen = true;
            }
            return Ok(());
        };
        // Client certificates have ids too.
        if !credential.starts_with("JTI=") {
            return Ok(());
        }
        let token = jti(credential);
        let kind = if ours && !event.is_bootstrap() {
            if let Some(record) = id.and_then(|id| self.lost.called(id, token)) {
                self.spill.push(&record)?;
            }
            Kind::Call
        } else if ours || event.pod_uid().is_none() {
            Kind::OtherCall
        } else {
            return Ok(());
        };
        self.spill.push(&self.fact(event, id, token, kind))
    }

    /// Somebody got a token.
    fn issued(
        &mut self,
        event: &Logged<'_>,
        id: Option<AuditId>,
        token: Jti,
        ours: bool,
    ) -> io::Result<()> {
        if ours {
            if let Some(record) = id.and_then(|id| self.lost.minted(id, token)) {
                self.spill.push(&record)?;
            }
            return self.spill.push(&self.fact(event, id, token, Kind::Issued));
        }
        self.uncovered.mint(event);
        Ok(())
    }

    fn fact(&self, event: &Logged<'_>, id: Option<AuditId>, jti: Jti, kind: Kind) -> Fact {
        let aggregated = event.request().may_be_aggregated();
        Fact {
            jti,
            kind,
            // Not a UUID: an identifier that no record has.
            audit: id.map_or(0, audit),
            object: self.hasher.object_of(event),
            class: if aggregated { AGGREGATED } else { 0 },
            time: event.time().unwrap_or_default(),
            until: event.until().unwrap_or_default(),
        }
    }

    /// Decides token by token, and adds the counters.
    pub(super) fn finish(self, summary: &mut Summary) -> io::Result<()> {
        self.uncovered.note(summary);
        let log = Log {
            rejected: self.rejected,
            classes: self.classes,
            span: self.span,
        };
        judge(self.spill, &log, self.lost, self.counters, summary)
    }
}
