//! Shutdown as a value that is passed down: whoever holds a [`Watch`] can wait for it.

use tokio::sync::watch;

/// Makes a signal and its first watcher.
#[must_use]
pub fn channel() -> (Drain, Watch) {
    let (sender, receiver) = watch::channel(false);
    (Drain(sender), Watch(receiver))
}

/// Ends the program's work, once.
#[derive(Debug)]
pub struct Drain(watch::Sender<bool>);

impl Drain {
    /// Tells every watcher.
    pub fn signal(&self) {
        self.0.send_replace(true);
    }
}

/// Waits for the end.
#[derive(Clone, Debug)]
pub struct Watch(watch::Receiver<bool>);

impl Watch {
    /// Returns once the end was signalled, or its [`Drain`] is gone.
    pub async fn signaled(&mut self) {
        // An error means that the sender is gone, which is an end too.
        drop(self.0.wait_for(|ended| *ended).await);
    }

    /// Whether the end was signalled.
    #[must_use]
    pub fn is_signaled(&self) -> bool {
        *self.0.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_watcher_hears_it_also_late_ones() {
        let (drain, mut first) = channel();
        let mut second = first.clone();
        assert!(!first.is_signaled());
        drain.signal();
        first.signaled().await;
        second.signaled().await;
        let mut third = second.clone();
        third.signaled().await;
        assert!(third.is_signaled());
    }

    #[tokio::test]
    async fn a_dropped_drain_ends_too() {
        let (drain, mut watch) = channel();
        drop(drain);
        watch.signaled().await;
    }
}
