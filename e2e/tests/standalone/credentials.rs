//! Every kind of credential that a kubeconfig can hold, and those that do not work.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tollgate_e2e::audit::AuditLog;
use tollgate_e2e::exec::Output;
use tollgate_e2e::program::verify;
use tollgate_e2e::records::Records;
use tollgate_e2e::{join, jwt};
use tollgate_shared::record::key;

use crate::desk::{Desk, at_a_desk, run};

/// Every call of the records and its event have the same credential, `default`'s; every mint is the kubeconfig's user's.
async fn joined(desk: &Desk<'_>, name: &str, log: &mut AuditLog, user: &str) -> anyhow::Result<()> {
    let file = desk.path(&format!("{name}.records"));
    let records = Records::of_file(&file)?;
    records.check_chain()?;
    let last = records.lines.last().context("no records")?.audit_id.clone();
    log.completed(&last).await?;
    let events = log.events()?.to_vec();
    let calls = join::join(&records.lines, &events);
    let (used, unused): (Vec<_>, Vec<_>) = calls
        .iter()
        .partition(|call| call.verdict == join::Verdict::Joined);
    assert!(!used.is_empty(), "{name}: {calls:?}");
    assert_eq!(unused.len(), 1, "{name}: the first mint: {unused:?}");
    let account = format!("system:serviceaccount:{}:default", desk.namespace.name);
    let mut credentials = std::collections::BTreeSet::new();
    for call in &calls {
        let mint = call.mint.context("a token without its TokenRequest")?;
        assert_eq!(mint.user.username, user, "{name}");
        assert!(
            credentials.insert(call.annotation(key::CREDENTIAL_ID)),
            "{name}: used twice"
        );
        assert!(
            call.events
                .iter()
                .all(|event| event.user.username == account),
            "{name}: {call}"
        );
    }
    let copy = desk.path("audit.log");
    log.copy_to(&copy)?;
    let verified = verify(&[file], Some(&copy))?;
    assert_eq!(verified.code, Some(0), "{name}: {verified:?}");
    for (counter, number) in [
        ("joined", used.len()),
        ("unused-mint", 1),
        ("missing-record", 0),
        ("missing-call", 0),
        ("not-logged", 0),
    ] {
        assert_eq!(
            verified.count(counter)?,
            number as u64,
            "{name}: {counter}: {verified:?}"
        );
    }
    Ok(())
}

/// The user of each kubeconfig and whom the API server takes him for.
async fn users(desk: &Desk<'_>) -> anyhow::Result<Vec<(&'static str, Value, String)>> {
    let certificate = desk.admin.pointer("/users/0/user").cloned();
    let certificate = certificate.context("an administrator without a user")?;
    let decoded = |field: &str| -> anyhow::Result<String> {
        let data = certificate.get(field).and_then(Value::as_str);
        Ok(String::from_utf8(
            STANDARD.decode(data.context("no certificate")?)?,
        )?)
    };
    let token = desk.namespace.token("minter", None).await?;
    let token = token.expose();
    fs::write(desk.path("token"), token)?;
    let plugin = |name: &str, version: &str, status: Value| -> anyhow::Result<Value> {
        let version = format!("client.authentication.k8s.io/{version}");
        let printed = json!({"kind": "ExecCredential", "apiVersion": version, "status": status});
        fs::write(desk.path(name), printed.to_string())?;
        let script = format!("echo ran >>{name}.runs && cat {name}");
        let script = format!("cd '{}' && {script}", desk.folder.path().display());
        Ok(json!({"exec": {
            "apiVersion": version, "interactiveMode": "IfAvailable", "command": "sh", "args": ["-c", script],
        }}))
    };
    let prints_token = plugin("prints-token", "v1", json!({ "token": token }))?;
    let prints_certificate = plugin(
        "prints-certificate",
        "v1beta1",
        json!({
            "clientCertificateData": decoded("client-certificate-data")?,
            "clientKeyData": decoded("client-key-data")?,
        }),
    )?;
    let minter = format!("system:serviceaccount:{}:minter", desk.namespace.name);
    let admin = "kubernetes-admin".to_owned();
    Ok(vec![
        ("certificate", certificate, admin.clone()),
        ("a-token", json!({ "token": token }), minter.clone()),
        (
            "token-file",
            json!({ "tokenFile": "token" }),
            minter.clone(),
        ),
        ("exec-token", prints_token, minter),
        ("exec-certificate", prints_certificate, admin),
    ])
}

#[tokio::test]
async fn every_credential_mints_and_its_calls_join_the_clusters_log() -> anyhow::Result<()> {
    at_a_desk(None, async |desk| {
        let direct = desk.kubeconfig_of("default").await?;
        let kubectl = ["get", "configmaps", "-o", "yaml"];
        let mut plain = Command::new("kubectl");
        desk.desk(&mut plain);
        let expected = run(plain.env("KUBECONFIG", &direct).args(kubectl))?;
        ensure!(expected.code == 0, "{expected:?}");
        for (name, user, username) in users(desk).await? {
            let Some(mut log) = desk.namespace.cluster.audit_log()? else {
                return Ok(());
            };
            let kubeconfig = desk.kubeconfig(&format!("{name}.kubeconfig"), &user)?;
            let mut wrapped = desk.sidecar(name, &kubeconfig)?;
            let output = run(wrapped.args(["--", "kubectl"]).args(kubectl))?;
            assert_eq!(output.code, 0, "{name}: {output:?}");
            assert_eq!(output.stdout, expected.stdout, "{name}");
            assert_eq!(output.stderr, "", "{name}");
            joined(desk, name, &mut log, &username).await?;
        }
        // Once for all of a run's mints.
        assert_eq!(fs::read_to_string(desk.path("prints-token.runs"))?, "ran\n");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn tokens_die_with_the_secret_that_they_are_bound_to() -> anyhow::Result<()> {
    at_a_desk(None, async |desk| {
        let admin = desk.namespace.cluster.config.kubeconfig.clone();
        let session =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "session"}});
        desk.namespace.apply::<Secret>(&session).await?;
        let bound = |name| -> anyhow::Result<Output> {
            let mut sidecar = desk.sidecar(name, &admin)?;
            run(sidecar.args([
                "--bound-to",
                "secret/session",
                "--",
                "kubectl",
                "auth",
                "whoami",
            ]))
        };
        let output = bound("bound")?;
        assert_eq!(output.code, 0, "{output:?}");
        let secrets = desk.namespace.api::<Secret>();
        secrets.delete("session", &DeleteParams::default()).await?;
        let output = bound("gone")?;
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
        assert!(output.stderr.contains("--bound-to"), "{output:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_cannot_work_says_so_before_the_command_runs() -> anyhow::Result<()> {
    at_a_desk(None, async |desk| {
        let marker = desk.path("ran");
        let own = format!("{}/default", desk.namespace.name);
        let attempt = |account: &str, kubeconfig: &Path| -> anyhow::Result<Output> {
            let mut sidecar = desk.sidecar_for(account, "refused", kubeconfig)?;
            let output = run(sidecar.args(["--", "touch"]).arg(&marker))?;
            ensure!(!marker.exists(), "the command ran: {output:?}");
            ensure!(output.stdout.is_empty(), "{output:?}");
            Ok(output)
        };
        let minter = desk.kubeconfig_of("minter").await?;
        let nobody = json!({"token": "bm9ib2R5.c2VjcmV0.eA"});
        let several = json!({
            "token": "bm9ib2R5.c2VjcmV0.eA", "client-certificate": "missing", "client-key": "missing", "as": "somebody",
        });
        let silent = json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": "true",
        }});
        let nobody = desk.kubeconfig("nobody", &nobody)?;
        let several = desk.kubeconfig("several", &several)?;
        let silent = desk.kubeconfig("silent", &silent)?;
        let absent = desk.path("absent");
        let cases: [(&str, &Path, i32, &[&str]); 6] = [
            ("kube-system/default", &minter, 1, &["the kubeconfig's user", "serviceaccounts/token"]),
            (&format!("{own}-not"), &minter, 1, &["default-not", "is not there"]),
            (&own, &nobody, 1, &["does not accept the kubeconfig's credential"]),
            (&own, &silent, 1, &["exec plugin true printed something else"]),
            (&own, &several, 64, &["several credentials", "as is impersonation"]),
            (&own, &absent, 64, &["absent cannot be read"]),
        ];
        for (account, kubeconfig, code, parts) in cases {
            let output = attempt(account, kubeconfig)?;
            assert_eq!(output.code, code, "{output:?}");
            for part in parts {
                assert!(output.stderr.contains(part), "{part}: {output:?}");
            }
            assert!(!output.stderr.contains("c2VjcmV0"), "{output:?}");
            assert_eq!(jwt::find(output.stderr.as_bytes()), []);
        }
        Ok(())
    })
    .await
}
