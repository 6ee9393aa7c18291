//! How many unused tokens to hold, and for how long. Pure: every instant is given.
//!
//! A lone call mints for itself; the stock begins with the second call of a burst, at one token. It doubles when a call finds it
//! empty although all that was wanted had come, and shrinks by each token that became too old. An agent that rests for [`IDLE`]
//! gets an empty stock that has to grow again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Longest life in the stock: a second below the promised 30 s, because timers are late on a busy machine.
pub(super) const HOLD: Duration = Duration::from_secs(29);
/// An agent that makes no call for this long is idle.
pub(super) const IDLE: Duration = Duration::from_secs(10);
/// Most tokens, those being minted included.
pub(super) const MOST: usize = 32;
/// Pause after a failed mint; doubled with each one that follows.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause of our own making.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The stock. What it drops is dropped in the sense of Rust, so a token's guard can say so.
pub(super) struct Plan<T> {
    /// With the time of their mint, the oldest first.
    held: VecDeque<(Instant, T)>,
    /// Being minted.
    filling: usize,
    wanted: usize,
    /// Minted since `wanted` grew.
    delivered: usize,
    last_call: Option<Instant>,
    failures: u32,
    /// Nothing is minted ahead before.
    paused_until: Option<Instant>,
    closed: bool,
}

impl<T> Plan<T> {
    pub(super) const fn new() -> Self {
        Self {
            held: VecDeque::new(),
            filling: 0,
            wanted: 0,
            delivered: 0,
            last_call: None,
            failures: 0,
            paused_until: None,
            closed: false,
        }
    }

    /// A call wants a token: the oldest, or none if it has to mint for itself.
    pub(super) fn call(&mut self, now: Instant) -> Option<T> {
        self.expire(now);
        let burst = !self.is_idle(now);
        self.last_call = Some(now);
        if !burst || self.closed {
            return None;
        }
        if let Some((_, token)) = self.held.pop_front() {
            return Some(token);
        }
        if self.delivered >= self.wanted {
            self.wanted = (2 * self.wanted).clamp(1, MOST);
            self.delivered = 0;
        }
        None
    }

    /// How many mints to begin now. Each ends with [`Self::minted`] or [`Self::failed`].
    pub(super) fn fill(&mut self, now: Instant) -> usize {
        let paused = self.paused_until.is_some_and(|until| now < until);
        if paused || self.closed || self.is_idle(now) {
            return 0;
        }
        let missing = self.wanted.saturating_sub(self.held.len() + self.filling);
        self.filling += missing;
        missing
    }

    /// A mint gave a token. It is dropped if nobody is expected to want it any more.
    pub(super) fn minted(&mut self, now: Instant, token: T) {
        self.filling = self.filling.saturating_sub(1);
        self.failures = 0;
        self.delivered += 1;
        if !self.closed && !self.is_idle(now) && self.held.len() < self.wanted {
            self.held.push_back((now, token));
        }
    }

    /// A mint for the stock failed; `retry_after` is what the API server said, in seconds.
    pub(super) fn failed(&mut self, now: Instant, retry_after: Option<u32>) {
        self.filling = self.filling.saturating_sub(1);
        self.refused(now, retry_after);
    }

    /// The API server mints nothing at the moment: leave what it can do to the calls.
    pub(super) fn refused(&mut self, now: Instant, retry_after: Option<u32>) {
        // Mints that were under way together fail together: that is one failure.
        if self.paused_until.is_none_or(|until| now >= until) {
            self.failures = self.failures.saturating_add(1);
        }
        let doubled = 2_u32.saturating_pow(self.failures.saturating_sub(1));
        let pause = PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE);
        let asked = Duration::from_secs(retry_after.unwrap_or_default().into());
        self.paused_until = self.paused_until.max(Some(now + pause.max(asked)));
    }

    /// Drops what is too old, or everything if the agent is idle.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.is_idle(now) {
            self.clear();
            return;
        }
        while let Some((since, _)) = self.held.front()
            && now.saturating_duration_since(*since) >= HOLD
        {
            self.held.pop_front();
            self.wanted = self.wanted.saturating_sub(1);
        }
    }

    /// When [`Self::expire`] has something to do; `None` while nothing is held.
    pub(super) fn wake(&self) -> Option<Instant> {
        let (oldest, _) = self.held.front()?;
        let idle = self.last_call? + IDLE;
        Some(idle.min(*oldest + HOLD))
    }

    /// Drops everything; the stock has to grow again.
    pub(super) fn clear(&mut self) {
        self.held.clear();
        self.wanted = 0;
        self.delivered = 0;
    }

    /// Drops everything, for good.
    pub(super) fn close(&mut self) {
        self.clear();
        self.closed = true;
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.last_call
            .is_none_or(|last| now.saturating_duration_since(last) >= IDLE)
    }
}

#[cfg(test)]
mod tests;
