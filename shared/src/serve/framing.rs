//! A strict look at the bytes of a peer before hyper reads them. hyper takes, and repairs, what RFC 9112 lets a server take: lines
//! that end with a bare LF, and a `Content-Length` beside a `Transfer-Encoding`. Two parsers may read such a request
//! differently, so it is refused: hyper gets a NUL in place of the byte that would complete it, which it answers with 400.
//!
//! It only refuses; what a request is, hyper alone decides. Memory is one short line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memchr::memchr;

/// Of a line, this much is kept: the name and the value of the two headers that count, the size of a chunk.
const KEPT: usize = 64;

/// Where in its requests a peer is.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    line: Line,
    head: Head,
    switched: Switched,
}

/// Set once the connection speaks another protocol.
#[derive(Clone, Debug, Default)]
pub(super) struct Switched(Arc<AtomicBool>);

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Head,
    /// Bytes of a body, or of one of its chunks.
    Data {
        left: u64,
        chunked: bool,
    },
    ChunkSize,
    ChunkEnd,
    Trailers,
    /// Something malformed was found.
    Broken,
}

/// What a head has said so far.
#[derive(Debug, Default)]
struct Head {
    begun: bool,
    length: Option<u64>,
    chunked: bool,
}

/// The line that is being read, without its end.
#[derive(Debug)]
struct Line {
    start: [u8; KEPT],
    length: usize,
    carriage_return: bool,
}

/// Two parsers could read these bytes differently.
struct Malformed;

impl Switched {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Framing {
    pub(super) fn switched(&self) -> Switched {
        self.switched.clone()
    }

    /// Whether something malformed was found.
    pub(super) const fn is_broken(&self) -> bool {
        matches!(self.state, State::Broken)
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    /// How many of them may be passed on; the next one is malformed.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), usize> {
        if self.switched.0.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.step(rest) {
                Ok(taken) => taken,
                Err((taken, Malformed)) => {
                    self.state = State::Broken;
                    return Err(at + taken);
                }
            };
        }
        Ok(())
    }

    /// Takes a part of `bytes`, which is not empty.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, (usize, Malformed)> {
        match &mut self.state {
            State::Broken => return Err((0, Malformed)),
            State::Data { left, chunked } => {
                let taken =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                if *left == 0 {
                    self.state = if *chunked {
                        State::ChunkEnd
                    } else {
                        State::Head
                    };
                }
                return Ok(taken);
            }
            State::Head | State::ChunkSize | State::ChunkEnd | State::Trailers => {}
        }
        let end = memchr(b'\n', bytes);
        let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        self.line.take(part)?;
        match end {
            None => Ok(part.len()),
            Some(end) => match self.line_ended() {
                Ok(()) => Ok(end + 1),
                Err(malformed) => Err((end, malformed)),
            },
        }
    }

    fn line_ended(&mut self) -> Result<(), Malformed> {
        let line = std::mem::take(&mut self.line);
        if !line.carriage_return {
            return Err(Malformed);
        }
        self.state = match self.state {
            State::Head => self.head.line(&line)?,
            State::ChunkSize => match line.chunk_size()? {
                0 => State::Trailers,
                left => State::Data {
                    left,
                    chunked: true,
                },
            },
            State::ChunkEnd if line.length == 0 => State::ChunkSize,
            State::Trailers if line.length == 0 => State::Head,
            State::Trailers => State::Trailers,
            State::ChunkEnd | State::Data { .. } | State::Broken => return Err(Malformed),
        };
        Ok(())
    }
}

impl Head {
    fn line(&mut self, line: &Line) -> Result<State, Malformed> {
        if line.length > 0 {
            if self.begun {
                self.field(line)?;
            }
            self.begun = true;
            return Ok(State::Head);
        }
        // An empty line before a request is skipped, as hyper does.
        let head = std::mem::take(self);
        match (head.chunked, head.length) {
            (true, Some(_)) => Err(Malformed),
            (true, None) => Ok(State::ChunkSize),
            (false, None | Some(0)) => Ok(State::Head),
            (false, Some(left)) => Ok(State::Data {
                left,
                chunked: false,
            }),
        }
    }

    fn field(&mut self, line: &Line) -> Result<(), Malformed> {
        let kept = line.kept();
        if kept
            .first()
            .is_some_and(|byte| matches!(byte, b' ' | b'\t'))
        {
            return Err(Malformed);
        }
        let Some((name, value)) = memchr(b':', kept).and_then(|colon| kept.split_at_checked(colon))
        else {
            return Ok(());
        };
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = line.whole(value).and_then(|value| number(value, 10))?;
            if self.length.replace(length).is_some() {
                return Err(Malformed);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let chunked = line.whole(value)?.eq_ignore_ascii_case(b"chunked");
            if !chunked || std::mem::replace(&mut self.chunked, true) {
                return Err(Malformed);
            }
        }
        Ok(())
    }
}

impl Default for Line {
    fn default() -> Self {
        Self {
            start: [0; KEPT],
            length: 0,
            carriage_return: false,
        }
    }
}

impl Line {
    /// Takes a part of the line, without its LF. A CR may only come last.
    fn take(&mut self, part: &[u8]) -> Result<(), (usize, Malformed)> {
        if self.carriage_return && !part.is_empty() {
            return Err((0, Malformed));
        }
        let (text, carriage_return) = match memchr(b'\r', part) {
            Some(at) if at + 1 < part.len() => return Err((at + 1, Malformed)),
            Some(at) => (part.get(..at).unwrap_or_default(), true),
            None => (part, false),
        };
        let room = self.start.get_mut(self.length..).unwrap_or_default();
        for (to, from) in room.iter_mut().zip(text) {
            *to = *from;
        }
        self.length = self.length.saturating_add(text.len());
        self.carriage_return |= carriage_return;
        Ok(())
    }

    fn kept(&self) -> &[u8] {
        self.start.get(..self.length).unwrap_or(&self.start)
    }

    /// A value of this line, if nothing of the line was left out.
    fn whole<'a>(&self, value: &'a [u8]) -> Result<&'a [u8], Malformed> {
        if self.length <= KEPT {
            Ok(value)
        } else {
            Err(Malformed)
        }
    }

    /// The size, before extensions.
    fn chunk_size(&self) -> Result<u64, Malformed> {
        let kept = self.kept();
        let digits = match memchr(b';', kept) {
            Some(at) => kept.get(..at).unwrap_or_default(),
            None => self.whole(kept)?,
        };
        number(digits.trim_ascii_end(), 16)
    }
}

/// Digits alone: no sign, no space, not nothing, no overflow.
fn number(digits: &[u8], radix: u32) -> Result<u64, Malformed> {
    if digits.is_empty() {
        return Err(Malformed);
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(radix).ok_or(Malformed)?;
        let number = number.checked_mul(radix.into()).ok_or(Malformed)?;
        number.checked_add(digit.into()).ok_or(Malformed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes pass.
    fn passed(parts: &[&[u8]]) -> usize {
        let mut framing = Framing::default();
        let mut total = 0;
        for part in parts {
            match framing.read(part) {
                Ok(()) => total += part.len(),
                Err(taken) => return total + taken,
            }
        }
        total
    }

    /// Requests that pass; each is followed by another one, so that its end is where it should be.
    const SOUND: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length:5\r\n\r\na\nb\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\n\n\n\r\n00A \r\n0123456789\r\n0;x=y\r\nA: b\r\n\r\n",
        "GET / HTTP/1.1\r\nX-Content-Length: 7\r\nContent-Length-X: 7\r\n\r\n",
        "garbage\r\nmore garbage\r\n\r\n",
    ];

    /// What passes, then what does not.
    const MALFORMED: &[(&str, &str)] = &[
        ("GET / HTTP/1.1", "\nHost: a\n\n"),
        ("GET / HTTP/1.1\r\nHost: a", "\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: a\r\n", "\n"),
        ("GET / HTTP/1.1\r\nHost: a\r", "Content-Length: 1\r\n\r\n"),
        ("GET / HTTP/1.1\r", "\r\n\r\n"),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r", "\n\r\n"),
        ("GET / HTTP/1.1\r\nA: b\r\n\tc\r", "\n\r\n"),
        (
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r",
            "\n0\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r",
            "\n0\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r",
            "\n\r\nabcde",
        ),
        ("POST / HTTP/1.1\r\nContent-Length: 5, 5\r", "\n\r\n"),
        ("POST / HTTP/1.1\r\nContent-Length: +5\r", "\n\r\n"),
        ("POST / HTTP/1.1\r\nContent-Length:\r", "\n\r\n"),
        (
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r",
            "\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length:                                                      5\r",
            "\n\r\nabcde",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r",
            "\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r",
            "\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r",
            "\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0",
            "\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r",
            "\na\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r",
            "\n",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0000000000000000000000000000000000000000000000000000000000000000001\r",
            "\na\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r",
            "\n",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a=\"",
            "\n\"\r\na\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b",
            "\n\r\n",
        ),
    ];

    #[test]
    fn sound_requests_pass_however_they_are_cut() {
        for one in SOUND {
            for two in SOUND {
                let bytes = [one.as_bytes(), two.as_bytes()].concat();
                assert_eq!(passed(&[&bytes]), bytes.len(), "{one:?} {two:?}");
                for at in 0..bytes.len() {
                    let (start, end) = bytes.split_at(at);
                    assert_eq!(passed(&[start, end]), bytes.len(), "{one:?} {two:?} {at}");
                }
            }
        }
    }

    #[test]
    fn what_has_two_readings_stops_before_it_is_complete() {
        for before in SOUND.iter().chain([&""]) {
            for (sound, rest) in MALFORMED {
                let bytes = [before, *sound, *rest].concat().into_bytes();
                let expected = before.len() + sound.len();
                assert_eq!(passed(&[&bytes]), expected, "{sound:?}");
                for at in 0..bytes.len() {
                    let (start, end) = bytes.split_at(at);
                    assert_eq!(passed(&[start, end]), expected, "{sound:?} {at}");
                }
            }
        }
    }

    #[test]
    fn another_protocol_may_say_anything() {
        let mut framing = Framing::default();
        framing
            .read(b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n")
            .unwrap();
        framing.switched().set();
        framing.read(b"\n\n\r\x00 Content-Length: x\n").unwrap();
    }
}
