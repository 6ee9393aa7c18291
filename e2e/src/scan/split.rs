//! Splits the output of the walk into files, and looks for tokens in each. Pure; holds no more of a file than one token may be long.

use std::collections::BTreeSet;

use crate::jwt::{Finder, Jwt};

/// Name of the last mark, which is no file.
const END: &str = "end";

/// What the walk's output held.
#[derive(Debug, Default)]
pub(super) struct Split {
    /// Tokens and the file of each.
    pub(super) found: Vec<(Jwt, String)>,
    /// Names of the files; a name may come more than once.
    pub(super) files: BTreeSet<String>,
    /// Whether the last mark came.
    pub(super) ended: bool,
}

/// Takes the output in chunks.
pub(super) struct Splitter {
    /// What comes before each file name.
    mark: Vec<u8>,
    /// Bytes that may be the begin of a mark, or of a file name after it.
    held: Vec<u8>,
    /// The file that is being read.
    path: String,
    finder: Finder,
    split: Split,
}

impl Splitter {
    /// `mark` comes right after a newline, a file name follows up to the next newline.
    pub(super) fn new(mark: &str) -> Self {
        Self {
            mark: format!("\n{mark}").into_bytes(),
            held: Vec::new(),
            path: String::new(),
            finder: Finder::default(),
            split: Split::default(),
        }
    }

    pub(super) fn feed(&mut self, chunk: &[u8]) {
        self.held.extend_from_slice(chunk);
        loop {
            let Some(at) = position(&self.held, &self.mark) else {
                // A mark may have begun in the last bytes.
                let sure = self.held.len().saturating_sub(self.mark.len());
                self.content(sure);
                return;
            };
            let name_start = at + self.mark.len();
            let name = self.held.get(name_start..).unwrap_or_default();
            let Some(length) = name.iter().position(|&byte| byte == b'\n') else {
                self.content(at);
                return;
            };
            let name = String::from_utf8_lossy(name.get(..length).unwrap_or_default()).into_owned();
            self.content(at);
            self.held.drain(..self.mark.len() + length);
            self.next_file(name);
        }
    }

    pub(super) fn end(mut self) -> Split {
        self.content(self.held.len());
        self.finish_file();
        self.split
    }

    /// The first `length` held bytes belong to the present file.
    fn content(&mut self, length: usize) {
        let mut found = Vec::new();
        let content: Vec<u8> = self.held.drain(..length).collect();
        self.finder.feed(&content, &mut found);
        self.keep(found);
    }

    fn finish_file(&mut self) {
        let mut found = Vec::new();
        self.finder.end(&mut found);
        self.keep(found);
    }

    fn keep(&mut self, found: Vec<Jwt>) {
        let place = found.into_iter().map(|jwt| (jwt, self.path.clone()));
        self.split.found.extend(place);
    }

    fn next_file(&mut self, name: String) {
        self.finish_file();
        if name == END {
            self.split.ended = true;
        } else {
            self.split.files.insert(name.clone());
        }
        self.path = name;
    }
}

fn position(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    let (first, rest) = mark.split_first()?;
    let mut from = 0;
    while let Some(next) = bytes.get(from..)?.iter().position(|byte| byte == first) {
        let at = from + next;
        if bytes.get(at + 1..)?.starts_with(rest) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2lnbmF0dXJl";
    const TWO: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ5In0.c2lnbmF0dXJl";

    #[test]
    fn finds_each_token_in_its_file() {
        let text = format!(
            "\nM:/a\n{ONE}\nM:/empty\n\nM:/b c\n\0\0TOKEN={TWO}\0\nM\n{ONE}\nM:/last\n{TWO}\nM:end\n"
        );
        for size in 1..=text.len() {
            let mut splitter = Splitter::new("M:");
            for chunk in text.as_bytes().chunks(size) {
                splitter.feed(chunk);
            }
            let split = splitter.end();
            let found: Vec<_> = split
                .found
                .iter()
                .map(|(jwt, path)| (jwt.expose(), path.as_str()))
                .collect();
            assert_eq!(
                found,
                [(ONE, "/a"), (TWO, "/b c"), (ONE, "/b c"), (TWO, "/last")],
                "chunks of {size}"
            );
            assert_eq!((split.files.len(), split.ended), (4, true));
        }
    }

    #[test]
    fn knows_that_it_broke_off() {
        let mut splitter = Splitter::new("M:");
        splitter.feed(b"\nM:/a\ncontent\nM:e");
        assert!(!splitter.end().ended);
    }

    #[test]
    fn holds_little() {
        let mut splitter = Splitter::new("mark");
        for _ in 0..64 {
            splitter.feed(&[b'\n'; 4096]);
            assert!(splitter.held.len() <= 8);
        }
    }
}
