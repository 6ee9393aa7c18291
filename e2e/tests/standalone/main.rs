//! Standalone mode on a real API server: a wrapped command, and what becomes of its output, its signals and its end.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tollgate_e2e::agent::AgentPod;
use tollgate_e2e::compare::{self, Differences, KUBECTL, PRELUDE, STREAMS};
use tollgate_e2e::exec::Output;
use tollgate_e2e::jwt;
use tollgate_shared::contract::Injection;

mod credentials;
mod desk;

use desk::{at_a_desk, run};

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
