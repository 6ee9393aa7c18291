//! Pods with the same trouble that are of one workload, told as one.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Trouble;
use crate::check::finding::{Finding, named};
use crate::check::snapshot::name;

/// Digits by which the Jobs of a CronJob differ: the minute that they are of.
const MINUTE: usize = 8;

/// Names of pods, by their trouble and their workload.
#[derive(Debug, Default)]
pub(super) struct Groups<'a>(BTreeMap<(Trouble, Workload<'a>), Vec<&'a str>>);

/// What pods are of: kind and name.
type Workload<'a> = (&'a str, &'a str);

impl<'a> Groups<'a> {
    pub(super) fn add(&mut self, pod: &'a Value, trouble: Trouble) {
        let key = (trouble, workload(pod));
        self.0.entry(key).or_default().push(name(pod));
    }

    /// One for each group: of its first pod, with the names of the others.
    pub(super) fn findings(self) -> impl Iterator<Item = Finding> {
        self.0.into_iter().filter_map(|((trouble, _), mut pods)| {
            pods.sort_unstable();
            let (first, others) = pods.split_first()?;
            let text = match others {
                [] => trouble.text,
                others => format!("{}; so {}", trouble.text, named(others)),
            };
            let object = format!("pod/{first}");
            Some(Finding::new(trouble.level, trouble.code, object, text))
        })
    }
}

/// The pod's controller, or what made that one as far as names tell: the Deployment of a ReplicaSet, the CronJob of a Job.
fn workload(pod: &Value) -> Workload<'_> {
    let owners = pod.pointer("/metadata/ownerReferences");
    let mut owners = owners.and_then(Value::as_array).into_iter().flatten();
    let owner = owners.find(|owner| owner.get("controller") == Some(&Value::Bool(true)));
    let text = |key: &str| owner?.get(key)?.as_str();
    let (Some(kind), Some(owner)) = (text("kind"), text("name")) else {
        return ("Pod", name(pod));
    };
    let hash = pod.pointer("/metadata/labels/pod-template-hash");
    let hash = hash.and_then(Value::as_str).unwrap_or_default();
    let is_minute = |end: &str| end.len() == MINUTE && end.bytes().all(|b| b.is_ascii_digit());
    match owner.rsplit_once('-') {
        Some((deployment, end)) if kind == "ReplicaSet" && end == hash => (kind, deployment),
        Some((cron_job, end)) if kind == "Job" && is_minute(end) => (kind, cron_job),
        _ => (kind, owner),
    }
}
