//! Lines of a log, without what a container runtime or `kubectl logs` put before them. Pure over a `BufRead`; of a line longer
//! than the limit only the beginning is held.

use std::io::{self, BufRead};

/// More than a line of the record and any prefix.
pub(super) const RECORD_LIMIT: usize = 64 * 1024;
/// An event of the cluster may hold bodies, if the audit policy says so.
pub(super) const CLUSTER_LIMIT: usize = 16 * 1024 * 1024;

/// Reads lines one by one.
pub(super) struct Lines<R> {
    reader: R,
    limit: usize,
    number: u64,
    buffer: Vec<u8>,
    whole: bool,
    /// The beginning of a line that the runtime split (CRI tag `P`), and where it began.
    split: Option<(u64, Vec<u8>)>,
}

/// One line.
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: u64,
    /// What follows the prefix; empty for a line of standard error.
    pub(super) text: &'a [u8],
    /// `false` for the beginning of one that is too long.
    pub(super) whole: bool,
}

/// What a container runtime's prefix says (CRI: `<time> <stream> <tags> <text>`).
struct Cri<'a> {
    stdout: bool,
    partial: bool,
    text: &'a [u8],
}

impl<R: BufRead> Lines<R> {
    pub(super) const fn new(reader: R, limit: usize) -> Self {
        Self {
            reader,
            limit,
            number: 0,
            buffer: Vec::new(),
            whole: true,
            split: None,
        }
    }

    /// The next line, or `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            if !self.fill()? {
                return Ok(self.rest());
            }
            let cri = Cri::parse(&self.buffer);
            let Some(cri) = cri.filter(|cri| cri.stdout) else {
                break;
            };
            if !cri.partial && self.split.is_none() {
                break;
            }
            let (_, split) = self.split.get_or_insert_with(|| (self.number, Vec::new()));
            // One byte more than the limit is kept, which tells that there were more.
            let room = (self.limit + 1).saturating_sub(split.len());
            split.extend_from_slice(cri.text.get(..room).unwrap_or(cri.text));
            if !cri.partial {
                return Ok(self.rest());
            }
        }
        Ok(Some(Line {
            number: self.number,
            text: without_prefix(&self.buffer),
            whole: self.whole,
        }))
    }

    fn rest(&mut self) -> Option<Line<'_>> {
        let (number, text) = self.split.take()?;
        self.buffer = text;
        self.cut();
        Some(Line {
            number,
            text: without_prefix(&self.buffer),
            whole: self.whole,
        })
    }

    fn cut(&mut self) {
        self.whole = self.buffer.len() <= self.limit;
        self.buffer.truncate(self.limit);
    }

    /// Reads one line into the buffer.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        let mut any = false;
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            any = true;
            let (line, used, ended) = match memchr::memchr(b'\n', chunk) {
                Some(end) => (chunk.get(..end).unwrap_or_default(), end + 1, true),
                None => (chunk, chunk.len(), false),
            };
            if self.buffer.len() <= self.limit {
                self.buffer.extend_from_slice(line);
            }
            self.reader.consume(used);
            if ended {
                break;
            }
        }
        self.cut();
        self.number += u64::from(any);
        Ok(any)
    }
}

impl<'a> Cri<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        if !line.first()?.is_ascii_digit() {
            return None;
        }
        let mut words = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tags) = (words.next()?, words.next()?, words.next()?);
        let stdout = match stream {
            b"stdout" => true,
            b"stderr" => false,
            _ => return None,
        };
        let partial = match tags.split(|byte| *byte == b':').next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        time.contains(&b'T').then_some(Self {
            stdout,
            partial,
            text: words.next().unwrap_or_default(),
        })
    }
}

/// The text from its first brace on: `kubectl logs` can put a time or the pod's name before it. All of it if it has none.
pub(super) fn without_prefix(line: &[u8]) -> &[u8] {
    if Cri::parse(line).is_some_and(|cri| !cri.stdout) {
        return &[];
    }
    let start = memchr::memchr(b'{', line).unwrap_or(0);
    let text = line.get(start..).unwrap_or_default();
    // A file system may leave zeros where a machine went down.
    let blank = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
    let end = text.iter().rposition(|byte| !blank(byte));
    text.get(..end.map_or(0, |end| end + 1))
        .unwrap_or_default()
        .trim_ascii_start()
}
