//! Durations as Go writes them (`10m`, `1h30m`, `600s`, `1.5h`): what users of Kubernetes know.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration in Go's syntax, never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(Duration);

impl GoDuration {
    /// A whole number of seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

/// Go's units in nanoseconds, longest spelling first so that `ms` is not read as `m`.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is empty; a duration looks like 10m or 600s".to_owned());
        }
        if text.starts_with('-') {
            return Err("is negative".to_owned());
        }
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let mut rest = text;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (nanos, after) = term(rest)?;
            total = total.checked_add(nanos).ok_or("is too long")?;
            rest = after;
        }
        Ok(Self(Duration::from_nanos(total)))
    }
}

/// Reads one number with its unit; gives nanoseconds and what follows.
fn term(text: &str) -> Result<(u64, &str), String> {
    let wrong = || "is no duration; one looks like 10m or 600s".to_owned();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or("lacks a unit, as in 600s or 10m")?;
    let (number, rest) = text.split_at(end);
    let (unit, scale) = UNITS
        .iter()
        .find(|(unit, _)| rest.starts_with(unit))
        .ok_or_else(wrong)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 9 {
        return Err(wrong());
    }
    let parse = |digits: &str| {
        if digits.is_empty() {
            Ok(0)
        } else {
            digits.parse::<u64>().map_err(|_| "is too long")
        }
    };
    let divisor = 10_u64.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
    let part = u128::from(parse(fraction)?) * u128::from(*scale) / u128::from(divisor);
    let nanos = u128::from(parse(whole)?) * u128::from(*scale) + part;
    let rest = rest.strip_prefix(unit).ok_or_else(wrong)?;
    Ok((u64::try_from(nanos).map_err(|_| "is too long")?, rest))
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_nanos() == 0 {
            write!(f, "{}s", self.0.as_secs())
        } else {
            write!(f, "{}ns", self.0.as_nanos())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("600s", 600_000_000_000),
            ("10m", 600_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1ms2us3ns", 1_002_003),
            ("1µs", 1_000),
        ] {
            assert_eq!(
                text.parse::<GoDuration>().map(|d| d.get().as_nanos()),
                Ok(nanos),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "10",
            "m",
            "1d",
            "-1s",
            "1 s",
            "s1",
            ".s",
            "1..2s",
            "99999999999999h",
            "1e3s",
            "+1s",
            "1h-1m",
        ] {
            assert!(text.parse::<GoDuration>().is_err(), "{text}");
        }
    }
}
