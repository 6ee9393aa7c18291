//! Runs become chains, once every file is read: what no file explains is a fault.

use std::io;
use std::mem;

use tollgate_shared::record::Chain;

use super::run::Run;
use super::{Join, Records, Summary};

impl Records {
    /// Links the runs and reports what no file explains.
    pub(in crate::verify) fn finish(mut self) -> io::Result<(Summary, Option<Join>)> {
        for fragment in mem::take(&mut self.fragments) {
            let message = format!("{}, and no later line repeats it", fragment.error);
            self.fault(fragment.place, &message);
        }
        for index in 0..self.runs.len() {
            self.link(index);
        }
        let (open, early) = mem::take(&mut self.calls).finish();
        self.summary.open = open.len() as u64;
        if let Some(join) = &mut self.join {
            for (id, recorded) in open {
                join.open(id, recorded)?;
            }
        }
        if !self.partial {
            for place in early {
                self.fault(place, "closes a call that no line opens");
            }
        }
        Ok((self.summary, self.join))
    }

    fn link(&mut self, index: usize) {
        let Some(run) = self.runs.get(index) else {
            return;
        };
        let (pod, before, first) = (run.pod.as_str(), run.before, run.first);
        let others = || self.runs.iter().filter(|other| other.pod == pod);
        let begin = run.begin;
        let mut earlier = self
            .runs
            .iter()
            .take(index)
            .filter(|other| other.pod == pod);
        if earlier
            .clone()
            .any(|other| other.begin == begin && other.before == before)
        {
            return self.fault(
                first,
                "begins as another line does: the same lines are there twice",
            );
        }
        if before == Chain::default() {
            self.summary.chains += 1;
            if earlier.any(|other| other.before == before) {
                let what = format!(
                    "begins another chain of pod {pod}, which lost its state with its node, or did not write this"
                );
                self.note(first, &what);
            }
            return;
        }
        let ends = |other: &Run| other.pod == pod && other.last == before && !other.continued;
        let earlier = self.runs.iter().position(ends);
        let why = match earlier.and_then(|earlier| self.runs.get(earlier)) {
            Some(earlier)
                if earlier.last_place.file == first.file
                    && earlier.last_place.line > first.line =>
            {
                "and comes before the line that it names as the one before it"
            }
            _ if earlier.is_some() || run.explained => "",
            _ if others().any(|other| other.before.sequence < before.sequence) => {
                "and no file has the line before it as it names it"
            }
            _ if self.partial => {
                self.summary.chains += 1;
                ""
            }
            _ => "and no file has the lines before it (--partial accepts that the oldest are gone)",
        };
        if let Some(earlier) = earlier.and_then(|earlier| self.runs.get_mut(earlier)) {
            earlier.continued = true;
        }
        if !why.is_empty() {
            self.fault(
                first,
                &format!("is number {} of its chain, {why}", before.sequence + 1),
            );
        }
    }
}
