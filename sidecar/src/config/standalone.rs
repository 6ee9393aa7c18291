//! Standalone mode's settings: a kubeconfig in place of a pod, and a file in which settings can stand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tollgate_shared::contract::{LocalAuth, LogLevel, Settings};
use tollgate_shared::knobs::Knobs;

use crate::yaml;

use super::{Bound, Config, Place, RecordTarget, Target};

/// Settings that only a pod has.
const OF_PODS: [&str; 8] = [
    "namespace",
    "pod-name",
    "pod-uid",
    "pod-service-account",
    "node-name",
    "bootstrap-dir",
    "containers",
    "binding",
];
/// Settings that make no sense without a kubeconfig.
const OF_STANDALONE: [&str; 3] = ["context", "bound-to", "config"];

/// The agent's name in records.
const AGENT: &str = "agent";

/// How a sidecar without a pod logs in, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standalone {
    /// The kubeconfig.
    pub kubeconfig: PathBuf,
    /// Another context than its current one.
    pub context: Option<String>,
    /// Another URL than its cluster's.
    pub server: Option<String>,
    /// `USER@HOST`, for the records.
    pub whose: String,
    /// Where temporary folders are made.
    pub temporary: PathBuf,
}

/// Whether these settings are of standalone mode, once those of a file are among them. What belongs to the other mode is refused.
pub(super) fn is_meant(knobs: &mut Knobs, environment: &BTreeMap<String, String>) -> bool {
    if let Some(path) = knobs.text("config") {
        match read(Path::new(&path)) {
            Ok(values) => knobs.add_file(&path, values),
            Err(message) => knobs.fault("config", &format!("{path:?} {message}")),
        }
    }
    let standalone = knobs.is_given("kubeconfig") || is_nowhere(knobs, environment);
    if standalone {
        let message = "is of a pod, and does not go with --kubeconfig";
        knobs.refuse(&OF_PODS, message);
    } else {
        let message = "is of standalone mode: it needs --kubeconfig";
        knobs.refuse(&OF_STANDALONE, message);
    }
    standalone
}

/// Whether nothing speaks of a pod, so that whoever started this is at a workstation and forgot the kubeconfig.
fn is_nowhere(knobs: &Knobs, environment: &BTreeMap<String, String>) -> bool {
    let pod = OF_PODS.iter().chain([&"api-server"]);
    !environment.contains_key("KUBERNETES_SERVICE_HOST")
        && !pod.into_iter().any(|knob| knobs.is_given(knob))
}

impl Config {
    pub(super) fn standalone(knobs: &mut Knobs, environment: &BTreeMap<String, String>) -> Self {
        let mut settings = Settings::from_knobs(knobs);
        if !knobs.is_given("port") {
            settings.port = 0;
        }
        if !knobs.is_given("admin-port") {
            settings.admin_port = 0;
        }
        if !knobs.is_given("log-level") {
            settings.log_level = LogLevel::Warn;
        }
        if settings.local_auth == LocalAuth::None {
            let message = "must be token: every user of this machine reaches its loopback address";
            knobs.fault("local-auth", message);
        }
        settings.containers = vec![AGENT.to_owned()];
        let target = target(knobs, settings.service_account.take());
        let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let temporary = variable("XDG_RUNTIME_DIR").or_else(|| variable("TMPDIR"));
        let user = variable("USER").or_else(|| variable("LOGNAME"));
        let place = Place::Standalone(Standalone {
            kubeconfig: kubeconfig(knobs),
            context: knobs.text("context"),
            server: knobs.text("api-server"),
            whose: whose(user),
            temporary: temporary.map_or_else(|| "/tmp".into(), PathBuf::from),
        });
        let folders = ["agent-dir", "state-dir"];
        let folders = folders.map(|knob| knobs.text(knob).unwrap_or_default().into());
        Self::with(
            knobs,
            settings,
            place,
            target,
            folders,
            RecordTarget::Stderr,
        )
    }

    /// Whether a folder is to be a temporary one.
    #[must_use]
    pub fn lacks_folders(&self) -> bool {
        [&self.agent_dir, &self.state_dir]
            .iter()
            .any(|folder| folder.as_os_str().is_empty())
    }

    /// Puts the folders that were not given below this one.
    #[must_use]
    pub fn with_folders_in(mut self, folder: &Path) -> Self {
        for (own, name) in [(&mut self.agent_dir, AGENT), (&mut self.state_dir, "state")] {
            if own.as_os_str().is_empty() {
                *own = folder.join(name);
            }
        }
        self
    }
}

fn kubeconfig(knobs: &mut Knobs) -> PathBuf {
    if !knobs.is_given("kubeconfig") {
        let message = "is missing, and this is no pod: --kubeconfig FILE names the kubeconfig whose user's calls are to be made";
        knobs.fault("kubeconfig", message);
    }
    let path = knobs.text("kubeconfig").unwrap_or_default();
    if path.contains(':') && !Path::new(&path).exists() {
        let message = "names several files, as KUBECONFIG may; name one, or merge them first: kubectl config view --raw \
                       --flatten >FILE";
        knobs.fault("kubeconfig", message);
    }
    path.into()
}

fn target(knobs: &mut Knobs, account: Option<String>) -> Target {
    let account = account.unwrap_or_default();
    let (namespace, account) = account.split_once('/').unwrap_or_default();
    if namespace.is_empty() || account.is_empty() || account.contains('/') {
        let message = "must be NAMESPACE/NAME: whom to mint for";
        knobs.fault("service-account", message);
    }
    let bound = match knobs
        .text("bound-to")
        .as_deref()
        .map(|to| to.split_once('/'))
    {
        None => Bound::Nothing,
        Some(Some(("node", name))) if !name.is_empty() => Bound::Node(name.to_owned()),
        Some(Some(("secret", name))) if !name.is_empty() => Bound::Secret(name.to_owned()),
        Some(Some(("pod", _))) => {
            let message = "names a pod, whose tokens are the business of its own sidecar: bind to node/NAME or secret/NAME";
            knobs.fault("bound-to", message);
            Bound::Nothing
        }
        Some(_) => {
            knobs.fault("bound-to", "is neither node/NAME nor secret/NAME");
            Bound::Nothing
        }
    };
    Target {
        namespace: namespace.to_owned(),
        account: account.to_owned(),
        bound,
    }
}

/// No name of a pod has an `@`.
fn whose(user: Option<&String>) -> String {
    let host = rustix::system::uname();
    let user = user.cloned();
    let user = user.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
    format!("{user}@{}", host.nodename().to_string_lossy())
}

/// Settings from a file: texts, numbers, truth values, and lists of them.
fn read(path: &Path) -> Result<Vec<(String, String)>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let value = yaml::parse(&text)?;
    let Value::Object(settings) = value else {
        return Err("is no mapping of settings".to_owned());
    };
    let one = |(name, value): (String, Value)| match setting(&value) {
        Some(text) if name != "config" => Ok((name, text)),
        Some(_) => Err("names another file: there is only one".to_owned()),
        None => Err(format!(
            "gives {name} something else than a text, a number, a truth value or a list of them"
        )),
    };
    settings.into_iter().map(one).collect()
}

fn setting(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Array(list) => {
            let words: Option<Vec<String>> = list.iter().map(setting).collect();
            words.map(|words| words.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
