//! Pods that run without the sidecar, or with another one than a new pod would get, and Secrets that hold tokens. A pod is judged by
//! its content, with the function that judges new pods.

use serde_json::{Value, json};
use tollgate_shared::contract::{CONTAINER, Injection, POD_LABEL};

use super::finding::Finding;
use super::snapshot::{Kind, Snapshot, name};
use crate::inject::{Context, InjectConfig};
use crate::reason::{Denial, Reason};
use crate::validate::{Operation, Verdict, validate};

const ACCOUNT: &str = "/metadata/annotations/kubernetes.io~1service-account.name";

/// Judges every pod that runs.
pub(crate) fn check(snapshot: &Snapshot, injection: Injection, findings: &mut Vec<Finding>) {
    let unknown = InjectConfig::with_image(String::new());
    let (config, is_known) = match &snapshot.config {
        Some(Ok(config)) => (config, true),
        _ => (&unknown, false),
    };
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
        let finding = judged.finding();
        // Without the configuration only what does not depend on it can be said.
        let is_drift =
            |finding: &Finding| matches!(finding.code, "sidecar-drift" | "sidecar-outdated");
        findings.extend(finding.filter(|finding| is_known || !is_drift(finding)));
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

    fn finding(&self) -> Option<Finding> {
        let object = format!("pod/{}", name(self.pod));
        match self.verdict(self.pod, &self.context) {
            Verdict::Deny(denial) => Some(match self.other_image() {
                Some(image) => {
                    let text = format!("its sidecar's image is {image}, a new pod gets {}; restart the workload, and if no release had that image, find out who made the pod", self.context.config.image);
                    Finding::error("sidecar-outdated", object, text)
                }
                None => denied(object, &denial),
            }),
            Verdict::Allow(Reason::NotSelected | Reason::OptedOut) => self.token().map(|why| {
                let text = format!("runs without a sidecar and is not token-free ({why}); label it {POD_LABEL}=\"true\" and restart it, or set automountServiceAccountToken: false");
                Finding::warn("not-injected", object, text)
            }),
            Verdict::Allow(_) => None,
        }
    }

    /// The sidecar's image, if that is all in which the pod differs from a new one.
    fn other_image(&self) -> Option<String> {
        let containers = self.pod.pointer("/spec/initContainers")?.as_array()?;
        let is_ours =
            |container: &&Value| container.get("name").and_then(Value::as_str) == Some(CONTAINER);
        let image = containers.iter().find(is_ours)?.get("image")?.as_str()?;
        let config = InjectConfig {
            image: image.to_owned(),
            ..self.context.config.clone()
        };
        let context = Context {
            config: &config,
            ..self.context
        };
        let verdict = self.verdict(self.pod, &context);
        matches!(verdict, Verdict::Allow(Reason::Valid)).then_some(config.image)
    }

    /// What keeps the pod from being token-free: what an enforced namespace would say if it opted out there.
    fn token(&self) -> Option<String> {
        let mut pod = self.pod.clone();
        let labels = pod
            .pointer_mut("/metadata")
            .and_then(Value::as_object_mut)?;
        let labels = labels.entry("labels").or_insert_with(|| json!({}));
        labels
            .as_object_mut()?
            .insert(POD_LABEL.to_owned(), "false".into());
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

fn denied(object: String, denial: &Denial) -> Finding {
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
    let text = format!("{what}; restart the workload");
    Finding::error(denial.reason.code(), object, text)
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
