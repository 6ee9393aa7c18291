//! Joins the records of a sidecar with the audit events of the API server, by `auditID` and credential id. Pure.

use std::collections::BTreeMap;
use std::fmt;

use tollgate_shared::record::{key, outcome};

use crate::audit::{AuditEvent, ISSUED_CREDENTIAL_ID};

/// Stage of an opening line.
const OPENING: &str = "RequestReceived";
/// Stage of a closing line.
const CLOSING: &str = "ResponseComplete";

/// One call, from both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The id that both sides wrote.
    pub audit_id: &'a str,
    /// The sidecar's lines, in order.
    pub records: Vec<&'a AuditEvent>,
    /// The API server's events of the same id.
    pub events: Vec<&'a AuditEvent>,
    /// The API server's event of the TokenRequest that made the call's token.
    pub mint: Option<&'a AuditEvent>,
    /// What follows from that.
    pub verdict: Verdict,
}

impl Call<'_> {
    /// The opening line.
    #[must_use]
    pub fn opening(&self) -> Option<&AuditEvent> {
        self.records
            .iter()
            .copied()
            .find(|record| record.stage == OPENING)
    }

    /// The closing line.
    #[must_use]
    pub fn closing(&self) -> Option<&AuditEvent> {
        self.records
            .iter()
            .copied()
            .find(|record| record.stage == CLOSING)
    }

    /// Verb, resource and subresource as one text: `get pods/log`; for other paths verb and path.
    #[must_use]
    pub fn what(&self) -> String {
        let Some(record) = self.records.first() else {
            return String::new();
        };
        match &record.object_ref {
            Some(object) if object.subresource.is_empty() => {
                format!("{} {}", record.verb, object.resource)
            }
            Some(object) => format!("{} {}/{}", record.verb, object.resource, object.subresource),
            None => format!("{} {}", record.verb, record.request_uri),
        }
    }

    /// An annotation of the closing line; see [`key`].
    #[must_use]
    pub fn annotation(&self, key: &str) -> &str {
        let closing = self.closing();
        closing
            .and_then(|record| record.annotations.get(key))
            .map_or("", String::as_str)
    }
}

/// Whether the two sides agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Both sides tell of the call, with the same credential.
    Joined,
    /// The sidecar did not forward the call, and the API server knows nothing of it.
    NotForwarded,
    /// A token was minted and not used: the sidecar's own proof that it can mint, or a call that could not be forwarded. The
    /// API server knows the mint and no call.
    Unused,
    /// A token was minted ahead of the call that used it, whose record has the same credential.
    Ahead,
    /// The call is still running.
    Open,
    /// Not exactly one opening and at most one closing line.
    BrokenRecord,
    /// A token was minted, and the API server knows nothing of the call.
    NotLogged,
    /// The API server knows the id with no or another credential.
    OtherCredential,
}

impl Verdict {
    /// Whether the join fails.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(
            self,
            Self::BrokenRecord | Self::NotLogged | Self::OtherCredential
        )
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joined => "joined",
            Self::NotForwarded => "not forwarded, and unknown to the API server, as it must be",
            Self::Unused => "minted and not used, as the API server's log confirms",
            Self::Ahead => "minted ahead of the call that used it",
            Self::Open => "still open",
            Self::BrokenRecord => "FAILED: not one opening and one closing line",
            Self::NotLogged => "FAILED: the API server's audit log does not have this call",
            Self::OtherCredential => "FAILED: the API server saw another credential",
        })
    }
}

/// `JTI=…` of the token that was minted for a call, from its closing line.
#[must_use]
pub fn credential_id<'a>(records: &[&'a AuditEvent]) -> Option<&'a str> {
    let annotation = |record: &&'a AuditEvent| record.annotations.get(key::CREDENTIAL_ID);
    records.iter().find_map(annotation).map(String::as_str)
}

/// Every call that the records tell of, in the order in which they began.
#[must_use]
pub fn join<'a>(records: &'a [AuditEvent], events: &'a [AuditEvent]) -> Vec<Call<'a>> {
    let mut by_id: BTreeMap<&str, Vec<&AuditEvent>> = BTreeMap::new();
    let mut mints = BTreeMap::new();
    for event in events {
        by_id.entry(&event.audit_id).or_default().push(event);
        if let Some(issued) = event.annotations.get(ISSUED_CREDENTIAL_ID) {
            mints.insert(issued.as_str(), event);
        }
    }
    let mut order = Vec::new();
    let mut lines: BTreeMap<&str, Vec<&AuditEvent>> = BTreeMap::new();
    for record in records {
        let of_call = lines.entry(&record.audit_id).or_default();
        if of_call.is_empty() {
            order.push(record.audit_id.as_str());
        }
        // A restarted sidecar repeats what it cannot know to be written.
        if !of_call.contains(&record) {
            of_call.push(record);
        }
    }
    let call = |audit_id| {
        let records = lines.remove(audit_id).unwrap_or_default();
        let events = by_id.remove(audit_id).unwrap_or_default();
        let mint = credential_id(&records).and_then(|id| mints.get(id).copied());
        let verdict = judge(&records, &events, mint);
        Call {
            audit_id,
            records,
            events,
            mint,
            verdict,
        }
    };
    order.into_iter().map(call).collect()
}

fn judge(records: &[&AuditEvent], events: &[&AuditEvent], mint: Option<&AuditEvent>) -> Verdict {
    let count = |stage| {
        records
            .iter()
            .filter(|record| record.stage == stage)
            .count()
    };
    let first = records.first().map(|record| record.stage.as_str());
    if first != Some(OPENING) || count(OPENING) != 1 || count(CLOSING) > 1 {
        return Verdict::BrokenRecord;
    }
    if count(CLOSING) == 0 {
        return Verdict::Open;
    }
    let ended = |how: &str| {
        let mut outcomes = records
            .iter()
            .filter_map(|record| record.annotations.get(key::OUTCOME));
        outcomes.any(|word| word == how)
    };
    let not_forwarded = records.iter().any(|record| record.is_mint()) || ended(outcome::REFUSED);
    match (credential_id(records), events) {
        (None, []) => Verdict::NotForwarded,
        (Some(_), []) if ended(outcome::USED) && mint.is_some() => Verdict::Ahead,
        (Some(_), []) if not_forwarded && mint.is_some() => Verdict::Unused,
        (Some(_), []) => Verdict::NotLogged,
        (Some(id), events) if events.iter().all(|event| event.credential_id() == Some(id)) => {
            Verdict::Joined
        }
        _ => Verdict::OtherCredential,
    }
}

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.records.first();
        let (verb, uri) = first.map_or(("", ""), |record| (&record.verb, &record.request_uri));
        writeln!(f, "auditID {}  {verb} {uri}", self.audit_id)?;
        for record in &self.records {
            let text = |key| record.annotations.get(key).map(String::as_str);
            let said = text(key::OUTCOME).unwrap_or_default();
            let reason = text(key::REASON).filter(|_| said == outcome::REFUSED);
            line(
                f,
                "record",
                record,
                text(key::CREDENTIAL_ID),
                &[said, reason.unwrap_or_default()],
            )?;
        }
        if let Some(mint) = self.mint {
            let issued = mint.annotations.get(ISSUED_CREDENTIAL_ID);
            line(
                f,
                "API server, mint",
                mint,
                issued.map(String::as_str),
                &[&mint.user.username],
            )?;
        }
        for event in &self.events {
            line(
                f,
                "API server, call",
                event,
                event.credential_id(),
                &[&event.user.username],
            )?;
        }
        write!(f, "  => {}", self.verdict)
    }
}

fn line(
    f: &mut fmt::Formatter<'_>,
    side: &str,
    event: &AuditEvent,
    credential: Option<&str>,
    more: &[&str],
) -> fmt::Result {
    let code = match event.code() {
        0 => String::new(),
        code => code.to_string(),
    };
    let line = format!(
        "  {side:<16}  {:<16}  {code:>3}  {:<40}  {}",
        event.stage,
        credential.unwrap_or("-"),
        more.join(" ")
    );
    writeln!(f, "{}", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::CREDENTIAL_ID;

    fn record(id: &str, stage: &str, jti: Option<&str>) -> AuditEvent {
        let mut record = AuditEvent {
            audit_id: id.to_owned(),
            stage: stage.to_owned(),
            ..AuditEvent::default()
        };
        if let Some(jti) = jti {
            record
                .annotations
                .insert(key::CREDENTIAL_ID.to_owned(), jti.to_owned());
        }
        record
    }

    fn event(id: &str, jti: Option<&str>) -> AuditEvent {
        let mut event = record(id, CLOSING, None);
        if let Some(jti) = jti {
            event
                .user
                .extra
                .insert(CREDENTIAL_ID.to_owned(), vec![jti.to_owned()]);
        }
        event
    }

    /// Records of call `a`, one for each word: a stage, and the token after a colon.
    fn records(words: &str) -> Vec<AuditEvent> {
        let read = |word: &str| {
            let (stage, jti) = word.split_once(':').unwrap_or((word, ""));
            let mut record = record(
                "a",
                match stage {
                    "open" | "open2" => OPENING,
                    "start" => "ResponseStarted",
                    _ => CLOSING,
                },
                Some(jti).filter(|jti| !jti.is_empty()),
            );
            let how = match stage {
                "refuse" => outcome::REFUSED,
                "use" => outcome::USED,
                _ => "",
            };
            if !how.is_empty() {
                let key = key::OUTCOME.to_owned();
                record.annotations.insert(key, how.to_owned());
            }
            record.user_agent = stage.to_owned();
            record
        };
        words.split_whitespace().map(read).collect()
    }

    #[test]
    fn verdicts() {
        let (j, k, none) = (
            event("a", Some("J")),
            event("a", Some("K")),
            event("a", None),
        );
        let other = event("b", Some("J"));
        let mut mint = event("m", Some("BOOT"));
        mint.annotations
            .insert(ISSUED_CREDENTIAL_ID.to_owned(), "J".to_owned());
        for (words, events, verdict) in [
            ("open close:J", vec![j.clone()], Verdict::Joined),
            ("open open close:J", vec![j.clone()], Verdict::Joined),
            ("open refuse:J", vec![mint.clone()], Verdict::Unused),
            ("open use:J", vec![mint.clone()], Verdict::Ahead),
            ("open refuse:J", vec![], Verdict::NotLogged),
            ("open use:J", vec![], Verdict::NotLogged),
            ("open close:J", vec![mint], Verdict::NotLogged),
            (
                "open start close:J",
                vec![j.clone(), j.clone()],
                Verdict::Joined,
            ),
            ("open close", vec![other], Verdict::NotForwarded),
            ("open", vec![], Verdict::Open),
            ("open start", vec![j.clone()], Verdict::Open),
            ("close", vec![], Verdict::BrokenRecord),
            ("close open", vec![], Verdict::BrokenRecord),
            ("open open2 close", vec![], Verdict::BrokenRecord),
            ("open close refuse", vec![], Verdict::BrokenRecord),
            ("open close:J", vec![], Verdict::NotLogged),
            ("open close:J", vec![k], Verdict::OtherCredential),
            (
                "open close:J",
                vec![j.clone(), none.clone()],
                Verdict::OtherCredential,
            ),
            ("open close", vec![j], Verdict::OtherCredential),
            ("open close", vec![none], Verdict::OtherCredential),
        ] {
            let records = records(words);
            let calls = join(&records, &events);
            let verdicts: Vec<_> = calls.iter().map(|call| call.verdict).collect();
            assert_eq!(verdicts, [verdict], "{words} {events:?}");
        }
    }

    #[test]
    fn finds_the_mint() {
        let records = [record("a", OPENING, None), record("a", CLOSING, Some("J"))];
        let mut mint = event("m", Some("BOOT"));
        mint.annotations
            .insert(ISSUED_CREDENTIAL_ID.to_owned(), "J".to_owned());
        let events = [mint, event("a", Some("J"))];
        let calls = join(&records, &events);
        assert_eq!(calls.first().and_then(|call| call.mint), events.first());
        let shown = calls.iter().map(ToString::to_string).collect::<String>();
        for part in [
            "auditID a",
            "API server, mint",
            "API server, call",
            "=> joined",
        ] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
    }
}
