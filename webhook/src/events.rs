//! Events for the owners of workloads whose pods are denied, or injected with warnings: a user who makes a Deployment sees neither
//! the denial nor the warning. Off the path of reviews, which only leave hints in a bounded queue: what is told is read and
//! judged anew here (docs/adr/0070), and no failure of it reaches a review.

mod hint;
mod memory;
mod note;

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use tollgate_shared::contract::{Injection, NAMESPACE_LABEL};

pub(crate) use self::hint::{Hint, controller, is_real};
use self::memory::{Follow, Memory};
use self::note::Note;
use crate::inject::InjectConfig;
use crate::metrics::{EventOutcome, Metrics};

/// How many hints may wait.
const QUEUE: usize = 256;
/// How long following one may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where reviews leave their hints.
#[derive(Clone, Debug)]
pub struct Hints {
    queue: mpsc::Sender<Hint>,
    metrics: Metrics,
}

impl Hints {
    /// Leaves a hint, or counts it as dropped. Never waits.
    pub(crate) fn leave(&self, hint: Hint) {
        if self.queue.try_send(hint).is_err() {
            self.metrics.event(EventOutcome::Dropped);
        }
    }
}

/// Follows hints.
pub struct Events {
    client: Client,
    config: watch::Receiver<Arc<InjectConfig>>,
    metrics: Metrics,
    queue: mpsc::Receiver<Hint>,
    memory: Memory,
}

impl Events {
    /// Both ends of the queue.
    #[must_use]
    pub fn new(
        client: Client,
        config: watch::Receiver<Arc<InjectConfig>>,
        metrics: Metrics,
    ) -> (Hints, Self) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let hints = Hints {
            queue: sender,
            metrics: metrics.clone(),
        };
        let events = Self {
            client,
            config,
            metrics,
            queue,
            memory: Memory::default(),
        };
        (hints, events)
    }

    /// Runs until nobody can leave a hint any more, then rests.
    pub async fn run(mut self) {
        while let Some(hint) = self.queue.recv().await {
            let outcome = match self.memory.follow(&hint, Instant::now()) {
                Follow::Yes => self.told(&hint).await,
                Follow::Known => EventOutcome::Known,
                Follow::TooMany => EventOutcome::Dropped,
            };
            self.metrics.event(outcome);
        }
        std::future::pending().await
    }

    async fn told(&self, hint: &Hint) -> EventOutcome {
        match tokio::time::timeout(PATIENCE, self.tell(hint)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                tracing::warn!(%error, namespace = hint.namespace, owner = hint.name, "an event could not be written");
                EventOutcome::Failed
            }
            Err(_) => EventOutcome::Failed,
        }
    }

    /// Looks at what the hint names, and tells what there is to tell.
    async fn tell(&self, hint: &Hint) -> kube::Result<EventOutcome> {
        let namespace = hint.namespace.as_str();
        let Some(injection) = self.injection(namespace).await? else {
            return Ok(EventOutcome::Unconfirmed);
        };
        let kind = hint.kind();
        let workloads: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &kind);
        let found = workloads.get_opt(&hint.name).await?;
        let same = found.filter(|object| object.uid().as_deref() == Some(hint.uid.as_str()));
        let Some(workload) = same.and_then(|object| serde_json::to_value(object).ok()) else {
            return Ok(EventOutcome::Unconfirmed);
        };
        let config = Arc::clone(&self.config.borrow());
        let now = MicroTime(Timestamp::now());
        let event = Note::about(&workload, namespace, injection, &config)
            .and_then(|note| note.event(&workload, namespace, now));
        let Some(event) = event else {
            return Ok(EventOutcome::Unconfirmed);
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        match events.create(&PostParams::default(), &event).await {
            Ok(_) => Ok(EventOutcome::Written),
            // It was told within the life of an event, by us or by another replica.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(EventOutcome::Known),
            Err(error) => Err(error),
        }
    }

    /// The namespace's label.
    async fn injection(&self, name: &str) -> kube::Result<Option<Injection>> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let named = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = namespaces.list_metadata(&named).await?;
        let label = found
            .items
            .first()
            .and_then(|namespace| namespace.labels().get(NAMESPACE_LABEL));
        Ok(label.and_then(|label| label.parse().ok()))
    }
}
