//! How long an agent may make a call wait for its body. Only the time counts in which nothing is there to pass on, so a slow API
//! server costs the agent nothing. A call whose body never waits costs no timer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Bytes for which the agent gets a second more. A client on loopback sends a million times as fast; the API server ends the
/// call after 60 s in any case.
const BYTES_A_SECOND: u64 = 1024;

/// The time that the agent of one call has taken so far.
#[derive(Debug)]
pub struct Pace {
    grace: Duration,
    waited: Duration,
    since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// `grace` is what the agent may take whatever it sends.
    #[must_use]
    pub const fn new(grace: Duration) -> Self {
        Self {
            grace,
            waited: Duration::ZERO,
            since: None,
            alarm: None,
        }
    }

    /// Nothing is there after so many bytes. Ready once the agent's time is used up.
    pub(super) fn poll_wait(&mut self, bytes: u64, cx: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            let deadline = now + left(self.grace, bytes, self.waited);
            match &mut self.alarm {
                Some(alarm) => alarm.as_mut().reset(deadline),
                None => self.alarm = Some(Box::pin(tokio::time::sleep_until(deadline))),
            }
        }
        match &mut self.alarm {
            Some(alarm) => alarm.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// Something is there again.
    pub(super) fn arrived(&mut self) {
        if let Some(since) = self.since.take() {
            self.waited = self.waited.saturating_add(since.elapsed());
        }
    }
}

/// What is left to wait for an agent that has sent so many bytes.
const fn left(grace: Duration, bytes: u64, waited: Duration) -> Duration {
    grace
        .saturating_add(Duration::from_secs(bytes / BYTES_A_SECOND))
        .saturating_sub(waited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_buy_time_and_waiting_spends_it() {
        for (bytes, waited, left_over) in [
            (0, 0, 10),
            (1023, 0, 10),
            (1024, 0, 11),
            (10 * 1024, 15, 5),
            (10 * 1024, 20, 0),
            (10, 60, 0),
            (u64::MAX, 0, u64::MAX / 1024 + 10),
        ] {
            assert_eq!(
                left(Duration::from_secs(10), bytes, Duration::from_secs(waited)),
                Duration::from_secs(left_over),
                "{bytes} bytes, {waited} s"
            );
        }
    }
}
