//! Facts by token, in memory while they are few and in temporary files once they are many.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};

use super::facts::{Fact, Kind};
use super::request::Object;

/// Tokens are spread over this many parts; only one is looked at at a time.
const PARTS: usize = 256;
/// Facts of a part that stay in memory.
const IN_MEMORY: usize = 1024;
const SIZE: usize = 16 + 1 + 16 + 12 + 8 + 8 + 8;

/// Facts, partitioned by token.
pub(super) struct Spill(Vec<Part>);

#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    file: Option<File>,
}

impl Spill {
    pub(super) fn new() -> Self {
        Self((0..PARTS).map(|_| Part::default()).collect())
    }

    pub(super) fn push(&mut self, fact: &Fact) -> io::Result<()> {
        // A credential id is random, so its lowest bits are.
        let part = self.0.get_mut((fact.jti % PARTS as u128) as usize);
        part.map_or(Ok(()), |part| part.push(fact))
    }

    /// Each part's facts, sorted by token.
    pub(super) fn parts(self) -> impl Iterator<Item = io::Result<Vec<Fact>>> {
        self.0.into_iter().map(Part::facts)
    }
}

impl Part {
    fn push(&mut self, fact: &Fact) -> io::Result<()> {
        fact.encode(&mut self.bytes);
        if self.bytes.len() < IN_MEMORY * SIZE {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            empty => empty.insert(tempfile::tempfile()?),
        };
        file.write_all(&self.bytes)?;
        // The room stays: it is filled again.
        self.bytes.clear();
        Ok(())
    }

    /// What counts. Calls that need no record unless their token is a recorded one are most of a long log (each mint is one, all
    /// with the same bootstrap token), so they are passed over without being held.
    fn facts(mut self) -> io::Result<Vec<Fact>> {
        let mut recorded = HashSet::new();
        self.each(|fact| {
            if fact.is_record() {
                recorded.insert(fact.jti);
            }
        })?;
        let mut facts = Vec::new();
        self.each(|fact| {
            if fact.kind != Kind::OtherCall || recorded.contains(&fact.jti) {
                facts.push(fact);
            }
        })?;
        facts.sort_unstable();
        facts.dedup();
        Ok(facts)
    }

    fn each(&mut self, mut take: impl FnMut(Fact)) -> io::Result<()> {
        let held = self.bytes.chunks_exact(SIZE);
        held.filter_map(Fact::decode).for_each(&mut take);
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let count = file.seek(SeekFrom::End(0))? / SIZE as u64;
        file.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::with_capacity(IN_MEMORY * SIZE, file);
        let mut bytes = [0; SIZE];
        for _ in 0..count {
            reader.read_exact(&mut bytes)?;
            Fact::decode(&bytes).into_iter().for_each(&mut take);
        }
        Ok(())
    }
}

impl Fact {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.jti.to_le_bytes());
        bytes.push(self.kind as u8);
        bytes.extend_from_slice(&self.audit.to_le_bytes());
        for part in self.object.parts() {
            bytes.extend_from_slice(&part.to_le_bytes());
        }
        bytes.extend_from_slice(&self.class.to_le_bytes());
        bytes.extend_from_slice(&self.time.to_le_bytes());
        bytes.extend_from_slice(&self.until.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (jti, bytes) = bytes.split_first_chunk()?;
        let ([kind], bytes) = bytes.split_first_chunk()?;
        let (audit, bytes) = bytes.split_first_chunk()?;
        let (verb, bytes) = bytes.split_first_chunk()?;
        let (namespace, bytes) = bytes.split_first_chunk()?;
        let (name, bytes) = bytes.split_first_chunk()?;
        let (class, bytes) = bytes.split_first_chunk()?;
        let (time, bytes) = bytes.split_first_chunk()?;
        let (until, _) = bytes.split_first_chunk()?;
        Some(Self {
            jti: u128::from_le_bytes(*jti),
            kind: Kind::from_number(*kind)?,
            audit: u128::from_le_bytes(*audit),
            object: Object::from_parts(
                [verb, namespace, name].map(|part| u32::from_le_bytes(*part)),
            ),
            class: u64::from_le_bytes(*class),
            time: u64::from_le_bytes(*time),
            until: u64::from_le_bytes(*until),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::OPEN;
    use super::*;

    #[test]
    fn facts_of_a_long_log_come_back_once_and_sorted() {
        let mut spill = Spill::new();
        let fact = |number: u64| Fact {
            jti: u128::from(number),
            kind: Kind::Issued,
            audit: u128::MAX - u128::from(number),
            object: Object::from_parts([1, 2, 3]),
            class: u64::MAX,
            time: number,
            until: OPEN,
        };
        let count = (PARTS * (IN_MEMORY + 2)) as u64;
        for number in (0..count).chain([0]) {
            spill.push(&fact(number)).unwrap();
        }
        assert!(spill.0.iter().all(|part| part.file.is_some()));
        let parts: Vec<Vec<Fact>> = spill.parts().map(Result::unwrap).collect();
        assert!(parts.iter().all(|part| part.is_sorted()));
        let mut facts = parts.concat();
        facts.sort_unstable();
        assert!(facts.into_iter().eq((0..count).map(fact)));
    }

    #[test]
    fn calls_that_need_no_record_are_not_held() {
        let mut spill = Spill::new();
        let fact = |jti: u128, kind: Kind| Fact {
            jti,
            kind,
            audit: 1,
            object: Object::from_parts([1, 2, 3]),
            class: 0,
            time: 0,
            until: 0,
        };
        for time in 0..(2 * IN_MEMORY as u64) {
            let call = fact(7, Kind::OtherCall);
            spill.push(&Fact { time, ..call }).unwrap();
        }
        for kind in [Kind::OtherCall, Kind::Answered] {
            spill.push(&fact(8, kind)).unwrap();
        }
        let facts: Vec<Fact> = spill.parts().flat_map(Result::unwrap).collect();
        assert_eq!(facts, [fact(8, Kind::Answered), fact(8, Kind::OtherCall)]);
    }
}
