//! The agent pod of a test: an image with an unmodified kubectl that waits for commands.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::audit::{AuditEvent, AuditLog};
use crate::exec::{self, Output};
use crate::join::{self, Call, Verdict};
use crate::namespace::TestNamespace;
use crate::records::Records;
use crate::scan;
use crate::wait;

/// Name of the agent container.
pub const AGENT: &str = "agent";

/// How long records and audit events of a call that has ended may be on their way; generous, since only a failure takes that long.
const SETTLE: Duration = Duration::from_secs(60);

/// A pod to be made. Its containers sleep until they are told to end.
#[derive(Clone, Debug)]
pub struct AgentPod {
    pod: Value,
    image: String,
}

impl AgentPod {
    /// A pod with the one container [`AGENT`] of this image.
    #[must_use]
    pub fn new(name: &str, image: &str) -> Self {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {}, "annotations": {}},
            "spec": {
                "containers": [],
                "initContainers": [],
                // The containers do not listen to SIGTERM; nothing is lost with them.
                "terminationGracePeriodSeconds": 1,
            },
        });
        let image = image.to_owned();
        Self { pod, image }.container(AGENT, &["sleep", "infinity"])
    }

    /// Adds a label.
    #[must_use]
    pub fn label(self, key: &str, value: &str) -> Self {
        self.with("/metadata/labels", |labels| {
            insert(labels, key, value.into())
        })
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(self, key: &str, value: &str) -> Self {
        self.with("/metadata/annotations", |annotations| {
            insert(annotations, key, value.into());
        })
    }

    /// Adds a container.
    #[must_use]
    pub fn container(self, name: &str, command: &[&str]) -> Self {
        let container = json!({"name": name, "image": self.image, "command": command});
        self.with("/spec/containers", |containers| push(containers, container))
    }

    /// Adds an init container.
    #[must_use]
    pub fn init_container(self, name: &str, command: &[&str]) -> Self {
        let container = json!({"name": name, "image": self.image, "command": command});
        self.with("/spec/initContainers", |containers| {
            push(containers, container)
        })
    }

    /// Sets a field of the pod's spec.
    #[must_use]
    pub fn spec(self, field: &str, value: Value) -> Self {
        self.with("/spec", |spec| insert(spec, field, value))
    }

    /// Sets a field of the container [`AGENT`].
    #[must_use]
    pub fn container_field(self, field: &str, value: Value) -> Self {
        self.with("/spec/containers/0", |container| {
            insert(container, field, value)
        })
    }

    /// Changes whatever lies at a JSON pointer; nothing if there is nothing.
    #[must_use]
    pub fn with(mut self, pointer: &str, change: impl FnOnce(&mut Value)) -> Self {
        if let Some(value) = self.pod.pointer_mut(pointer) {
            change(value);
        }
        self
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Value {
        &self.pod
    }

    /// Makes the pod; does not wait for it.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create(&self, namespace: &TestNamespace) -> anyhow::Result<Agent> {
        let pod: Pod = serde_json::from_value(self.pod.clone())?;
        let made = namespace.create_object(&pod).await?;
        Ok(Agent {
            namespace: namespace.clone(),
            name: made.name_any(),
        })
    }

    /// Makes the pod and waits until it is ready.
    ///
    /// # Errors
    /// The API server refuses it, or it does not become ready.
    pub async fn start(&self, namespace: &TestNamespace) -> anyhow::Result<Agent> {
        let agent = self.create(namespace).await?;
        wait::ready(namespace.pods(), &agent.name).await?;
        Ok(agent)
    }
}

fn insert(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

fn push(list: &mut Value, item: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

/// An agent pod that exists.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Where.
    pub namespace: TestNamespace,
    /// Its name.
    pub name: String,
}

impl Agent {
    /// Runs a command in the container [`AGENT`].
    ///
    /// # Errors
    /// The command could not be run at all.
    pub async fn exec(&self, command: &[&str]) -> anyhow::Result<Output> {
        self.exec_in(AGENT, command).await
    }

    /// Runs a command in another container.
    ///
    /// # Errors
    /// The command could not be run at all.
    pub async fn exec_in(&self, container: &str, command: &[&str]) -> anyhow::Result<Output> {
        let target = exec::Target {
            client: &self.namespace.cluster.client,
            namespace: &self.namespace.name,
            pod: &self.name,
            container,
        };
        let run = exec::run(target, command);
        tokio::time::timeout(Duration::from_secs(120), run)
            .await
            .with_context(|| format!("waited 120 s in vain for the end of {command:?}"))?
    }

    /// Runs `kubectl` with these arguments, split at blanks.
    ///
    /// # Errors
    /// The command could not be run at all.
    pub async fn kubectl(&self, arguments: &str) -> anyhow::Result<Output> {
        let command: Vec<&str> = ["kubectl"]
            .into_iter()
            .chain(arguments.split_whitespace())
            .collect();
        self.exec(&command).await
    }

    /// Runs a shell script.
    ///
    /// # Errors
    /// The command could not be run at all.
    pub async fn sh(&self, script: &str) -> anyhow::Result<Output> {
        self.exec(&["sh", "-c", script]).await
    }

    /// The pod as it is now.
    ///
    /// # Errors
    /// It is gone.
    pub async fn pod(&self) -> anyhow::Result<Pod> {
        Ok(self.namespace.pods().get(&self.name).await?)
    }

    /// What its sidecar has written so far.
    ///
    /// # Errors
    /// The logs cannot be read, or hold what they must not.
    pub async fn records(&self) -> anyhow::Result<Records> {
        Records::of_pod(&self.namespace.pods(), &self.name).await
    }

    /// Its records beside the audit events, once both have arrived: every call is closed and every forwarded one joined.
    /// `log` must have been opened before the pod was made.
    ///
    /// # Errors
    /// Something is missing after a minute; the message shows those calls.
    pub async fn joined(&self, log: Option<&mut AuditLog>) -> anyhow::Result<Joined> {
        let start = Instant::now();
        let mut log = log;
        loop {
            let records = self.records().await?;
            let events = match &mut log {
                Some(log) => Some(log.events()?.to_vec()),
                None => None,
            };
            let joined = Joined { records, events };
            let missing = joined.missing();
            if missing.is_empty() {
                joined.records.check_chain()?;
                return Ok(joined);
            }
            ensure!(
                start.elapsed() < SETTLE,
                "waited {} s in vain for these calls to be closed and joined:\n{}",
                SETTLE.as_secs(),
                missing.join("\n")
            );
            // Neither a container's log nor a file tells when it is complete.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Looks for credentials in its agent containers.
    ///
    /// # Errors
    /// The pod is gone, or a TokenReview failed.
    pub async fn scan(&self) -> anyhow::Result<scan::Report> {
        scan::pod(&self.namespace.cluster, &self.namespace.name, &self.name).await
    }
}

/// The records of a pod and the API server's events.
#[derive(Clone, Debug)]
pub struct Joined {
    /// What the sidecar wrote.
    pub records: Records,
    /// What the API server wrote; `None` on a cluster whose audit log cannot be read.
    pub events: Option<Vec<AuditEvent>>,
}

impl Joined {
    /// Every call of the records, from both sides.
    #[must_use]
    pub fn calls(&self) -> Vec<Call<'_>> {
        join::join(
            &self.records.lines,
            self.events.as_deref().unwrap_or_default(),
        )
    }

    /// The calls that `fits`, of which there must be at least one.
    ///
    /// # Errors
    /// There is none; the message shows all.
    pub fn find(
        &self,
        what: &str,
        fits: impl Fn(&Call<'_>) -> bool,
    ) -> anyhow::Result<Vec<Call<'_>>> {
        let (found, others): (Vec<_>, Vec<_>) =
            self.calls().into_iter().partition(|call| fits(call));
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        ensure!(
            !found.is_empty(),
            "no call is {what}, but only:\n{}",
            others.join("\n")
        );
        Ok(found)
    }

    fn missing(&self) -> Vec<String> {
        let calls = self.calls();
        let missing = calls.iter().filter(|call| match call.verdict {
            Verdict::Open | Verdict::BrokenRecord => true,
            verdict => self.events.is_some() && verdict.is_failure(),
        });
        missing.map(ToString::to_string).collect()
    }
}
