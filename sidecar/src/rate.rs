//! A cap on calls per second: a bucket of as many calls as a second allows, so that a burst of that size passes at once, and a
//! steady agent gets the rate. Pure: every instant is given.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// The bucket, as the one time at which it would be full again (the generic cell rate algorithm).
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Time that one call costs.
    cost: Duration,
    full: Option<Instant>,
}

/// A second's worth of calls fits.
const ROOM: Duration = Duration::from_secs(1);

impl Bucket {
    /// A full bucket of this many calls per second.
    #[must_use]
    pub fn new(per_second: NonZeroU32) -> Self {
        Self {
            cost: ROOM / per_second.get(),
            full: None,
        }
    }

    /// Takes a call, or says how long until there is room for one.
    ///
    /// # Errors
    /// The wait; the call is not counted then.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let full = self.full.map_or(now, |full| full.max(now)) + self.cost;
        let wait = full
            .saturating_duration_since(now)
            .saturating_sub(ROOM.max(self.cost));
        if !wait.is_zero() {
            return Err(wait);
        }
        self.full = Some(full);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(per_second: u32) -> Bucket {
        Bucket::new(NonZeroU32::new(per_second).unwrap())
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_second_of_calls_at_once_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = bucket(4);
        for (at, taken) in [
            (0, Ok(())),
            (0, Ok(())),
            (0, Ok(())),
            (0, Ok(())),
            (0, Err(ms(250))),
            (100, Err(ms(150))),
            (250, Ok(())),
            (250, Err(ms(250))),
            (999, Ok(())),
            (999, Ok(())),
            (999, Err(ms(1))),
            // A rest fills it, but not beyond a second's worth.
            (60_000, Ok(())),
            (60_000, Ok(())),
            (60_000, Ok(())),
            (60_000, Ok(())),
            (60_000, Err(ms(250))),
        ] {
            assert_eq!(bucket.take(start + ms(at)), taken, "{at}");
        }
    }

    #[test]
    fn one_call_a_second() {
        let start = Instant::now();
        let mut bucket = bucket(1);
        assert_eq!(bucket.take(start), Ok(()));
        assert_eq!(bucket.take(start + ms(400)), Err(ms(600)));
        assert_eq!(bucket.take(start + ms(1000)), Ok(()));
        // A clock that stands still or goes back gives nothing away.
        assert_eq!(bucket.take(start + ms(1000)), Err(ms(1000)));
        assert!(bucket.take(start).is_err());
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_two_seconds_worth(rate in 1..200_u32, gaps in prop::collection::vec(0..300_u64, 0..600)) {
            let mut now = Instant::now();
            let mut bucket = bucket(rate);
            let mut passed: Vec<Instant> = Vec::new();
            for gap in gaps {
                now += ms(gap);
                match bucket.take(now) {
                    Ok(()) => passed.push(now),
                    Err(wait) => {
                        prop_assert!(wait <= ms(1000));
                        prop_assert_eq!(bucket.clone().take(now + wait), Ok(()), "the wait is long enough");
                    }
                }
                let recent = passed.iter().filter(|at| now - **at < ms(1000)).count();
                prop_assert!(recent <= 2 * rate as usize);
            }
        }
    }
}
