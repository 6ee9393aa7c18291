//! The program as a user starts it wrongly: exit codes and messages.
#![expect(clippy::expect_used, reason = "a test's own helpers")]

use std::net::TcpListener;
use std::process::{Command, Output};

fn start(configure: impl FnOnce(&mut Command)) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate-webhook"));
    command.env_clear();
    configure(&mut command);
    let Output { status, stderr, .. } = command.output().expect("the program starts");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn a_bad_configuration_ends_with_64_and_names_every_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("release.yaml");
    std::fs::write(&file, "imagee: i\ndefaults: {tokenTtl: 60s}\n").expect("a file");
    let (code, text) = start(|command| {
        command.arg("run").arg("--config").arg(&file);
        command.args(["--address", "nowhere"]);
        command.env("TOLLGATE_LOG_LEVL", "debug");
    });
    assert_eq!(code, Some(64), "{text}");
    for part in [
        "--address",
        "TOLLGATE_LOG_LEVL",
        "imagee",
        "defaults.tokenTtl",
        "release.yaml",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (code, text) = start(|command| {
        command.args(["run", "--config", "/nonexistent/release.yaml"]);
    });
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("/nonexistent/release.yaml"), "{text}");
}

#[test]
fn a_failed_start_ends_with_1_and_names_the_cause() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("release.yaml");
    std::fs::write(&file, "image: i\n").expect("a file");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let (code, text) = start(|command| {
        command.arg("run").arg("--config").arg(&file);
        command.args(["--address", &address, "--admin-address", "127.0.0.1:0"]);
    });
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&address), "{text}");
    let (code, text) = start(|command| {
        command.arg("run").arg("--config").arg(&file);
        command.args(["--address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0"]);
    });
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("Kubernetes API"), "{text}");
}

#[test]
fn a_broken_certificate_ends_with_1_and_names_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("release.yaml");
    std::fs::write(&file, "image: i\n").expect("a file");
    let started = |chain: &str| {
        std::fs::write(folder.path().join("tls.crt"), chain).expect("a file");
        start(|command| {
            command.arg("run").arg("--config").arg(&file);
            command.arg("--certificate-dir").arg(folder.path());
            command.args(["--address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0"]);
        })
    };
    let key = folder.path().join("tls.key").display().to_string();
    let chain = folder.path().join("tls.crt").display().to_string();
    let (code, text) = started("");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&key), "a missing key: {text}");
    std::fs::write(&key, "").expect("a file");
    let (code, text) = started("-----BEGIN CERTIFICATE-----\n");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&chain), "a truncated chain: {text}");
}

#[test]
fn bad_arguments_end_with_64_and_help_with_0() {
    for arguments in [
        vec![],
        vec!["serve"],
        vec!["run", "--nonsense"],
        vec!["--config=x"],
    ] {
        let (code, text) = start(|command| {
            command.args(&arguments);
        });
        assert_eq!(code, Some(64), "{arguments:?}: {text}");
        assert!(text.contains("Usage"), "{text}");
    }
    let (code, _) = start(|command| {
        command.args(["run", "--help"]);
    });
    assert_eq!(code, Some(0));
}
