//! Standalone mode on a real API server: every kind of credential, a wrapped command, and what becomes of its output, its signals
//! and its end.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_e2e::agent::AgentPod;
use tollgate_e2e::audit::AuditLog;
use tollgate_e2e::compare::{self, Differences, KUBECTL, PRELUDE, STREAMS};
use tollgate_e2e::exec::Output;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::program::{self, SIDECAR, verify};
use tollgate_e2e::records::Records;
use tollgate_e2e::{join, jwt};
use tollgate_shared::contract::Injection;
use tollgate_shared::record::key;

/// A namespace whose accounts `default` and `minter` may do everything in it; and a folder.
struct Desk<'a> {
    namespace: &'a TestNamespace,
    folder: TempDir,
    /// The administrator's kubeconfig.
    admin: Value,
}

impl<'a> Desk<'a> {
    async fn new(namespace: &'a TestNamespace) -> anyhow::Result<Self> {
        namespace
            .allow(json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]))
            .await?;
        let minter =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "minter"}});
        namespace.apply::<ServiceAccount>(&minter).await?;
        let admin = fs::read_to_string(&namespace.cluster.config.kubeconfig)?;
        Ok(Self {
            namespace,
            folder: TempDir::new()?,
            admin: serde_saphyr::from_str(&admin)?,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A kubeconfig of the same cluster with this user.
    fn kubeconfig(&self, name: &str, user: &Value) -> anyhow::Result<PathBuf> {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "desk",
            "contexts": [{"name": "desk", "context": {"cluster": "desk", "user": "desk", "namespace": self.namespace.name}}],
            "clusters": [{"name": "desk", "cluster": self.admin.pointer("/clusters/0/cluster")}],
            "users": [{"name": "desk", "user": user}],
        });
        let path = self.path(name);
        fs::write(&path, kubeconfig.to_string())?;
        Ok(path)
    }

    /// The kubeconfig of a service account's own token, unbound.
    async fn kubeconfig_of(&self, account: &str) -> anyhow::Result<PathBuf> {
        let token = self.namespace.token(account, None).await?;
        self.kubeconfig(account, &json!({ "token": token.expose() }))
    }

    /// `tollgate-sidecar run` by a kubeconfig, for the account `default`, records in the file `NAME.records`.
    fn sidecar(&self, name: &str, kubeconfig: &Path) -> anyhow::Result<Command> {
        self.sidecar_for(
            &format!("{}/default", self.namespace.name),
            name,
            kubeconfig,
        )
    }

    fn sidecar_for(&self, account: &str, name: &str, kubeconfig: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new(program::path(SIDECAR)?);
        command
            .arg("run")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--service-account", account])
            .arg("--record-file")
            .arg(self.path(&format!("{name}.records")))
            .args(["--log-level", "error"]);
        self.desk(&mut command);
        Ok(command)
    }

    /// What a command finds around it, wrapped or not: the cluster's own kubectl, and a home that knows no cluster.
    fn desk(&self, command: &mut Command) {
        let kubeconfig = &self.namespace.cluster.config.kubeconfig;
        let tools = kubeconfig.parent().unwrap_or_else(|| Path::new("."));
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", tools.display());
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.folder.path())
            .env("TMPDIR", self.folder.path())
            .stdin(Stdio::null());
    }
}

fn run(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    })
}

async fn at_a_desk(
    injection: Option<Injection>,
    test: impl AsyncFnOnce(&Desk<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    TestNamespace::run(injection, async |namespace| {
        test(&Desk::new(namespace).await?).await
    })
    .await
}

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
async fn kubectl_says_the_same_behind_the_gate_as_without_it() -> anyhow::Result<()> {
    at_a_desk(Some(Injection::Enabled), async |desk| {
        let direct = desk.kubeconfig_of("default").await?;
        let image = &desk.namespace.cluster.config.agent_image;
        let says = [
            "sh",
            "-c",
            "for n in 1 2 3; do echo line $n; done; exec cat",
        ];
        AgentPod::new("target", image)
            .container_field("command", json!(says))
            .container_field("stdin", json!(true))
            .start(desk.namespace)
            .await?;
        let admin = desk.namespace.cluster.config.kubeconfig.clone();
        let spdy = compare::over_spdy(STREAMS);
        let spdy = spdy.iter().map(|(script, part)| (script.as_str(), *part));
        let mut differences = Differences::default();
        for (script, part) in KUBECTL.iter().chain(STREAMS).copied().chain(spdy) {
            let whole = format!("{PRELUDE}{script}");
            let side = |name: &str, port: &str, command: &mut Command| -> anyhow::Result<Output> {
                let work = desk.path(name);
                fs::create_dir_all(&work)?;
                let variables = [("POD", name), ("FORWARD", "target"), ("PORT", port)];
                run(command
                    .envs(variables)
                    .env("WORK", work)
                    .args(["sh", "-c", &whole]))
            };
            let mut wrapped = desk.sidecar("compared", &admin)?;
            let ours = side("proxied", "18080", wrapped.arg("--"))?;
            let mut plain = Command::new("env");
            desk.desk(&mut plain);
            let theirs = side("without", "18081", plain.env("KUBECONFIG", &direct))?;
            differences.compare(script, part, (&ours, "proxied"), (&theirs, "without"));
        }
        differences.none()
    })
    .await
}

#[tokio::test]
async fn output_and_end_are_the_commands() -> anyhow::Result<()> {
    at_a_desk(None, async |desk| {
        let admin = desk.namespace.cluster.config.kubeconfig.clone();
        let sidecar = || desk.sidecar("wrapped", &admin);
        let sh = |script: &str| run(sidecar()?.args(["--", "sh", "-c", script]));
        for (script, code) in [
            ("exit 0", 0),
            ("exit 7", 7),
            ("kill -9 $$", 137),
            ("kill -TERM $$", 143),
        ] {
            assert_eq!(
                sh(script)?,
                Output {
                    code,
                    stdout: String::new(),
                    stderr: String::new()
                },
                "{script}"
            );
        }
        let missing = run(sidecar()?.args(["--", "/nowhere/at-all"]))?;
        assert_eq!(
            (missing.code, missing.stdout.as_str()),
            (127, ""),
            "{missing:?}"
        );
        assert!(
            missing.stderr.contains("cannot run /nowhere/at-all"),
            "{missing:?}"
        );

        let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        fs::write(desk.path("bytes"), &bytes)?;
        let output = sidecar()?
            .args(["--", "cat"])
            .arg(desk.path("bytes"))
            .output()?;
        assert!(
            output.stdout == bytes && output.stderr.is_empty(),
            "not a byte more or less"
        );

        Ok(())
    })
    .await
}

#[tokio::test]
async fn signals_reach_the_command_and_nothing_stays_behind() -> anyhow::Result<()> {
    at_a_desk(None, async |desk| {
        let admin = desk.namespace.cluster.config.kubeconfig.clone();
        let sidecar = || desk.sidecar("signalled", &admin);
        for (script, signal, code) in [
            (
                "trap 'echo told; exit 5' TERM; echo ready; while :; do sleep 0.1; done",
                "TERM",
                5,
            ),
            (
                "trap 'echo told; exit 6' INT; echo ready; while :; do sleep 0.1; done",
                "INT",
                6,
            ),
            (
                "trap 'echo told; exit 8' HUP; echo ready; while :; do sleep 0.1; done",
                "HUP",
                8,
            ),
            ("echo ready; exec sleep 1000", "TERM", 143),
        ] {
            // Not in the terminal's foreground, where the terminal itself would tell both.
            let mut child = sidecar()?
                .args(["--", "sh", "-c", script])
                .process_group(0)
                .stdout(Stdio::piped())
                .spawn()?;
            let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
            let mut line = String::new();
            stdout.read_line(&mut line)?;
            assert_eq!(line, "ready\n");
            let pid = child.id().to_string();
            ensure!(
                Command::new("kill")
                    .args([&format!("-{signal}"), &pid])
                    .status()?
                    .success()
            );
            let mut rest = String::new();
            stdout.read_to_string(&mut rest)?;
            assert_eq!(child.wait()?.code(), Some(code), "{signal}: {script}");
            assert_eq!(rest, if code < 128 { "told\n" } else { "" });
        }
        let left: Vec<_> = fs::read_dir(desk.folder.path())?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("tollgate-"))
            .collect();
        assert_eq!(left, Vec::<String>::new(), "temporary folders stay behind");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_command_is_given_no_credential_for_the_cluster() -> anyhow::Result<()> {
    at_a_desk(None, async |desk| {
        let kubeconfig = desk.kubeconfig_of("minter").await?;
        let mut sidecar = desk.sidecar("given", &kubeconfig)?;
        sidecar
            .env("TOLLGATE_KUBECONFIG", &kubeconfig)
            .arg("--agent-dir")
            .arg(desk.path("agent"));
        let script = "env; cd ${KUBECONFIG%/*}; grep -r '' .; stat -c '%a %n' *";
        let output = run(sidecar.args(["--", "sh", "-c", script]))?;
        assert_eq!(output.code, 0, "{output:?}");
        let given = &output.stdout;
        assert_eq!(
            jwt::find(given.as_bytes()),
            [],
            "a token is in what the command is given"
        );
        assert!(
            !given.contains("TOLLGATE_") && !given.contains("minter"),
            "{given}"
        );
        let secret = fs::read_to_string(desk.path("agent/token"))?;
        assert!(given.contains(&secret) && secret.starts_with("tgl1_"));
        assert_eq!(
            desk.namespace.cluster.review(&secret).await?,
            None,
            "worthless elsewhere"
        );
        for name in ["kubeconfig", "token", "ca.crt", "namespace"] {
            assert!(given.contains(&format!("600 {name}\n")), "{name}: {given}");
        }
        assert_eq!(
            fs::metadata(desk.path("agent"))?.permissions().mode() & 0o777,
            0o700
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_a_command_it_serves_and_says_one_line() -> anyhow::Result<()> {
    at_a_desk(None, async |desk| {
        let admin = desk.namespace.cluster.config.kubeconfig.clone();
        let mut served = desk
            .sidecar("served", &admin)?
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(served.stdout.take().context("no stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        assert!(
            line.starts_with("export KUBECONFIG='") && line.ends_with("'\n"),
            "{line}"
        );
        let mut shell = Command::new("sh");
        desk.desk(&mut shell);
        let script = format!("{line}kubectl auth whoami -o jsonpath={{.status.userInfo.username}}");
        let output = run(shell.args(["-c", &script]))?;
        let account = format!("system:serviceaccount:{}:default", desk.namespace.name);
        assert_eq!(output.stdout, account, "{output:?}");
        let pid = served.id().to_string();
        ensure!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()?
                .success()
        );
        let mut rest = String::new();
        stdout.read_to_string(&mut rest)?;
        assert_eq!((served.wait()?.code(), rest.as_str()), (Some(0), ""));
        let path = line
            .trim_start_matches("export KUBECONFIG='")
            .trim_end_matches("'\n");
        assert!(
            !Path::new(path).exists(),
            "the temporary kubeconfig stays behind"
        );
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
