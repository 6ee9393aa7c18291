//! Standalone settings from flags, variables and a file.

use super::super::{BadConfig, KNOBS};
use super::*;

fn read_with(flags: &[(&'static str, &str)]) -> Result<Config, String> {
    let good = [("kubeconfig", "/k"), ("service-account", "agents/default")];
    let given = |(knob, value): &(&'static str, &str)| (*knob, (*value).to_owned());
    let flags = good.iter().chain(flags).map(given);
    let environment = [("USER", "me"), ("TMPDIR", "/t")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Config::read(flags, environment).map_err(|error| error.to_string())
}

#[test]
fn a_kubeconfig_and_a_target_are_enough() {
    let config = read_with(&[]).unwrap();
    assert_eq!(config.target.namespace, "agents");
    assert_eq!(config.target.account, "default");
    assert_eq!(config.target.bound, Bound::Nothing);
    assert_eq!((config.settings.port, config.settings.admin_port), (0, 0));
    assert_eq!(config.record_target, RecordTarget::Stderr);
    assert_eq!(config.settings.containers, ["agent"]);
    let Place::Standalone(standalone) = &config.place else {
        panic!("in a pod");
    };
    assert_eq!(standalone.kubeconfig, Path::new("/k"));
    assert!(standalone.whose.starts_with("me@"), "{}", standalone.whose);
    assert_eq!(standalone.temporary, Path::new("/t"));
    assert!(config.lacks_folders());
    let config = config.with_folders_in(Path::new("/t/x"));
    assert_eq!(config.agent_dir, Path::new("/t/x/agent"));
    assert_eq!(config.state_dir, Path::new("/t/x/state"));
}

#[test]
fn flags_name_target_audiences_life_and_url() {
    let config = read_with(&[
        ("bound-to", "secret/session"),
        ("audiences", "a,b"),
        ("token-ttl", "15m"),
        ("api-server", "https://other:6443"),
        ("context", "there"),
        ("agent-dir", "/a"),
        ("port", "7443"),
    ])
    .unwrap();
    assert_eq!(config.target.bound, Bound::Secret("session".to_owned()));
    assert_eq!(config.settings.audiences, ["a", "b"]);
    assert_eq!(config.settings.token_ttl.seconds(), 900);
    assert_eq!(config.settings.port, 7443);
    let config = config.with_folders_in(Path::new("/t/x"));
    assert_eq!(config.agent_dir, Path::new("/a"));
    let Place::Standalone(standalone) = config.place else {
        panic!("in a pod");
    };
    assert_eq!(standalone.server.as_deref(), Some("https://other:6443"));
    assert_eq!(standalone.context.as_deref(), Some("there"));
}

#[test]
fn a_file_gives_what_flags_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tollgate.yaml");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    let with_file = |flags: &[(&'static str, &str)]| {
        let file = ("config", path.to_str().unwrap());
        let flags = flags.iter().chain([&file]);
        let flags = flags.map(|(knob, value)| (*knob, (*value).to_owned()));
        Config::read(flags, []).map_err(|error| error.to_string())
    };
    write(
        "kubeconfig: /k\nservice-account: agents/other\ntoken-ttl: 15m\naudiences: [a, b]\nport: 7443\napi-server: https://x:1\n",
    );
    let config = with_file(&[("port", "8443")]).unwrap();
    assert_eq!(config.target.account, "other");
    assert_eq!(config.settings.audiences, ["a", "b"]);
    assert_eq!(config.settings.token_ttl.seconds(), 900);
    assert_eq!(config.settings.port, 8443, "the flag wins");
    write(r#"{"kubeconfig": "/k", "service-account": "a/b", "record-exec-commands": true}"#);
    assert!(with_file(&[]).unwrap().record_exec_commands);

    let flags = [("kubeconfig", "/k"), ("service-account", "a/b")];
    for (text, part) in [
        ("tokn-ttl: 15m", "tollgate.yaml: tokn-ttl is no setting"),
        (
            "token-ttl: 1s",
            "tollgate.yaml: token-ttl \"1s\": is less than 600s",
        ),
        ("token-ttl: {a: 1}", "gives token-ttl something else"),
        ("token-ttl: null", "gives token-ttl something else"),
        ("pod-name: x", "tollgate.yaml: pod-name is of a pod"),
        ("config: x", "names another file"),
        ("- a", "is no mapping"),
        ("a: [", "is not YAML: line"),
    ] {
        write(text);
        let message = with_file(&flags).unwrap_err();
        assert!(message.contains(part), "{text}: {message}");
    }
    std::fs::remove_file(&path).unwrap();
    let message = with_file(&flags).unwrap_err();
    assert!(message.contains("cannot be read"), "{message}");
}

#[test]
fn the_two_modes_do_not_mix() {
    for knob in OF_PODS {
        let message = read_with(&[(knob, "x")]).unwrap_err();
        assert!(
            message.contains(&format!("--{knob} is of a pod")),
            "{message}"
        );
    }
    for knob in OF_STANDALONE {
        let pod = ("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned());
        let message = Config::read([(knob, "x".to_owned())], [pod])
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(&format!("--{knob} is of standalone mode")),
            "{message}"
        );
    }
    for knob in OF_PODS.iter().chain(&OF_STANDALONE) {
        assert!(KNOBS.iter().any(|known| known.name == *knob), "{knob}");
    }
}

#[test]
fn every_fault_at_once() {
    let flags = [
        ("kubeconfig", "a:b"),
        ("service-account", "default"),
        ("bound-to", "pod/x"),
        ("local-auth", "none"),
        ("pod-uid", "u"),
    ];
    let flags = flags.map(|(knob, value)| (knob, value.to_owned()));
    let BadConfig(faults) = Config::read(flags, []).unwrap_err();
    let mut names: Vec<&str> = faults.iter().map(|fault| fault.knob.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "--bound-to",
            "--kubeconfig",
            "--local-auth",
            "--pod-uid",
            "--service-account"
        ]
    );
    for account in ["", "a", "a/", "/b", "a/b/c"] {
        let message = read_with(&[("service-account", account)]).unwrap_err();
        assert!(message.contains("NAMESPACE/NAME"), "{account}: {message}");
    }
    for bound in ["x", "secret/", "node/", "configmap/x"] {
        let message = read_with(&[("bound-to", bound)]).unwrap_err();
        assert!(
            message.contains("is neither node/NAME"),
            "{bound}: {message}"
        );
    }
}
