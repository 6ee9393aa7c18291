//! The chains: lines become runs, runs become chains. Within a file each pod's lines must follow each other; between files a
//! run continues the one whose last hash its first line names.

use std::collections::HashMap;
use std::io::{self, BufRead};

use tollgate_shared::record::{BadLine, Chain, Event, check, parse};

mod link;
mod run;

pub(super) use self::run::Place;
use self::run::Run;
use super::calls::Calls;
use super::facts::Recorded;
use super::join::Join;
use super::lines::{Line, Lines, RECORD_LIMIT};
use super::summary::{Fault, Summary};
use super::{ReadError, envelope};

/// Half lines that may wait for their repetition; a recorder leaves at most one for each kill.
const MAX_FRAGMENTS: usize = 64;

/// Breaks after which a file is not taken apart any further.
const MAX_BREAKS: u64 = 1000;

/// A line that claims to be ours and cannot be read: damaged, or half of one that follows whole.
struct Fragment {
    place: Place,
    text: Vec<u8>,
    error: String,
}

/// Reads records.
pub(super) struct Records {
    partial: bool,
    files: Vec<String>,
    runs: Vec<Run>,
    /// The run that each pod is at, and the file it was in.
    current: HashMap<String, (usize, usize)>,
    fragments: Vec<Fragment>,
    calls: Calls,
    join: Option<Join>,
    summary: Summary,
    scratch: Vec<u8>,
}

impl Records {
    pub(super) fn new(partial: bool, join: Option<Join>) -> Self {
        Self {
            partial,
            files: Vec::new(),
            runs: Vec::new(),
            current: HashMap::new(),
            fragments: Vec::new(),
            calls: Calls::default(),
            join,
            summary: Summary::default(),
            scratch: Vec::new(),
        }
    }

    /// Reads one file to its end.
    pub(super) fn read(&mut self, name: &str, reader: impl BufRead) -> Result<(), ReadError> {
        let file = self.files.len();
        self.files.push(name.to_owned());
        let mut lines = Lines::new(reader, RECORD_LIMIT);
        while let Some(line) = lines.next().map_err(ReadError::Read)? {
            self.line(file, &line).map_err(ReadError::Spill)?;
        }
        Ok(())
    }

    fn line(&mut self, file: usize, line: &Line<'_>) -> io::Result<()> {
        let place = Place {
            file,
            line: line.number,
        };
        let error = match read(line.text) {
            Ok((text, mut event)) => return self.event(place, text, &mut event),
            Err(error) => error,
        };
        let Some(inner) = is_about_us(line.text)
            .then(|| envelope::open(line.text))
            .flatten()
        else {
            self.unreadable(place, line, &error);
            return Ok(());
        };
        match read(inner.as_bytes()) {
            Ok((text, mut event)) => self.event(place, text, &mut event),
            Err(error) => {
                let text = inner.as_bytes();
                self.unreadable(place, &Line { text, ..*line }, &error);
                Ok(())
            }
        }
    }

    fn unreadable(&mut self, place: Place, line: &Line<'_>, error: &BadLine) {
        let text = line.text;
        if text.starts_with(HASH_ALONE) {
            self.fault(place, "is part of a record that was written over several lines; one line each is needed (jq -c)");
        } else if !claims_to_be_ours(text) {
            self.summary.foreign += u64::from(!text.is_empty());
        } else if !line.whole {
            self.fault(place, "is longer than any line of the record");
        } else if self.fragments.len() < MAX_FRAGMENTS {
            self.fragments.push(Fragment {
                place,
                text: text.to_vec(),
                error: error.to_string(),
            });
        } else {
            self.fault(place, &error.to_string());
        }
    }

    fn event(&mut self, place: Place, text: &str, event: &mut Event<'_>) -> io::Result<()> {
        if let Err(error) = check(text, event, &mut self.scratch) {
            self.fault(place, &error.to_string());
        }
        // A line that was changed is a fault of its own; what follows it still names the hash it had.
        let Some(hash) = event.annotations.hash else {
            return Ok(());
        };
        if !self.fragments.is_empty() {
            self.repeats_fragment(event)?;
        }
        let here = Chain {
            sequence: event.annotations.sequence.0,
            hash,
        };
        if self.follows(place, event, here) {
            self.summary.lines += 1;
            self.take(place, event)
        } else {
            self.summary.repeated += 1;
            Ok(())
        }
    }

    /// Half lines whose whole is this line are no fault.
    fn repeats_fragment(&mut self, event: &Event<'_>) -> io::Result<()> {
        let whole = serde_json::to_vec(event).map_err(io::Error::other)?;
        self.fragments
            .retain(|fragment| !whole.starts_with(&fragment.text));
        Ok(())
    }

    /// Puts the line into its run. `false` if it is the repetition of one that is there already.
    fn follows(&mut self, place: Place, event: &Event<'_>, here: Chain) -> bool {
        let notes = &event.annotations;
        let pod: &str = &notes.pod_uid;
        let before = Chain {
            sequence: here.sequence.saturating_sub(1),
            hash: notes.previous_hash,
        };
        let knows = |run: &Run| run.pod == pod && !run.continued && run.knows(before, here);
        let current = self.current.get(pod).copied();
        let at = current.filter(|(index, _)| self.runs.get(*index).is_some_and(knows));
        let at = at.or_else(|| {
            self.runs
                .iter()
                .position(knows)
                .map(|index| (index, place.file))
        });
        // In one file, only the pod's line before may come before a line, or the begin of a new chain.
        let broken = current.filter(|(index, file)| {
            *file == place.file
                && at.is_none_or(|(at, _)| at != *index)
                && before != Chain::default()
        });
        if let Some((index, _)) = broken {
            self.explain_break(place, here, index);
        }
        let index = at.map_or(self.runs.len(), |(index, _)| index);
        match current {
            Some(same) if same == (index, place.file) => {}
            _ => drop(self.current.insert(pod.to_owned(), (index, place.file))),
        }
        if let Some(run) = self.runs.get_mut(index) {
            return run.extend(here, place);
        }
        let run = Run::new(pod, place, before, here, broken.is_some());
        self.runs.push(run);
        true
    }

    /// Two lines of one pod that do not belong together, one after the other.
    fn explain_break(&mut self, place: Place, here: Chain, index: usize) {
        if self.summary.fault_count > MAX_BREAKS {
            return self.forget();
        }
        let Some(run) = self.runs.get(index) else {
            return;
        };
        let (last, last_place) = (run.last, run.last_place);
        let damaged = self.fragments.iter().position(|fragment| {
            fragment.place.file == place.file && fragment.place.line > last_place.line
        });
        if let Some(damaged) = damaged {
            let fragment = self.fragments.remove(damaged);
            return self.fault(fragment.place, &fragment.error);
        }
        let why = match here.sequence.checked_sub(last.sequence) {
            Some(1) => "but names another hash before it: one of the two was changed".to_owned(),
            Some(2) => format!("so number {} was deleted or moved", last.sequence + 1),
            Some(3..) => format!(
                "so numbers {} to {} were deleted or moved",
                last.sequence + 1,
                here.sequence - 1
            ),
            _ => "so it was moved, is there twice, or was written by somebody else".to_owned(),
        };
        let message = format!(
            "is number {} of its chain and follows number {} ({}:{}), {why}",
            here.sequence,
            last.sequence,
            self.files.get(last_place.file).map_or("", String::as_str),
            last_place.line
        );
        self.fault(place, &message);
    }

    /// Nothing is left to learn from how the rest of such a file hangs together.
    fn forget(&mut self) {
        self.runs.clear();
        self.current.clear();
        self.summary.fault_count += 1;
    }

    fn take(&mut self, place: Place, event: &Event<'_>) -> io::Result<()> {
        let recorded = match &mut self.join {
            Some(join) => join.record(event)?,
            None => Recorded::default(),
        };
        if !self.calls.line(event, place, recorded) {
            self.fault(place, "closes a call that is closed already");
        }
        Ok(())
    }

    fn message(&self, place: Place, what: &str) -> String {
        let file = self.files.get(place.file).map_or("", String::as_str);
        format!("{file}:{}: {what}", place.line)
    }

    fn note(&mut self, place: Place, what: &str) {
        let message = self.message(place, what);
        self.summary.note(|| message);
    }

    fn fault(&mut self, place: Place, what: &str) {
        let message = self.message(place, what);
        self.summary.add(Fault {
            file: place.file,
            line: place.line,
            message,
        });
    }
}

fn read(text: &[u8]) -> Result<(&str, Event<'_>), BadLine> {
    let text = std::str::from_utf8(text).map_err(|_| BadLine::NotUtf8)?;
    Ok((text, parse(text)?))
}

/// Whether a line holds one of ours in any form.
fn is_about_us(text: &[u8]) -> bool {
    text.starts_with(b"{") && memchr::memmem::find(text, b"tollgate.dev/").is_some()
}

/// What a program that breaks objects into lines makes of ours.
const HASH_ALONE: &[u8] = b"\"tollgate.dev/hash\"";

/// Whether a line that cannot be read looks like one of the record: then it is no foreign line but a damaged one.
fn claims_to_be_ours(text: &[u8]) -> bool {
    let has = |what: &str| memchr::memmem::find(text, what.as_bytes()).is_some();
    text.starts_with(b"{")
        && has("\"tollgate.dev/")
        && (has("\"tollgate.dev/decision\"")
            || text.starts_with(b"{\"annotations\":{\"tollgate.dev/"))
}
