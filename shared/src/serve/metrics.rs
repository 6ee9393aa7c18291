//! What is counted of a listener's connections.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::OwnedSemaphorePermit;

use super::peers::Peer;

/// Connections of one listener.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    open: Gauge,
    turned_away: Family<Labels, Counter>,
}

/// Why a connection got no service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Cause {
    PlainHttp,
    Handshake,
    HandshakeTimeout,
    TooManyOfPeer,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    cause: Cause,
}

impl Metrics {
    /// Registers the metrics; give a registry with a prefix that names the listener.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("connections_open", "Open connections", metrics.open.clone());
        registry.register(
            "connections_turned_away",
            "Connections that ended before a request, by cause",
            metrics.turned_away.clone(),
        );
        metrics
    }

    pub(super) fn opened(&self, permit: OwnedSemaphorePermit, peer: Peer) -> Guard {
        self.open.inc();
        Guard {
            open: self.open.clone(),
            _permit: permit,
            _peer: peer,
        }
    }

    pub(super) fn turned_away(&self, cause: Cause) {
        self.turned_away.get_or_create(&Labels { cause }).inc();
    }
}

/// Lives as long as its connection, upgraded or not.
#[derive(Debug)]
pub(super) struct Guard {
    open: Gauge,
    _permit: OwnedSemaphorePermit,
    _peer: Peer,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.open.dec();
    }
}
