//! "Labelling the namespace is all a user does": keeps one RoleBinding in every managed namespace, as long as the token guard
//! stands. Every pass looks at everything that is known, so it does not matter which event was missed; several replicas do
//! the same, and the API server resolves their races.

pub(crate) mod guard;
mod plan;
mod probe;
mod watches;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRole, RoleBinding};
use kube::api::{DeleteParams, DynamicObject, PostParams, Preconditions};
use kube::core::{ApiResource, PartialObjectMeta};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;
use tollgate_shared::contract::{
    AGENT_CLUSTER_ROLE, Injection, NAMESPACE_LABEL, ROLE_BINDING, SYSTEM_NAMESPACE,
};
use tracing::Level;

use self::guard::{Guard, Shipped, Stored};
use self::plan::Step;
use self::probe::Probe;
use self::watches::{Events, Listed, Watches};
use crate::inject::InjectConfig;
use crate::metrics::Metrics;

/// How often everything is looked at, whether or not anything happened.
const PERIOD: Duration = Duration::from_secs(60);
/// How long until a failed step is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long after a start a guard that never was in force is taken for a new one.
const EARLY: Duration = Duration::from_secs(120);

/// Namespaces that are never managed.
pub(crate) const NEVER: [&str; 2] = ["kube-system", SYSTEM_NAMESPACE];

/// The guard that is compiled in cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the token guard of this build is no YAML: {0}")]
pub struct BadBuild(#[from] serde_saphyr::Error);

/// The reconciler.
pub struct Enable {
    client: Client,
    config: watch::Receiver<Arc<InjectConfig>>,
    metrics: Metrics,
    namespaces: Store<PartialObjectMeta<Namespace>>,
    bindings: Store<RoleBinding>,
    policies: Store<DynamicObject>,
    policy_bindings: Store<DynamicObject>,
    events: Events,
    unlisted: BTreeSet<usize>,
    /// Whether the guard has answered since it was last seen not to stand.
    answered: bool,
    /// Whether it has ever answered.
    has_answered: bool,
    begun: Instant,
    said: Option<(Guard, Level)>,
}

impl Enable {
    /// Sets up the watches.
    #[must_use]
    pub fn new(
        client: Client,
        config: watch::Receiver<Arc<InjectConfig>>,
        metrics: Metrics,
    ) -> Self {
        let mut watches = Watches::default();
        // By name, so that the right to read them can be limited to that name.
        let named =
            |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let labelled = watcher::Config::default().labels(NAMESPACE_LABEL);
        let policy = ApiResource::erase::<ValidatingAdmissionPolicy>(&());
        let policy_binding = ApiResource::erase::<ValidatingAdmissionPolicyBinding>(&());
        let api = |kind: &ApiResource| Api::all_with(client.clone(), kind);
        Self {
            namespaces: watches.add(Api::all(client.clone()), (), labelled),
            bindings: watches.add(Api::all(client.clone()), (), named(ROLE_BINDING)),
            policies: watches.add(api(&policy), policy, named(guard::NAME)),
            policy_bindings: watches.add(api(&policy_binding), policy_binding, named(guard::NAME)),
            unlisted: (0..watches.events.len()).collect(),
            events: watches.events,
            client,
            config,
            metrics,
            answered: false,
            has_answered: false,
            begun: Instant::now(),
            said: None,
        }
    }

    /// Runs for ever.
    ///
    /// # Errors
    /// [`BadBuild`].
    pub async fn run(mut self) -> Result<(), BadBuild> {
        let mut pause = PERIOD;
        loop {
            tokio::select! {
                Some(event) = self.events.next() => self.note(event),
                changed = self.config.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(pause) => {}
            }
            // One pass for all that has come meanwhile.
            while let Some(Some(event)) = futures_util::FutureExt::now_or_never(self.events.next())
            {
                self.note(event);
            }
            if self.unlisted.is_empty() {
                let done = self.pass().await?;
                pause = if done { PERIOD } else { AGAIN };
            }
        }
    }

    fn note(&mut self, event: Listed) {
        match event {
            Ok(Some(listed)) => drop(self.unlisted.remove(&listed)),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "a watch of the grants' reconciler failed; it goes on")
            }
        }
    }

    /// One look at everything; whether all that was to do is done.
    async fn pass(&mut self) -> Result<bool, BadBuild> {
        let guard = self.guard().await?;
        let managed = self.managed();
        let role = if managed.is_empty() {
            None
        } else {
            match role(&self.client).await {
                Ok(role) => role,
                Err(error) => {
                    tracing::error!(%error, "cannot read the ClusterRole {AGENT_CLUSTER_ROLE}");
                    self.metrics.grant_failed();
                    return Ok(false);
                }
            }
        };
        let found = self.bindings.state();
        let found = || found.iter().map(Arc::as_ref);
        let granted = found().filter(|binding| plan::is_ours(binding)).count();
        self.metrics.guard(guard == Guard::Stands, granted);
        let mut done = true;
        for step in plan::plan(&managed, found(), &guard, role.as_deref()) {
            if let Err(error) = take(&self.client, &step).await {
                tracing::error!(%error, %step, "a grant could not be given, mended or taken away");
                self.metrics.grant_failed();
                done = false;
            }
        }
        // No event tells when a guard that stands comes into force.
        done &= !matches!(guard, Guard::Silent | Guard::Unknown);
        let early = !self.has_answered && self.begun.elapsed() < EARLY;
        let level = guard.level(early);
        let said = (guard, level);
        if self.said.as_ref() != Some(&said) {
            said.0.log(level);
            self.said = Some(said);
        }
        Ok(done)
    }

    /// Judges the guard; one that begins to stand is asked whether it is in force.
    async fn guard(&mut self) -> Result<Guard, BadBuild> {
        let shipped = Shipped::new(self.config.borrow().defaults.binding)?;
        let find =
            |store: &Store<DynamicObject>| store.find(|object| object.name_any() == guard::NAME);
        let (policy, binding) = (find(&self.policies), find(&self.policy_bindings));
        let judged = shipped.judge(
            policy.as_deref().map(stored),
            binding.as_deref().map(stored),
        );
        self.answered &= judged == Guard::Stands;
        if judged != Guard::Stands || self.answered {
            return Ok(judged);
        }
        Ok(match probe::probe(&self.client).await {
            Probe::Answered => {
                self.answered = true;
                self.has_answered = true;
                judged
            }
            Probe::Silent => Guard::Silent,
            Probe::Unknown => Guard::Unknown,
        })
    }

    fn managed(&self) -> BTreeSet<String> {
        let namespaces = self.namespaces.state();
        let managed = namespaces.iter().filter(|namespace| {
            let label = namespace.labels().get(NAMESPACE_LABEL);
            namespace.metadata.deletion_timestamp.is_none()
                && label.is_some_and(|label| label.parse::<Injection>().is_ok())
        });
        managed
            .map(|namespace| namespace.name_any())
            .filter(|name| !NEVER.contains(&name.as_str()))
            .collect()
    }
}

fn stored(object: &DynamicObject) -> Stored<'_> {
    Stored {
        spec: object.data.get("spec"),
        release: guard::release(&object.metadata),
        is_terminating: object.metadata.deletion_timestamp.is_some(),
    }
}

/// The uid of the ClusterRole, unless it is going.
async fn role(client: &Client) -> kube::Result<Option<String>> {
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let role = roles.get_opt(AGENT_CLUSTER_ROLE).await?;
    Ok(role
        .filter(|role| role.metadata.deletion_timestamp.is_none())
        .and_then(|role| role.metadata.uid))
}

async fn take(client: &Client, step: &Step) -> kube::Result<()> {
    let bindings = |namespace: Option<&String>| {
        let namespace = namespace.map(String::as_str).unwrap_or_default();
        Api::<RoleBinding>::namespaced(client.clone(), namespace)
    };
    let params = PostParams::default();
    let taken = match step {
        Step::Grant(binding) => {
            let bindings = bindings(binding.metadata.namespace.as_ref());
            bindings.create(&params, binding).await.map(drop)
        }
        Step::Mend(binding) => {
            let bindings = bindings(binding.metadata.namespace.as_ref());
            bindings
                .replace(ROLE_BINDING, &params, binding)
                .await
                .map(drop)
        }
        Step::Revoke(namespace, uid) => {
            let params = DeleteParams::default().preconditions(Preconditions {
                uid: Some(uid.clone()),
                resource_version: None,
            });
            let bindings = bindings(Some(namespace));
            bindings.delete(ROLE_BINDING, &params).await.map(drop)
        }
    };
    match taken {
        // Another replica was first, or the namespace has gone; what is left to do comes with its event.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Ok(()) => {
            tracing::info!(%step, "changed a grant");
            Ok(())
        }
        failed => failed,
    }
}
