//! The configuration of a sidecar in a pod: who the pod is, whom it mints for, where the API server is.

use std::collections::BTreeMap;

use http::uri::{Authority, Uri};
use tollgate_shared::contract::{
    AGENT_PATH, BOOTSTRAP_PATH, Binding, LocalAuth, STATE_PATH, Settings,
};
use tollgate_shared::knobs::Knobs;

use super::{Bound, Config, Place, Pod, RecordTarget, Target, path};

impl Config {
    pub(super) fn pod(knobs: &mut Knobs, environment: &BTreeMap<String, String>) -> Self {
        let settings = Settings::from_knobs(knobs);
        let pod = pod(knobs, &settings);
        check_pod(&pod, &settings, knobs);
        let target = target(&pod, &settings);
        let place = Place::Pod {
            pod,
            api_server: api_server(knobs, environment),
            bootstrap_dir: path(knobs, "bootstrap-dir", BOOTSTRAP_PATH),
        };
        let folders = [("agent-dir", AGENT_PATH), ("state-dir", STATE_PATH)];
        let folders = folders.map(|(knob, default)| path(knobs, knob, default));
        Self::with(
            knobs,
            settings,
            place,
            target,
            folders,
            RecordTarget::Stdout,
        )
    }
}

/// Rules of a pod's settings that need more than one knob.
fn check_pod(pod: &Pod, settings: &Settings, knobs: &mut Knobs) {
    let Settings {
        binding,
        service_account,
        local_auth,
        containers,
        ..
    } = settings;
    if *local_auth == LocalAuth::Token && containers.is_empty() {
        knobs.fault(
            "containers",
            "is missing: it names the containers that get a local token",
        );
    }
    for name in containers {
        if !is_dns_label(name) {
            knobs.fault("containers", &format!("{name:?} is no name of a container"));
        }
    }
    let other = service_account
        .as_ref()
        .is_some_and(|name| *name != pod.service_account);
    if other && *binding == Binding::Pod {
        // `token.go`: "cannot bind token for serviceaccount to pod running with different serviceaccount name".
        knobs.fault("binding", "must be node where service-account is not the pod's own: the API server refuses a pod binding");
    }
}

/// RFC 1123 label: a container's name is one, and only so may it become a folder.
fn is_dns_label(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 63
        && edge(name.chars().next())
        && edge(name.chars().next_back())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn pod(knobs: &mut Knobs, settings: &Settings) -> Pod {
    let pod = Pod {
        namespace: knobs.required("namespace"),
        name: knobs.required("pod-name"),
        uid: knobs.required("pod-uid"),
        service_account: knobs.required("pod-service-account"),
        node: knobs.text("node-name"),
    };
    if settings.binding == Binding::Node && pod.node.is_none() {
        knobs.fault(
            "node-name",
            "is missing: tokens are to be bound to the node",
        );
    }
    pod
}

fn target(pod: &Pod, settings: &Settings) -> Target {
    let bound = match settings.binding {
        Binding::Pod => Bound::Pod {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
        },
        // A fault where it is missing.
        Binding::Node => Bound::Node(pod.node.clone().unwrap_or_default()),
    };
    let account = settings.service_account.as_ref();
    Target {
        namespace: pod.namespace.clone(),
        account: account.unwrap_or(&pod.service_account).clone(),
        bound,
    }
}

fn api_server(knobs: &mut Knobs, environment: &BTreeMap<String, String>) -> Authority {
    let none = || Authority::from_static("invalid:443");
    if let Some(url) = knobs.optional::<Uri>("api-server") {
        let plain = url.path() == "/" && url.query().is_none();
        return match url.authority() {
            Some(authority) if url.scheme_str() == Some("https") && plain => authority.clone(),
            _ => {
                knobs.fault("api-server", "is not of the form https://HOST:PORT");
                none()
            }
        };
    }
    let kubernetes = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let (Some(host), Some(port)) = (
        kubernetes("KUBERNETES_SERVICE_HOST"),
        kubernetes("KUBERNETES_SERVICE_PORT"),
    ) else {
        knobs.fault(
            "api-server",
            "is missing, and KUBERNETES_SERVICE_HOST and _PORT are not set",
        );
        return none();
    };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.clone()
    };
    format!("{host}:{port}").parse().unwrap_or_else(|_| {
        knobs.fault(
            "api-server",
            "is missing, and KUBERNETES_SERVICE_HOST and _PORT make no address",
        );
        none()
    })
}
