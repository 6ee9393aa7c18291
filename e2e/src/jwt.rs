//! Finds everything shaped like a JSON Web Token in a stream of bytes, wherever the stream is cut into chunks. Pure: it judges
//! shape only, never whether somebody accepts the token.

use std::fmt;

/// Longest run of token characters that is looked at; API servers refuse headers long before that.
const LONGEST: usize = 64 * 1024;

/// Three base64url parts joined by dots, of which the first begins a JSON object. `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Jwt(String);

impl Jwt {
    /// The text, to send it to a TokenReview or to look for it elsewhere. Never print it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jwt([{} bytes redacted])", self.0.len())
    }
}

/// Every token in a text that is at hand as a whole.
#[must_use]
pub fn find(bytes: &[u8]) -> Vec<Jwt> {
    let mut finder = Finder::default();
    let mut found = Vec::new();
    finder.feed(bytes, &mut found);
    finder.end(&mut found);
    found
}

/// Finds tokens in a stream.
#[derive(Default)]
pub struct Finder {
    /// The characters that a token may have, seen since the last one that it may not.
    run: Vec<u8>,
}

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Finder([{} bytes redacted])", self.run.len())
    }
}

impl Finder {
    /// Takes the next bytes of the stream; what is complete goes to `found`.
    pub fn feed(&mut self, bytes: &[u8], found: &mut Vec<Jwt>) {
        for &byte in bytes {
            if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
                self.run.push(byte);
                if self.run.len() >= LONGEST {
                    self.end(found);
                }
            } else if !self.run.is_empty() {
                self.end(found);
            }
        }
    }

    /// The stream ends here, or another one begins.
    pub fn end(&mut self, found: &mut Vec<Jwt>) {
        let run = String::from_utf8(std::mem::take(&mut self.run)).unwrap_or_default();
        // A token may follow other characters directly: try each place where one could begin.
        for (start, _) in run.match_indices("eyJ") {
            if let Some(jwt) = run.get(start..).and_then(three_parts) {
                found.push(Jwt(jwt));
            }
        }
    }
}

fn three_parts(text: &str) -> Option<String> {
    let mut parts = text.split('.');
    let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
    // Six characters are the least that `{"a":…` takes in base64.
    let shaped = header.len() >= 6 && claims.len() >= 6 && signature.len() >= 6;
    shaped.then(|| format!("{header}.{claims}.{signature}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2lnbmF0dXJl";

    fn texts(found: &[Jwt]) -> Vec<&str> {
        found.iter().map(Jwt::expose).collect()
    }

    #[test]
    fn finds_tokens_between_anything() {
        for (text, count) in [
            (ONE.to_owned(), 1),
            (format!("TOKEN={ONE}\0NEXT=1"), 1),
            (format!("\"{ONE}\",\"{ONE}\""), 2),
            (format!("a{ONE}."), 1),
            (format!("x.{ONE}.y.z"), 1),
            ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0".to_owned(), 0),
            ("eyJhbGciOiJub25lIn0..c2lnbmF0dXJl".to_owned(), 0),
            ("tgl1_c2VjcmV0".to_owned(), 0),
            (String::new(), 0),
        ] {
            let found = find(text.as_bytes());
            assert_eq!(texts(&found), vec![ONE; count], "{text:?}");
        }
    }

    #[test]
    fn chunks_do_not_matter() {
        let text = format!("head {ONE} tail");
        for size in 1..text.len() {
            let (mut finder, mut found) = (Finder::default(), Vec::new());
            for chunk in text.as_bytes().chunks(size) {
                finder.feed(chunk, &mut found);
            }
            finder.end(&mut found);
            assert_eq!(texts(&found), [ONE], "chunks of {size}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let (mut finder, mut found) = (Finder::default(), Vec::new());
        for _ in 0..100 {
            finder.feed(&[b'a'; 4096], &mut found);
            assert!(finder.run.len() < LONGEST);
        }
        assert_eq!(found, []);
    }

    #[test]
    fn shows_nothing() {
        let shown = format!("{:?}", find(ONE.as_bytes()));
        assert!(!shown.contains("eyJ"), "{shown}");
    }
}
