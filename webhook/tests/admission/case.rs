//! One golden case on disk: `tests/fixtures/<row>-<name>/{case.yaml, pod.yaml, patch.json}`. `row` is the row of the list of
//! cases that the design was made from.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_shared::contract::Injection;
use tollgate_webhook::inject::{Context, Decision, InjectConfig, inject};
use tollgate_webhook::validate::{Operation, Verdict};

/// `case.yaml`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Expect {
    /// What the case shows, for the reader.
    pub(crate) about: String,
    /// The namespace's label; `none` where it has none.
    #[serde(default = "enabled")]
    pub(crate) namespace: String,
    /// Name of the namespace, from the request.
    #[serde(default = "team_a")]
    pub(crate) request_namespace: String,
    /// Whether a kubelet asks.
    #[serde(default)]
    pub(crate) from_node: bool,
    /// Overrides of the configuration.
    #[serde(default)]
    pub(crate) config: Value,
    /// The pod is this case's injected pod, instead of `pod.yaml`.
    pub(crate) after: Option<String>,
    /// What another webhook, or a user's update, then does to it (RFC 6902).
    #[serde(default)]
    pub(crate) later: Vec<Value>,
    /// `create` or the subresource of the update.
    #[serde(default = "create")]
    pub(crate) operation: String,
    /// `inject`, `already`, `skip(<code>)` or `deny(<code>)`; absent where the operation is no creation.
    pub(crate) mutate: Option<String>,
    /// `allow(<code>)` or `deny(<code>)`: the judgement of the pod as it stands, as if it were final.
    #[serde(rename = "final")]
    pub(crate) as_final: String,
    /// Parts of the expected warnings, in order.
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
}

fn enabled() -> String {
    "enabled".to_owned()
}

fn team_a() -> String {
    "team-a".to_owned()
}

fn create() -> String {
    "create".to_owned()
}

/// A case with its pod.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) expect: Expect,
    pub(crate) config: InjectConfig,
    /// What is judged.
    pub(crate) pod: Value,
    /// What it was, on an update.
    pub(crate) old: Option<Value>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

impl Case {
    /// Every case, by name.
    pub(crate) fn all() -> Vec<Self> {
        let folders = fs::read_dir(fixtures()).unwrap();
        let mut names: Vec<String> = folders
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.iter().map(|name| Self::read(name)).collect()
    }

    /// One case.
    pub(crate) fn read(name: &str) -> Self {
        let folder = fixtures().join(name);
        let text = fs::read_to_string(folder.join("case.yaml")).unwrap();
        let expect: Expect =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let before = match &expect.after {
            Some(earlier) => Self::read(earlier).injected(),
            None => yaml(&folder.join("pod.yaml")),
        };
        let mut pod = before.clone();
        let later: json_patch::Patch = serde_json::from_value(json!(expect.later)).unwrap();
        json_patch::patch(&mut pod, &later).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            name: name.to_owned(),
            config: config(&expect.config),
            old: (expect.operation != "create").then_some(before),
            folder,
            expect,
            pod,
        }
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context {
            injection: match self.expect.namespace.as_str() {
                "none" => None,
                word => Some(word.parse::<Injection>().unwrap()),
            },
            namespace: &self.expect.request_namespace,
            from_node: self.expect.from_node,
            config: &self.config,
            vouching: None,
        }
    }

    pub(crate) fn operation(&self) -> Operation {
        match self.expect.operation.as_str() {
            "create" => Operation::new("CREATE", ""),
            "update" => Operation::new("UPDATE", ""),
            "delete" => Operation::new("DELETE", ""),
            subresource => Operation::new("UPDATE", subresource),
        }
    }

    /// The pod with its patch applied, and as the API server would then show it.
    fn injected(&self) -> Value {
        let decision = inject(&self.pod, &self.context());
        crate::api_server::with_defaults(apply(&self.pod, &decision))
    }
}

fn yaml(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The configuration of every test, with `overrides`.
pub(crate) fn config(overrides: &Value) -> InjectConfig {
    let mut config = json!({
        "image": "registry.example/tollgate-sidecar@sha256:0123",
        "apiAudiences": ["https://kubernetes.default.svc.cluster.local"],
    });
    // A merge with null would be null.
    if overrides.is_object() {
        json_patch::merge(&mut config, overrides);
    }
    serde_json::from_value(config).unwrap()
}

/// The operations of a decision as JSON.
pub(crate) fn operations(decision: &Decision) -> Value {
    match decision {
        Decision::Patch { operations, .. } => serde_json::to_value(operations).unwrap(),
        Decision::Skip(_) | Decision::Deny(_) => json!([]),
    }
}

/// Applies a decision with a JSON Patch implementation that is not ours.
pub(crate) fn apply(pod: &Value, decision: &Decision) -> Value {
    let patch: json_patch::Patch = serde_json::from_value(operations(decision)).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

/// A decision in the words of `case.yaml`.
pub(crate) fn word_of(decision: &Decision) -> String {
    match decision {
        Decision::Skip(reason) => format!("skip({reason})"),
        Decision::Patch { operations, .. } if operations.is_empty() => "already".to_owned(),
        Decision::Patch { .. } => "inject".to_owned(),
        Decision::Deny(denial) => format!("deny({})", denial.reason),
    }
}

/// A verdict in the words of `case.yaml`.
pub(crate) fn word_of_verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Allow(reason) => format!("allow({reason})"),
        Verdict::Deny(denial) => format!("deny({})", denial.reason),
    }
}
