//! Pods that run without the sidecar, or with another one than a new pod would get, and Secrets that hold tokens. A pod is judged by
//! its content, with the function that judges new pods. Pods of one workload with one trouble are one line.

mod group;

use serde_json::{Value, json};
use tollgate_shared::contract::{CONTAINER, Injection, POD_LABEL};

use self::group::Groups;
use super::finding::{Finding, Level};
use super::snapshot::{Kind, Snapshot, name};
use crate::inject::{Context, InjectConfig};
use crate::reason::{Denial, Reason};
use crate::validate::{Operation, Verdict, validate};

/// Code of a sidecar that differs by its image alone.
const OUTDATED: &str = "sidecar-outdated";

const ACCOUNT: &str = "/metadata/annotations/kubernetes.io~1service-account.name";

/// Judges every pod that runs.
pub(crate) fn check(snapshot: &Snapshot, injection: Injection, findings: &mut Vec<Finding>) {
    let unknown = InjectConfig::with_image(String::new());
    let (config, is_known) = match &snapshot.config {
        Some(Ok(config)) => (config, true),
        _ => (&unknown, false),
    };
    let mut groups = Groups::default();
    for pod in snapshot.list(Kind::Pods).iter().filter(|pod| runs(pod)) {
        let judged = Judged {
            pod,
            context: Context {
                injection: Some(injection),
                namespace: snapshot.name(),
                from_node: is_mirror(pod),
                config,
                vouching: None,
            },
        };
        // Without the configuration only what does not depend on it can be said.
        let drifts = [Reason::SidecarDrift.code(), OUTDATED];
        let is_drift = |trouble: &Trouble| drifts.contains(&trouble.code);
        match judged.trouble() {
            Some(trouble) if is_known || !is_drift(&trouble) => groups.add(pod, trouble),
            _ => {}
        }
    }
    findings.extend(groups.findings());
}

/// What is wrong with a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Trouble {
    level: Level,
    code: &'static str,
    text: String,
}

impl Trouble {
    fn warn(code: &'static str, text: String) -> Self {
        Self {
            level: Level::Warn,
            code,
            text,
        }
    }
}

/// Whether a pod has not ended.
pub(crate) fn runs(pod: &Value) -> bool {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str);
    !matches!(phase, Some("Succeeded" | "Failed"))
}

fn is_mirror(pod: &Value) -> bool {
    let owners = pod
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    let mut owners = owners.into_iter().flatten();
    owners.any(|owner| owner.get("kind").and_then(Value::as_str) == Some("Node"))
}

struct Judged<'a> {
    pod: &'a Value,
    context: Context<'a>,
}

impl Judged<'_> {
    fn verdict(&self, pod: &Value, context: &Context<'_>) -> Verdict {
        validate(Operation::Create, pod, None, context)
    }

    fn trouble(&self) -> Option<Trouble> {
        let verdict = self.verdict(self.pod, &self.context);
        if let Some(image) = self.outdated(&verdict) {
            let now = &self.context.config.image;
            let text = format!(
                "its sidecar's image is {image}, a new pod gets {now}; restart the workload, and if no release had that image, find out who made the pod"
            );
            return Some(Trouble::warn(OUTDATED, text));
        }
        match verdict {
            Verdict::Deny(denial) if denial.reason == Reason::ReservedName => {
                Some(self.unasked().unwrap_or_else(|| denied(&denial)))
            }
            Verdict::Deny(denial) => Some(denied(&denial)),
            Verdict::Allow(Reason::NotSelected | Reason::OptedOut) => self.token().map(|why| {
                let text = format!("runs without a sidecar and is not token-free ({why}); label it {POD_LABEL}=\"true\" and restart it, or set automountServiceAccountToken: false");
                Trouble::warn("not-injected", text)
            }),
            Verdict::Allow(_) => None,
        }
    }

    /// The sidecar's image, if it is not the one in use and nothing else is amiss.
    fn outdated(&self, verdict: &Verdict) -> Option<&str> {
        if !matches!(verdict.reason(), Reason::Valid | Reason::SidecarDrift) {
            return None;
        }
        let image = self.sidecar()?.get("image")?.as_str()?;
        let config = InjectConfig {
            image: image.to_owned(),
            ..self.context.config.clone()
        };
        let context = Context {
            config: &config,
            ..self.context
        };
        let is_other = image != self.context.config.image;
        let is_all = self.verdict(self.pod, &context) == Verdict::Allow(Reason::Valid);
        (is_other && is_all).then_some(image)
    }

    fn sidecar(&self) -> Option<&Value> {
        let init = self.pod.pointer("/spec/initContainers")?.as_array()?;
        let is_ours =
            |container: &&Value| container.get("name").and_then(Value::as_str) == Some(CONTAINER);
        init.iter().find(is_ours)
    }

    /// What to say of a pod that was injected and no longer would be, as namespace and pod are labelled now: what would be said of it if
    /// it asked. `None` if what has our names in it is not ours.
    fn unasked(&self) -> Option<Trouble> {
        let pod = self.labelled("true")?;
        let injection = match self.context.injection {
            Some(Injection::OptIn) => Some(Injection::Enabled),
            other => other,
        };
        let asking = Judged {
            pod: &pod,
            context: Context {
                injection,
                ..self.context
            },
        };
        if asking.verdict(&pod, &asking.context).reason() == Reason::ReservedName {
            return None;
        }
        match asking.trouble() {
            Some(trouble) if trouble.code != OUTDATED => Some(trouble),
            _ => {
                let text = format!(
                    "has the sidecar, and a new pod would not, as namespace and pod are labelled now; label it {POD_LABEL}=\"true\" to keep it, or restart the workload to be rid of it"
                );
                Some(Trouble::warn(Reason::NotSelected.code(), text))
            }
        }
    }

    /// The pod with another label.
    fn labelled(&self, label: &str) -> Option<Value> {
        let mut pod = self.pod.clone();
        let metadata = pod.pointer_mut("/metadata")?.as_object_mut()?;
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        let labels = labels.as_object_mut()?;
        labels.insert(POD_LABEL.to_owned(), label.into());
        Some(pod)
    }

    /// What keeps the pod from being token-free: what an enforced namespace would say if it opted out there.
    fn token(&self) -> Option<String> {
        let pod = self.labelled("false")?;
        let context = Context {
            injection: Some(Injection::Enforced),
            ..self.context
        };
        match self.verdict(&pod, &context) {
            Verdict::Deny(denial) if denial.reason == Reason::NotTokenFree => {
                let account = self.pod.pointer("/spec/serviceAccountName");
                let account = account.and_then(Value::as_str).unwrap_or("default");
                Some(format!("service account {account}"))
            }
            _ => None,
        }
    }
}

fn denied(denial: &Denial) -> Trouble {
    let what = match denial.reason {
        Reason::SidecarMissing => {
            "has no sidecar: it is older than the label, or was made while nothing looked"
                .to_owned()
        }
        // What helps a new pod is not what helps one that runs.
        Reason::SidecarDrift | Reason::TokenLeft => {
            let what = denial.message.split(';').next().unwrap_or_default();
            format!("is not what a new pod would be ({what})")
        }
        _ => format!("would be denied today: {}", denial.message),
    };
    Trouble {
        level: Level::Error,
        code: denial.reason.code(),
        text: format!("{what}; restart the workload"),
    }
}

/// Names Secrets that hold tokens.
pub(crate) fn secrets(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    for secret in snapshot.list(Kind::TokenSecrets) {
        let account = secret
            .pointer(ACCOUNT)
            .and_then(Value::as_str)
            .unwrap_or("unknown");
        let text = format!(
            "holds a token of service account {account} that does not expire, for whoever may read or mount it; delete it"
        );
        let object = format!("secret/{}", name(secret));
        findings.push(Finding::error("token-secret", object, text));
    }
}
