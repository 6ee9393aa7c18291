//! Hashes and the identifiers made from them.

use std::fmt;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The text is not the expected number of lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not {0} in lower-case hexadecimal digits")]
pub struct NotHex(&'static str);

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// What the first line of a chain names as the line before it.
    pub const ZERO: Self = Self([0; 32]);

    /// Hashes bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Hashes texts as if they were one.
    #[must_use]
    pub(super) fn of_parts<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hasher = Sha256::new();
        parts.into_iter().for_each(|part| hasher.update(part));
        Self(hasher.finalize().into())
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn encode<'b>(&self, buffer: &'b mut [u8; 64]) -> &'b str {
        for (pair, byte) in buffer.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&hex(byte));
        }
        text(buffer)
    }
}

impl FromStr for Digest {
    type Err = NotHex;
    fn from_str(text: &str) -> Result<Self, NotHex> {
        const WANTED: NotHex = NotHex("a SHA-256");
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return Err(WANTED);
        }
        fill(&mut bytes, text.as_bytes()).ok_or(WANTED)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encode(&mut [0; 64]))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.encode(&mut [0; 64]))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Parsed::new("a SHA-256"))
    }
}

/// The `Audit-ID` of a call: a UUIDv8 made from the hash of its opening line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuditId([u8; 16]);

impl AuditId {
    /// The identifier of the call whose opening line has this hash: its first 16 bytes, with the version and variant bits of
    /// RFC 9562 section 5.8 set.
    #[must_use]
    pub fn of_opening(hash: &Digest) -> Self {
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(hash.as_bytes()) {
            *to = *from;
        }
        let [.., version, _, variant, _, _, _, _, _, _, _] = &mut bytes;
        *version = (*version & 0x0f) | 0x80;
        *variant = (*variant & 0x3f) | 0x80;
        Self(bytes)
    }

    /// The `Audit-ID` of the TokenRequest made for this call. Whoever knows the call's can compute it, so a mint whose
    /// closing line was lost is still known.
    #[must_use]
    pub fn for_mint(self) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"tollgate.dev/mint\0");
        hasher.update(self.0);
        Self::of_opening(&Digest(hasher.finalize().into()))
    }

    /// The identifier as a number, for tables.
    #[must_use]
    pub const fn number(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// From [`Self::number`].
    #[must_use]
    pub const fn from_number(number: u128) -> Self {
        Self(number.to_be_bytes())
    }

    fn encode<'b>(&self, buffer: &'b mut [u8; 36]) -> &'b str {
        let mut digits = self.0.iter().flat_map(|byte| hex(*byte));
        for (at, place) in buffer.iter_mut().enumerate() {
            *place = match at {
                8 | 13 | 18 | 23 => b'-',
                _ => digits.next().unwrap_or(b'0'),
            };
        }
        text(buffer)
    }
}

impl FromStr for AuditId {
    type Err = NotHex;
    fn from_str(text: &str) -> Result<Self, NotHex> {
        const WANTED: NotHex = NotHex("a UUID");
        let mut digits = [0; 32];
        let mut places = digits.iter_mut();
        if text.len() != 36 {
            return Err(WANTED);
        }
        for (at, byte) in text.bytes().enumerate() {
            match (at, byte) {
                (8 | 13 | 18 | 23, b'-') => {}
                (8 | 13 | 18 | 23, _) => return Err(WANTED),
                _ => *places.next().ok_or(WANTED)? = byte,
            }
        }
        let mut bytes = [0; 16];
        fill(&mut bytes, &digits).ok_or(WANTED)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for AuditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encode(&mut [0; 36]))
    }
}

impl fmt::Debug for AuditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for AuditId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.encode(&mut [0; 36]))
    }
}

impl<'de> Deserialize<'de> for AuditId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Parsed::new("a UUID"))
    }
}

/// Reads a string straight into a type, without a copy of it.
pub(super) struct Parsed<T>(&'static str, std::marker::PhantomData<T>);

impl<T> Parsed<T> {
    pub(super) const fn new(what: &'static str) -> Self {
        Self(what, std::marker::PhantomData)
    }
}

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Parsed<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

fn hex(byte: u8) -> [u8; 2] {
    let digit = |value: u8| {
        if value < 10 {
            b'0' + value
        } else {
            b'a' - 10 + value
        }
    };
    [digit(byte >> 4), digit(byte & 0x0f)]
}

/// ASCII by construction.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn fill(bytes: &mut [u8], digits: &[u8]) -> Option<()> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = (value(*high)? << 4) | value(*low)?;
    }
    Some(())
}
