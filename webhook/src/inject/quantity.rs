//! Kubernetes quantities (`100m`, `128Mi`, `1e3`), compared by value (`apimachinery/pkg/api/resource/quantity.go`).

use std::fmt;
use std::str::FromStr;

use crate::json::{Json, Kind};

/// A quantity that is not negative, with the text it was written as.
#[derive(Clone, Debug)]
pub(crate) struct Quantity {
    /// Thousand-millionths, the API's finest unit.
    nanos: u128,
    text: String,
}

/// Suffixes and their worth in nanos; longest first, so that `Mi` is not read as `M`.
const SUFFIXES: [(&str, u128); 16] = [
    ("Ki", NANO << 10),
    ("Mi", NANO << 20),
    ("Gi", NANO << 30),
    ("Ti", NANO << 40),
    ("Pi", NANO << 50),
    ("Ei", NANO << 60),
    ("n", 1),
    ("u", 1_000),
    ("m", 1_000_000),
    ("k", NANO * 1_000),
    ("M", NANO * 1_000_000),
    ("G", NANO * 1_000_000_000),
    ("T", NANO * 1_000_000_000_000),
    ("P", NANO * 1_000_000_000_000_000),
    ("E", NANO * 1_000_000_000_000_000_000),
    ("", NANO),
];
const NANO: u128 = 1_000_000_000;
/// More digits than any sane quantity has, few enough that no product overflows.
const DIGITS: usize = 18;

impl Quantity {
    /// Reads a quantity of a pod; `None` where it is absent or none that we can read.
    pub(crate) fn read(value: Option<Json<'_>>) -> Option<Self> {
        match value?.kind() {
            Kind::String(text) => text.parse().ok(),
            Kind::Number(number) => number.to_string().parse().ok(),
            _ => None,
        }
    }

    /// Whether it is more than nothing.
    pub(crate) const fn is_positive(&self) -> bool {
        self.nanos > 0
    }
}

impl FromStr for Quantity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "is no quantity; one looks like 100m or 128Mi";
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = whole.len() + fraction.len();
        if digits == 0 || digits > DIGITS || fraction.contains('.') {
            return Err(WRONG);
        }
        let mantissa: u128 = format!("{whole}{fraction}").parse().map_err(|_| WRONG)?;
        let scale = match SUFFIXES.iter().find(|(name, _)| *name == suffix) {
            Some((_, scale)) => *scale,
            None => exponent(suffix).ok_or(WRONG)?,
        };
        let places = u32::try_from(fraction.len()).map_err(|_| WRONG)?;
        let product = mantissa.checked_mul(scale).ok_or("is too large")?;
        Ok(Self {
            // The API server rounds up as well.
            nanos: product.div_ceil(10_u128.pow(places)),
            text: text.to_owned(),
        })
    }
}

/// The scale of `e3` or `E-2`, in nanos.
fn exponent(suffix: &str) -> Option<u128> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    10_u128.checked_pow(u32::try_from(power.checked_add(9)?).ok()?)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_by_value() {
        for (a, b) in [
            ("100m", "0.1"),
            ("1", "1000m"),
            ("1Ki", "1024"),
            ("128Mi", "134217728"),
            ("1e3", "1k"),
            ("1E3", "1000"),
            ("1E-1", "100m"),
            ("1.5Gi", "1536Mi"),
            (".5", "500m"),
            ("2E", "2e18"),
        ] {
            let read = |text: &str| text.parse::<Quantity>().unwrap();
            assert_eq!(read(a), read(b), "{a} {b}");
        }
        assert!("127Mi".parse::<Quantity>().unwrap() < "128Mi".parse().unwrap());
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            ".",
            "m",
            "-1",
            "+1",
            "1e99",
            "1ee3",
            "1 Mi",
            "100Mi\n  privileged: true",
            "1.2.3",
            "1Mib",
            "٣",
            "999999999999999999999999",
            "999999999999999999Ei",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }
}
