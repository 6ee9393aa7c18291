//! Readiness as guards: the process is ready when nobody blocks it any more, and never again once it drains.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What still keeps the process from being ready.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<Mutex<Blockers>>);

#[derive(Debug, Default)]
struct Blockers {
    next: u64,
    reasons: BTreeMap<u64, &'static str>,
}

/// Keeps the process unready until it is dropped.
#[derive(Debug)]
#[must_use = "dropping the guard makes the process ready"]
pub struct BlockReady {
    ready: Ready,
    id: u64,
}

impl Ready {
    /// Blocks readiness for a reason, which `/readyz` shows.
    pub fn block(&self, reason: &'static str) -> BlockReady {
        let mut blockers = self.lock();
        let id = blockers.next;
        blockers.next += 1;
        blockers.reasons.insert(id, reason);
        drop(blockers);
        BlockReady {
            ready: self.clone(),
            id,
        }
    }

    /// What is waited for; empty means ready.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.lock().reasons.values().copied().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Blockers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for BlockReady {
    fn drop(&mut self) {
        self.ready.lock().reasons.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_every_guard_is_gone() {
        let ready = Ready::default();
        let (first, second) = (ready.block("mint"), ready.block("listener"));
        assert_eq!(ready.waiting_for(), ["mint", "listener"]);
        drop(first);
        assert_eq!(ready.waiting_for(), ["listener"]);
        drop(second);
        assert!(ready.waiting_for().is_empty());
    }
}
