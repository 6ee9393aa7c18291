//! Several watches, each into a store of its own, and one stream of what happens in them.

use std::pin::Pin;

use futures_util::stream::{SelectAll, Stream, StreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// Something happened: the index of a watch whose list is now complete, or nothing to tell.
pub(super) type Listed = Result<Option<usize>, watcher::Error>;
/// What happens in all watches.
pub(super) type Events = SelectAll<Pin<Box<dyn Stream<Item = Listed> + Send>>>;

#[derive(Default)]
pub(super) struct Watches {
    /// What happens in any of them.
    pub(super) events: Events,
}

impl Watches {
    /// Watches a kind into a store.
    pub(super) fn add<K>(
        &mut self,
        api: Api<K>,
        kind: K::DynamicType,
        config: watcher::Config,
    ) -> Store<K>
    where
        K: Resource<DynamicType: Eq + std::hash::Hash + Clone + Send + Sync>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let writer = reflector::store::Writer::new(kind);
        let store = writer.as_reader();
        let index = self.events.len();
        let events = reflector::reflector(writer, watcher::watcher(api, config))
            .default_backoff()
            .map(move |event| event.map(|event| matches!(event, Event::InitDone).then_some(index)));
        self.events.push(Box::pin(events));
        store
    }
}
