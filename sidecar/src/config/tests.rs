//! A pod's settings from flags and variables.

use super::*;
use tollgate_shared::contract::{DOWNWARD, variable};

fn environment(extra: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = DOWNWARD
        .iter()
        .map(|(knob, _)| (variable(knob), format!("some-{knob}")))
        .collect();
    all.push(("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned()));
    all.push(("KUBERNETES_SERVICE_PORT".to_owned(), "443".to_owned()));
    all.push(("TOLLGATE_CONTAINERS".to_owned(), "agent".to_owned()));
    all.extend(
        extra
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    all
}

fn of_pod(config: &Config) -> (&Pod, &Authority) {
    match &config.place {
        Place::Pod {
            pod, api_server, ..
        } => (pod, api_server),
        Place::Standalone(_) => panic!("not in a pod"),
    }
}

fn faults(extra: &[(&str, &str)]) -> String {
    Config::read([], environment(extra))
        .unwrap_err()
        .to_string()
}

#[test]
fn what_a_pod_gives_is_enough() {
    let config = Config::read([], environment(&[])).unwrap();
    let (pod, api_server) = of_pod(&config);
    assert_eq!(api_server, "10.96.0.1:443");
    assert_eq!(pod.name, "some-pod-name");
    assert_eq!(config.settings.token_ttl.seconds(), 600);
    assert_eq!(config.record_target, RecordTarget::Stdout);
}

#[test]
fn an_ipv6_service_is_bracketed() {
    let config = Config::read([], environment(&[("KUBERNETES_SERVICE_HOST", "fd00::1")])).unwrap();
    assert_eq!(of_pod(&config).1, "[fd00::1]:443");
}

#[test]
fn every_fault_names_its_knob() {
    for (name, value, part) in [
        ("TOLLGATE_TOKEN_TTL", "599s", "less than 600s"),
        ("TOLLGATE_TOKEN_TTL", "300", "unit"),
        ("TOLLGATE_PORT", "0x", "invalid digit"),
        ("TOLLGATE_ADMIN_PORT", "6443", "port of the API proxy"),
        ("TOLLGATE_CONTAINERS", "../etc", "no name of a container"),
        ("TOLLGATE_CONTAINERS", "a,,b", "empty word"),
        ("TOLLGATE_SERVICE_ACCOUNT", "other", "must be node"),
        ("TOLLGATE_API_SERVER", "http://x", "https://HOST:PORT"),
        ("TOLLGATE_API_SERVER", "https://x/y", "https://HOST:PORT"),
        ("TOLLGATE_MINT", "sometimes", "on-demand, ahead"),
        ("TOLLGATE_LOG_LEVEL", "trace", "error, warn, info, debug"),
        ("TOLLGATE_MAX_STREAM_AGE", "0s", "more than 0"),
        ("TOLLGATE_MAX_CONNECTIONS", "0", "more than 0"),
        ("TOLLGATE_TOKEN_TLT", "600s", "no setting of this program"),
        ("TOLLGATE_POD_UID", "", "is empty"),
    ] {
        let message = faults(&[(name, value)]);
        assert!(message.contains(part), "{name}={value}: {message}");
    }
}

#[test]
fn a_pods_environment_names_all_that_is_missing() {
    let host = ("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned());
    let message = Config::read([], [host]).unwrap_err().to_string();
    for knob in [
        "NAMESPACE",
        "POD_NAME",
        "POD_UID",
        "POD_SERVICE_ACCOUNT",
        "CONTAINERS",
    ] {
        assert!(
            message.contains(&format!("TOLLGATE_{knob}")),
            "{knob}: {message}"
        );
    }
}

#[test]
fn at_a_workstation_the_kubeconfig_is_missing_and_nothing_of_a_pod() {
    let flags = [("service-account", "agents/default".to_owned())];
    let faults = Config::read(flags, []).unwrap_err().0;
    let [fault] = faults.as_slice() else {
        panic!("{faults:?}");
    };
    assert_eq!(fault.knob, "TOLLGATE_KUBECONFIG");
    assert!(fault.message.contains("--kubeconfig FILE"), "{fault:?}");
}

#[test]
fn every_knob_is_known_by_its_flag() {
    for knob in KNOBS {
        let message = match Config::read([(knob.name, String::new())], environment(&[])) {
            Ok(_) => continue,
            Err(error) => error.to_string(),
        };
        assert!(!message.contains("no setting"), "{}: {message}", knob.name);
    }
}
