//! Plugins as shell scripts, and what they print.

use std::fs;
use std::path::Path;
use std::time::Instant;

use tempfile::TempDir;

use super::super::{Credential, Kind, connect};
use super::*;
use crate::kubeconfig::{Login, Wanted};

/// A kubeconfig whose user is an exec plugin with these fields; `$D` stands for a folder of its own.
fn with(fields: &str, script: &str, limit: Duration) -> (Credential, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let ca = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.path().join("ca"), ca.cert.pem()).unwrap();
    fs::write(folder.path().join("script"), script).unwrap();
    let text = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1', certificate-authority: ca, tls-server-name: name, \
         extensions: [{{name: client.authentication.k8s.io/exec, extension: {{tenant: t}}}}]}}}}]\n\
         users: [{{name: u, user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, interactiveMode: IfAvailable, {fields}}}}}}}]"
    );
    let text = text.replace("$D", folder.path().to_str().unwrap());
    let login = Login::read(&text, &folder.path().join("config"), Wanted::default()).unwrap();
    let Ok((_, credential)) = connect(login, limit) else {
        panic!("no credential");
    };
    (credential, folder)
}

/// One whose plugin is this shell script, which finds its folder in the variable `D`.
fn plugin(script: &str, fields: &str, limit: Duration) -> (Credential, TempDir) {
    let shell = "command: /bin/sh, args: [$D/script], env: [{name: D, value: $D}]";
    with(&format!("{shell}{fields}"), script, limit)
}

const LONG: Duration = Duration::from_secs(30);

/// A script that prints a credential with this status, and counts how often it ran.
fn print(status: &str) -> String {
    let credential = format!(
        r#"{{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{status}}}"#
    );
    format!("echo x >>$D/runs; cat <<'END'\n{credential}\nEND\n")
}

fn runs(folder: &Path) -> usize {
    fs::read_to_string(folder.join("runs"))
        .unwrap()
        .lines()
        .count()
}

#[tokio::test]
async fn a_plugin_runs_once_until_its_credential_ends_or_is_refused() {
    let (credential, folder) = plugin(&print(r#"{"token":"abc.def"}"#), "", LONG);
    let first = credential.get().await.unwrap();
    assert_eq!(first.bearer.as_ref().unwrap().as_bytes(), b"Bearer abc.def");
    for _ in 0..3 {
        credential.get().await.unwrap();
    }
    assert_eq!(runs(folder.path()), 1);
    let second = credential.renew(&first).await.unwrap();
    assert!(second.is_some());
    assert_eq!(runs(folder.path()), 2);
    // Another call was refused with the first one too: the second is there already.
    assert!(credential.renew(&first).await.unwrap().is_some());
    assert_eq!(runs(folder.path()), 2);

    // One that ends is printed anew once it has ended.
    let status = r#"{"token":"t","expirationTimestamp":"2200-01-01T00:00:00Z"}"#;
    let (credential, folder) = plugin(&print(status), "", LONG);
    let Kind::Exec(exec) = &credential.kind else {
        panic!("no plugin");
    };
    let end = OffsetDateTime::parse("2200-01-01T00:00:00Z", &Rfc3339).unwrap();
    let moment = time::Duration::nanoseconds(1);
    for (now, ran) in [(end - moment, 1), (end - moment, 1), (end, 2), (end, 3)] {
        exec.get_at(now).await.unwrap();
        assert_eq!(runs(folder.path()), ran, "{now}");
    }
}

#[tokio::test]
async fn a_plugin_learns_what_the_kubeconfig_says() {
    let script = format!(
        "printf %s \"$KUBERNETES_EXEC_INFO\" >$D/info; {}",
        print(r#"{"token":"t"}"#)
    );
    for (fields, cluster) in [(", provideClusterInfo: true", true), ("", false)] {
        let (credential, folder) = plugin(&script, fields, LONG);
        credential.get().await.unwrap();
        let info = fs::read(folder.path().join("info")).unwrap();
        let info: Value = serde_json::from_slice(&info).unwrap();
        assert_eq!(info["apiVersion"], "client.authentication.k8s.io/v1");
        assert_eq!(info["kind"], "ExecCredential");
        assert_eq!(info["spec"]["interactive"], false);
        let told = &info["spec"]["cluster"];
        assert_eq!(told.is_object(), cluster);
        if cluster {
            assert_eq!(told["server"], "https://127.0.0.1:1");
            assert_eq!(told["tls-server-name"], "name");
            assert_eq!(told["config"]["tenant"], "t");
            assert!(told["certificate-authority-data"].is_string());
        }
    }
}

#[tokio::test]
async fn a_certificate_is_shown_by_connections_of_its_own() {
    let pair = rcgen::generate_simple_self_signed(["me".to_owned()]).unwrap();
    let status = json!({
        "clientCertificateData": pair.cert.pem(),
        "clientKeyData": pair.signing_key.serialize_pem(),
    });
    let (credential, _folder) = plugin(&print(&status.to_string()), "", LONG);
    let shown = credential.get().await.unwrap();
    assert!(shown.bearer.is_none() && shown.connections.is_some());
}

#[tokio::test]
async fn a_plugin_that_fails_says_how() {
    for (script, part) in [
        ("exit 3", "failed (exit status: 3)"),
        ("kill -9 $$", "signal: 9"),
        (
            "echo secret",
            "something else than an ExecCredential in JSON",
        ),
        ("head -c 300000 /dev/zero", "more than 262144 bytes"),
    ] {
        let (credential, _folder) = plugin(script, "", LONG);
        let message = credential.get().await.err().unwrap_or_default();
        assert!(message.contains(part), "{script}: {message:?}");
        assert!(message.contains("exec plugin /bin/sh "), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
    let (credential, _folder) = with("command: ./nowhere, installHint: install it so", "", LONG);
    let message = credential.get().await.err().unwrap_or_default();
    assert!(
        message.contains("does not start") && message.ends_with("; install it so"),
        "{message}"
    );
}

/// Waits for a condition.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed_with_all_that_it_started() {
    let script = "sleep 1000 & echo $! >$D/pid; wait";
    let (credential, folder) = plugin(script, "", LONG);
    let Kind::Exec(exec) = &credential.kind else {
        panic!("no plugin");
    };
    let pid = || fs::read_to_string(folder.path().join("pid")).unwrap_or_default();
    // Its time ends once it runs, however long a busy machine takes to start it.
    let runs = until("it does not start", || pid().ends_with('\n'));
    let message = exec.run_until(runs).await.err().unwrap_or_default();
    assert!(message.contains("did not end within 30 s"), "{message}");
    let stat = Path::new("/proc").join(pid().trim()).join("stat");
    // Gone, or a zombie that nobody has taken notice of.
    let ended = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z"));
    until("it still runs", ended).await;
}

#[tokio::test]
async fn a_plugin_has_as_long_as_a_mint() {
    let (credential, _folder) = plugin("sleep 1000", "", Duration::from_millis(100));
    let message = credential.get().await.err().unwrap_or_default();
    assert!(message.contains("did not end within 0.1 s"), "{message}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn only_an_exec_credential_of_the_right_version_counts() {
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let pair = rcgen::generate_simple_self_signed(["me".to_owned()]).unwrap();
    let (pem, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    let read = |text: &str, version| parse(text.as_bytes(), version, now).err();
    let with = |status: Value| {
        let credential = json!({
            "kind": "ExecCredential",
            "apiVersion": "client.authentication.k8s.io/v1beta1",
            "status": status,
        });
        read(&credential.to_string(), ExecVersion::V1Beta1)
    };
    for status in [
        json!({"token": "secret"}),
        json!({"token": "secret", "expirationTimestamp": "2030-01-01T00:00:00Z"}),
        json!({"token": "secret", "expirationTimestamp": null}),
        json!({"clientCertificateData": pem, "clientKeyData": key}),
        json!({"clientCertificateData": pem, "clientKeyData": key, "token": "secret"}),
    ] {
        assert_eq!(with(status.clone()), None, "{status}");
    }
    for (status, part) in [
        (json!({}), "neither a token nor a certificate"),
        (json!(null), "without a status"),
        (json!({"token": ""}), "neither"),
        (
            json!({"token": "two secrets"}),
            "a token that cannot be one",
        ),
        (json!({"token": 7}), "in JSON"),
        (
            json!({"token": "secret", "expirationTimestamp": "soon"}),
            "no RFC 3339",
        ),
        (
            json!({"token": "secret", "expirationTimestamp": "2020-01-01T00:00:00Z"}),
            "has expired already",
        ),
        (json!({"clientCertificateData": pem}), "without its key"),
        (json!({"clientKeyData": key}), "without its certificate"),
        (
            json!({"clientCertificateData": "secret", "clientKeyData": key}),
            "no PEM",
        ),
    ] {
        let message = with(status.clone()).unwrap_or_default();
        assert!(message.contains(part), "{status}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
    let token = r#""status":{"token":"secret"}}"#;
    for (head, part) in [
        (
            r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","#,
            "another apiVersion",
        ),
        (r#"{"kind":"ExecCredential","#, "another apiVersion"),
        (
            r#"{"kind":"Secret","apiVersion":"client.authentication.k8s.io/v1","#,
            "kind says so",
        ),
        ("{", "kind says so"),
        ("", "in JSON"),
    ] {
        let message = read(&format!("{head}{token}"), ExecVersion::V1).unwrap_or_default();
        assert!(message.contains(part), "{head}: {message}");
    }
}
