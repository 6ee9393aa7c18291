//! Values that annotations carry as strings (Kubernetes annotations have no other type), and times.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::id::Parsed;

/// A number as decimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count(pub u64);

/// A duration as seconds with six decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(u64);

/// A point in time, as Kubernetes' `MicroTime` writes it: `2026-08-01T10:00:00.000000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

/// What was decided about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It goes on.
    Allow,
    /// The sidecar answers it.
    Deny,
}

impl Micros {
    /// Whole microseconds.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<Duration> for Micros {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Count {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        digits(text).map(Self)
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

impl FromStr for Micros {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "is no number of seconds with six decimals";
        let (seconds, micros) = text.split_once('.').ok_or(WRONG)?;
        if micros.len() != 6 || !micros.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(WRONG);
        }
        let micros: u64 = micros.parse().map_err(|_| WRONG)?;
        let whole = digits(seconds)?.checked_mul(1_000_000).ok_or(WRONG)?;
        whole.checked_add(micros).map(Self).ok_or(WRONG)
    }
}

impl From<SystemTime> for Timestamp {
    /// A clock before 1970 counts as 1970, one beyond the year 9999 as its end.
    fn from(time: SystemTime) -> Self {
        const END: u64 = 253_402_300_799_999_999;
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        let micros = since.unwrap_or_default().as_micros();
        Self(u64::try_from(micros).unwrap_or(END).min(END))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        Self::UNIX_EPOCH + Duration::from_micros(time.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0 / 1_000_000).unwrap_or(0);
        let time = time::OffsetDateTime::from_unix_timestamp(seconds)
            .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
        let (year, month, day) = time.to_calendar_date();
        let (hour, minute, second) = time.to_hms();
        let (month, micros) = (u8::from(month), self.0 % 1_000_000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        )
    }
}

impl FromStr for Timestamp {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "is no time like 2026-08-01T10:00:00.000000Z";
        let bytes: &[u8; 27] = text.as_bytes().try_into().map_err(|_| WRONG)?;
        let mut parts = [0_u32; 7];
        let mut part = parts.iter_mut();
        let mut current = part.next();
        for (byte, shape) in bytes.iter().zip(b"0000-00-00T00:00:00.000000Z") {
            match (shape, byte) {
                (b'0', b'0'..=b'9') => {
                    let current = current.as_deref_mut().ok_or(WRONG)?;
                    *current = *current * 10 + u32::from(byte - b'0');
                }
                (b'0', _) => return Err(WRONG),
                (shape, byte) if shape == byte => current = part.next(),
                _ => return Err(WRONG),
            }
        }
        Self::from_parts(parts).ok_or(WRONG)
    }
}

impl Timestamp {
    /// Microseconds since 1970.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// From [`Self::micros`].
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    fn from_parts([year, month, day, hour, minute, second, micros]: [u32; 7]) -> Option<Self> {
        let small = |part: u32| u8::try_from(part).ok();
        let month = time::Month::try_from(small(month)?).ok()?;
        let date = time::Date::from_calendar_date(i32::try_from(year).ok()?, month, small(day)?);
        let time = time::Time::from_hms(small(hour)?, small(minute)?, small(second)?);
        let seconds = date
            .ok()?
            .with_time(time.ok()?)
            .assume_utc()
            .unix_timestamp();
        Some(Self(
            u64::try_from(seconds).ok()? * 1_000_000 + u64::from(micros),
        ))
    }
}

/// Serializes through `Display` on the stack, and reads through `FromStr`.
macro_rules! as_string {
    ($type:ident, $size:literal, $what:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut buffer = Stack::<$size>::new();
                write!(buffer, "{self}").map_err(serde::ser::Error::custom)?;
                serializer.serialize_str(buffer.as_str())
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Parsed::new($what))
            }
        }
    };
}

as_string!(Count, 20, "a number in decimal digits");
as_string!(Micros, 28, "seconds with six decimals");
as_string!(Timestamp, 32, "a time in UTC with microseconds");

/// A short string without an allocation.
struct Stack<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Stack<N> {
    const fn new() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
        }
    }

    fn as_str(&self) -> &str {
        let written = self.bytes.get(..self.len).unwrap_or_default();
        std::str::from_utf8(written).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Write for Stack<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Decimal digits without sign or leading zero: one number has one text, or two lines could have one hash.
fn digits(text: &str) -> Result<u64, &'static str> {
    const WRONG: &str = "is no number in decimal digits";
    let canonical = text == "0" || !text.starts_with('0');
    if !canonical || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(WRONG);
    }
    text.parse().map_err(|_| WRONG)
}
