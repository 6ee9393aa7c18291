//! Pods that mint for themselves, and whose records were not given. Whoever drops all records of a pod leaves at least this.

use std::collections::BTreeMap;

use super::cluster::Logged;
use super::summary::Summary;

/// What the log says of them, by UID.
#[derive(Default)]
pub(super) struct Uncovered(BTreeMap<String, Pod>);

struct Pod {
    namespace: String,
    name: String,
    mints: u64,
}

impl Uncovered {
    /// A token was made for a pod that no record is of, or for whom is no pod.
    pub(super) fn mint(&mut self, event: &Logged<'_>) {
        let Some(uid) = event.pod_uid() else { return };
        if let Some(pod) = self.0.get_mut(uid) {
            pod.mints += 1;
            return;
        }
        let pod = Pod {
            namespace: event.request().namespace.unwrap_or_default().to_owned(),
            name: event.pod_name().unwrap_or_default().to_owned(),
            mints: 1,
        };
        self.0.insert(uid.to_owned(), pod);
    }

    pub(super) fn note(&self, summary: &mut Summary) {
        for (uid, pod) in &self.0 {
            let Pod {
                namespace,
                name,
                mints,
            } = pod;
            let tokens = if *mints == 1 { "token" } else { "tokens" };
            summary.note(|| {
                format!(
                    "not covered: pod {namespace}/{name} ({uid}) minted {mints} {tokens}, and no record of it was given"
                )
            });
        }
    }
}
