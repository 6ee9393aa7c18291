//! The pod's annotations, parsed into types. Each takes one bounded scalar; a bad or unknown one is a denial, so that a misspelt
//! setting never passes for a default.

use std::fmt;
use std::str::FromStr;

use tollgate_shared::contract::{Binding, GROUP, INJECTED_ANNOTATION, Settings, annotation};

use super::config::InjectConfig;
use super::pod::{Pod, text};
use super::quantity::Quantity;
use crate::json::{Json, Object};
use crate::reason::{Denial, Reason};

/// What one pod asks for.
#[derive(Debug)]
pub(crate) struct Wishes {
    /// What the sidecar reads.
    pub(crate) settings: Settings,
    /// CPU request.
    pub(crate) cpu: Option<Quantity>,
    /// Memory request and limit.
    pub(crate) memory: Option<Quantity>,
}

/// Ports below need a capability that the sidecar does not have.
pub(crate) const LOWEST_PORT: u16 = 1024;
/// Lowest and highest CPU request that a pod may ask for.
const CPU: [&str; 2] = ["1m", "4"];
/// Lowest and highest memory that a pod may ask for.
const MEMORY: [&str; 2] = ["32Mi", "4Gi"];

/// Reads the annotations of `pod` over the defaults of `config`.
pub(crate) fn read(pod: &Pod<'_>, config: &InjectConfig) -> Result<Wishes, Denial> {
    refuse_unknown(pod)?;
    let mut settings = config.defaults.settings();
    override_with(pod, annotation::TOKEN_TTL, &mut settings.token_ttl)?;
    override_with(pod, annotation::MINT, &mut settings.mint)?;
    override_with(pod, annotation::LOCAL_AUTH, &mut settings.local_auth)?;
    override_with(pod, annotation::LOG_LEVEL, &mut settings.log_level)?;
    override_with(pod, annotation::PORT, &mut settings.port)?;
    if settings.port < LOWEST_PORT || settings.port == settings.admin_port {
        let wanted = format!(
            "needs a port from {LOWEST_PORT} to 65535 other than {}",
            settings.admin_port
        );
        return Err(bad(annotation::PORT, &wanted));
    }
    if let Some(name) = service_account(pod)? {
        settings.service_account = Some(name.to_owned());
        // Nobody may mint for another service account bound to the pod: such a token could mint again.
        settings.binding = Binding::Node;
    }
    Ok(Wishes {
        settings,
        cpu: quantity(pod, annotation::CPU, CPU)?,
        memory: quantity(pod, annotation::MEMORY, MEMORY)?,
    })
}

fn refuse_unknown(pod: &Pod<'_>) -> Result<(), Denial> {
    let annotations = pod.annotations()?.and_then(Json::as_object);
    for (key, _) in annotations.into_iter().flat_map(Object::iter) {
        let ours = key
            .split_once('/')
            .is_some_and(|(prefix, _)| prefix == GROUP);
        let known = key == INJECTED_ANNOTATION || annotation::ALL.contains(&key);
        if ours && !known {
            let wanted = format!("is unknown; known are {}", annotation::ALL.join(", "));
            return Err(bad(key, &wanted));
        }
    }
    Ok(())
}

fn override_with<T: FromStr<Err: fmt::Display>>(
    pod: &Pod<'_>,
    key: &str,
    setting: &mut T,
) -> Result<(), Denial> {
    if let Some(value) = pod.annotation(key)? {
        *setting = value
            .parse()
            .map_err(|error| bad(key, &format!("{value:?} {error}")))?;
    }
    Ok(())
}

/// The service account to mint for, if it is not the pod's own.
fn service_account<'a>(pod: &Pod<'a>) -> Result<Option<&'a str>, Denial> {
    let key = annotation::SERVICE_ACCOUNT;
    let Some(name) = pod.annotation(key)? else {
        return Ok(None);
    };
    if !is_subdomain(name) {
        return Err(bad(
            key,
            &format!("{name:?} is no name of a service account"),
        ));
    }
    let own = text(pod.spec, "serviceAccountName")?.unwrap_or("default");
    Ok((name != own).then_some(name))
}

fn quantity(pod: &Pod<'_>, key: &str, [low, high]: [&str; 2]) -> Result<Option<Quantity>, Denial> {
    let Some(value) = pod.annotation(key)? else {
        return Ok(None);
    };
    let read = |text: &str| {
        let parsed = text.parse::<Quantity>();
        parsed.map_err(|error| bad(key, &format!("{value:?} {error}")))
    };
    let quantity = read(value)?;
    if quantity < read(low)? || quantity > read(high)? {
        return Err(bad(
            key,
            &format!("{value:?} is not between {low} and {high}"),
        ));
    }
    Ok(Some(quantity))
}

fn bad(key: &str, wanted: &str) -> Denial {
    Denial::new(
        Reason::BadAnnotation,
        format!("annotation {key} {wanted}; correct or remove it"),
    )
}

/// Whether `name` is a DNS subdomain (RFC 1123), as names of service accounts are.
pub(crate) fn is_subdomain(name: &str) -> bool {
    let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |label: &str| {
        label.chars().all(|c| end(c) || c == '-') && label.starts_with(end) && label.ends_with(end)
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tollgate_shared::contract::{LocalAuth, LogLevel, MintMode};

    use super::*;
    use crate::json::Tree;

    fn read_pod(annotations: &serde_json::Value) -> Result<Wishes, Denial> {
        let pod = json!({
            "metadata": {"annotations": annotations},
            "spec": {"serviceAccountName": "own", "containers": [{"name": "a"}]},
        });
        read(
            &Pod::read(Tree::of(&pod)?.root())?,
            &InjectConfig::with_image("i"),
        )
    }

    #[test]
    fn every_annotation_reaches_its_setting() {
        let wishes = read_pod(&json!({
            "tollgate.dev/token-ttl": "15m",
            "tollgate.dev/mint": "ahead",
            "tollgate.dev/service-account": "other",
            "tollgate.dev/port": "7443",
            "tollgate.dev/local-auth": "none",
            "tollgate.dev/log-level": "debug",
            "tollgate.dev/cpu": "50m",
            "tollgate.dev/memory": "64Mi",
            "tollgate.dev/injected": "anything",
            "example.com/other": "x",
        }))
        .unwrap();
        let settings = wishes.settings;
        assert_eq!(settings.token_ttl.seconds(), 900);
        assert_eq!(settings.mint, MintMode::Ahead);
        assert_eq!(settings.service_account.as_deref(), Some("other"));
        assert_eq!(settings.binding, Binding::Node);
        assert_eq!(settings.port, 7443);
        assert_eq!(settings.local_auth, LocalAuth::None);
        assert_eq!(settings.log_level, LogLevel::Debug);
        assert_eq!(wishes.cpu.unwrap().to_string(), "50m");
        assert_eq!(wishes.memory.unwrap().to_string(), "64Mi");
    }

    #[test]
    fn the_pods_own_service_account_keeps_the_pod_binding() {
        let wishes = read_pod(&json!({"tollgate.dev/service-account": "own"})).unwrap();
        assert_eq!(wishes.settings.service_account, None);
        assert_eq!(wishes.settings.binding, Binding::Pod);
    }

    #[test]
    fn bad_values_are_denied_with_the_key() {
        for (key, value) in [
            ("token-ttl", "599s"),
            ("token-ttl", "3601s"),
            ("token-ttl", "600"),
            ("mint", "Ahead"),
            ("service-account", "UPPER"),
            ("service-account", ""),
            ("service-account", "a..b"),
            ("service-account", "a/b"),
            ("port", "80"),
            ("port", "6480"),
            ("port", "65536"),
            ("local-auth", "maybe"),
            ("log-level", "trace"),
            ("cpu", "1e99"),
            ("cpu", "-1"),
            ("cpu", "5"),
            ("memory", "100Mi\n  privileged: true"),
            ("memory", "16Mi"),
            ("memory", "5Gi"),
            ("memroy", "64Mi"),
            ("image", "evil"),
        ] {
            let key = format!("tollgate.dev/{key}");
            let denial = read_pod(&json!({ (key.as_str()): value })).unwrap_err();
            assert_eq!(denial.reason, Reason::BadAnnotation, "{key}={value}");
            assert!(denial.message.contains(&key), "{denial}");
        }
    }
}
