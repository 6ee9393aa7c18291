//! How many connections one address may hold: whoever reaches the port from one pod cannot take all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Open = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// The addresses that are connected to one listener.
#[derive(Debug)]
pub(super) struct Peers {
    most: usize,
    open: Open,
}

/// One connection of an address, as long as it lives.
#[derive(Debug)]
pub(super) struct Peer {
    address: IpAddr,
    open: Open,
}

impl Peers {
    /// At most `most` connections for each address.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            open: Open::default(),
        }
    }

    /// Counts a connection; `None` if its address has as many as it may.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Peer> {
        let mut open = lock(&self.open);
        let count = open.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Peer {
            address,
            open: Arc::clone(&self.open),
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

fn lock(open: &Open) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_share_and_nothing_is_remembered() {
        let [one, other] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let peers = Peers::new(2);
        let first = peers.enter(one).unwrap();
        let second = peers.enter(one).unwrap();
        assert!(peers.enter(one).is_none());
        assert!(peers.enter(other).is_some());
        drop(first);
        let third = peers.enter(one).unwrap();
        assert!(peers.enter(one).is_none());
        drop((second, third));
        assert!(lock(&peers.open).is_empty());
        assert!(Peers::new(0).enter(one).is_none());
    }
}
