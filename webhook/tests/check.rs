//! `check -f` as a user calls it.
#![expect(clippy::expect_used, clippy::panic, reason = "a test's own helpers")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn check(arguments: &[&str], input: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate-webhook"))
        .env_clear()
        .arg("check")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("its input");
    // Bad arguments end it before it reads.
    let _sent = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

fn json_of(arguments: &[&str], input: &str) -> Vec<Value> {
    let ran = check(&[arguments, &["-o", "json"]].concat(), input);
    serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}", ran.err))
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: agent, namespace: team-a}
spec:
  template:
    metadata: {labels: {app: agent}}
    spec:
      containers: [{name: agent, image: agent}]
---
apiVersion: v1
kind: Service
metadata: {name: agent}
";

#[test]
fn a_workload_is_explained_with_its_pod() {
    let ran = check(&["-f", "-"], DEPLOYMENT);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let mut lines = ran.out.lines();
    assert_eq!(
        lines.next(),
        Some("# -: Deployment team-a/agent: injected: injected")
    );
    assert!(
        ran.out.ends_with("# -: Service default/agent: no-pod\n"),
        "{}",
        ran.out
    );
    // All of it is YAML.
    let pods: Vec<Value> = serde_saphyr::from_multiple(&ran.out).expect("YAML");
    assert_eq!(pods.len(), 1, "{}", ran.out);
    assert_eq!(pods[0]["metadata"]["generateName"], "agent-");
    assert_eq!(pods[0]["spec"]["initContainers"][0]["name"], "tollgate");
    assert_eq!(pods[0]["spec"]["automountServiceAccountToken"], false);
    // Nothing is left of the token that the API server would have put there.
    assert!(!ran.out.contains("kube-api-access"), "{}", ran.out);
}

#[test]
fn the_label_decides() {
    let named = |pods: &str, label: &str| {
        let found = json_of(&["-f", "-", "--namespace-label", label], pods);
        found
            .iter()
            .map(|one| format!("{}/{}", one["decision"], one["reason"]).replace('"', ""))
            .collect::<Vec<_>>()
    };
    assert_eq!(named(DEPLOYMENT, "opt-in")[0], "skipped/not-selected");
    let tokened = json!({
        "kind": "PodList",
        "items": [
            {"kind": "Pod", "metadata": {"name": "a", "labels": {"tollgate.dev/inject": "false"}}, "spec": {
                "containers": [{"name": "a"}],
                "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}],
            }},
            {"kind": "Pod", "metadata": {"name": "b", "labels": {"tollgate.dev/inject": "maybe"}}, "spec": {"containers": [{"name": "a"}]}},
            {"kind": "Job", "metadata": {"name": "c"}},
        ],
    })
    .to_string();
    assert_eq!(
        named(&tokened, "enabled"),
        [
            "skipped/opted-out",
            "denied/bad-label",
            "denied/bad-request"
        ]
    );
    assert_eq!(named(&tokened, "enforced")[0], "denied/not-token-free");
    let ran = check(&["-f", "-"], &tokened);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.out
            .contains("# -: Pod default/b: denied: bad-label: label tollgate.dev/inject is"),
        "{}",
        ran.out
    );
}

/// Decision and reason of each object.
fn decided(label: &str, input: &str) -> Vec<String> {
    let found = json_of(&["-f", "-", "--namespace-label", label], input);
    let one = |one: &Value| format!("{}/{}", one["decision"], one["reason"]).replace('"', "");
    found.iter().map(one).collect()
}

const AGENT_FILES: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The API server puts its token into a pod before the webhook sees it.
#[test]
fn a_pod_that_opts_out_is_denied_for_the_token_that_it_would_get() {
    let template = |spec: Value| {
        json!({
            "metadata": {"labels": {"tollgate.dev/inject": "false"}},
            "spec": spec,
        })
    };
    let plain = json!({"containers": [{"name": "a"}]});
    let automount =
        |on: bool| json!({"automountServiceAccountToken": on, "containers": [{"name": "a"}]});
    let own_files = json!([{"name": "own", "mountPath": AGENT_FILES}]);
    let own = json!({
        "containers": [{"name": "a", "volumeMounts": own_files}],
        "volumes": [{"name": "own", "emptyDir": {}}],
    });
    let mut in_part = own.clone();
    in_part["initContainers"] = json!([{"name": "i"}]);
    let (denied, skipped) = ("denied/not-token-free", "skipped/opted-out");
    for (spec, wanted) in [
        (plain, denied),
        (automount(true), denied),
        (automount(false), skipped),
        (own, skipped),
        (in_part, denied),
    ] {
        let template = template(spec);
        let mut pod = template.clone();
        pod["kind"] = "Pod".into();
        for object in [
            pod,
            json!({"kind": "Deployment", "spec": {"template": template}}),
            json!({"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": template}}}}),
        ] {
            let object = object.to_string();
            assert_eq!(decided("enforced", &object), [wanted], "{object}");
            assert_eq!(decided("enabled", &object), [skipped], "{object}");
        }
    }
}

/// kubectl and the API server read YAML 1.1.
#[test]
fn yaml_is_read_as_kubectl_reads_it() {
    let pod = "
kind: Pod
spec:
  hostNetwork: no
  hostPID: off
  enableServiceLinks: yes
  activeDeadlineSeconds: 1e3
  terminationGracePeriodSeconds: 1_0
  securityContext: {runAsUser: 0177, runAsGroup: 0o17, fsGroup: 0x1f}
  containers:
    - name: a
      env: [{name: date, value: 2001-01-01}, {name: text, value: \"0400\"}]
  volumes: [{name: v, secret: {secretName: s, defaultMode: 0400}}]
metadata: {annotations: {on: \"yes\"}}
";
    let found = json_of(&["-f", "-"], pod);
    assert_eq!(found[0]["decision"], "injected", "{found:?}");
    let spec = &found[0]["pod"]["spec"];
    for (pointer, wanted) in [
        ("/hostNetwork", json!(false)),
        ("/hostPID", json!(false)),
        ("/enableServiceLinks", json!(true)),
        ("/activeDeadlineSeconds", json!(1000)),
        ("/terminationGracePeriodSeconds", json!(10)),
        ("/securityContext/runAsUser", json!(127)),
        ("/securityContext/runAsGroup", json!(15)),
        ("/securityContext/fsGroup", json!(31)),
        ("/volumes/0/secret/defaultMode", json!(256)),
    ] {
        assert_eq!(spec.pointer(pointer), Some(&wanted), "{pointer}");
    }
    let env = spec["containers"][0]["env"].as_array().expect("a list");
    for value in ["2001-01-01", "0400"] {
        assert!(env.iter().any(|entry| entry["value"] == value), "{env:?}");
    }
    let printed = check(&["-f", "-"], pod).out;
    assert!(printed.contains("defaultMode: 256\n"), "{printed}");
    // What is printed can be applied: read again it is the same pod, which needs no change.
    let again = json_of(&["-f", "-"], &printed);
    assert_eq!(again[0]["decision"], "unchanged", "{again:?}");
    assert_eq!(again[0]["pod"], found[0]["pod"]);
}

#[test]
fn workloads_of_other_products_are_judged_or_said_not_to_be() {
    let template = json!({"spec": {"hostNetwork": true, "containers": [{"name": "a"}]}});
    let in_spec = json!({"template": template});
    for (version, kind, spec) in [
        ("argoproj.io/v1alpha1", "Rollout", &in_spec),
        ("apps.kruise.io/v1alpha1", "CloneSet", &in_spec),
        ("serving.knative.dev/v1", "Service", &in_spec),
        ("example.org/v1", "Job", &in_spec),
        (
            "example.org/v1",
            "CronThing",
            &json!({"jobTemplate": {"spec": in_spec}}),
        ),
    ] {
        let object =
            json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": spec});
        assert_eq!(
            decided("enabled", &object.to_string()),
            ["denied/host-network"],
            "{object}"
        );
    }
    let core = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template});
    assert_eq!(
        decided("enabled", &core.to_string()),
        ["denied/host-network"]
    );
    for (version, kind, wanted) in [
        ("v1", "Service", "no-pod"),
        (
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicy",
            "no-pod",
        ),
        ("batch.volcano.sh/v1alpha1", "Job", "not-judged"),
        (
            "sparkoperator.k8s.io/v1beta2",
            "SparkApplication",
            "not-judged",
        ),
        ("jobset.x-k8s.io/v1alpha2", "JobSet", "not-judged"),
    ] {
        let object =
            json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}}).to_string();
        let ran = check(&["-f", "-"], &object);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let line = format!("# -: {kind} default/x: {wanted}");
        assert!(ran.out.starts_with(&line), "{}", ran.out);
        let says_why = ran.out.contains(&format!("{version} {kind} is no kind"));
        assert_eq!(says_why, wanted == "not-judged", "{}", ran.out);
    }
}

#[test]
fn a_fault_in_yaml_has_a_place_and_no_words_of_a_library() {
    let long = format!("kind: Pod\nspec: {{a: {}}}\nkind: Pod\n", "x".repeat(500));
    for (text, place) in [
        ("kind: Pod\nkind: Pod\n", "line 2, column 1"),
        (&long, "line 3, column 1"),
        ("kind: [\n", "line 1, column 7"),
        ("kind: Pod\nspec: *nobody\n", "line 2, column 7"),
        ("kind: Pod\nspec: {a: .nan}\n", "line 2, column 11"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.yaml");
        fs::write(&file, text).expect("a file");
        let path = file.to_str().expect("a path");
        for (arguments, code) in [
            (&["-f", path][..], 66),
            (&["-f", "-", "--config", path], 64),
        ] {
            let ran = check(arguments, DEPLOYMENT);
            assert_eq!(ran.code, Some(code), "{}", ran.err);
            assert!(
                ran.err.contains(&format!("is not YAML: {place}: ")),
                "{text}: {}",
                ran.err
            );
            assert!(ran.err.len() < path.len() + 160, "{}", ran.err);
            for word in ["Options", "Policy", "-->", " | ", "set "] {
                assert!(!ran.err.contains(word), "{word}: {}", ran.err);
            }
        }
    }
}

#[test]
fn the_configuration_is_the_webhooks() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("release.yaml");
    fs::write(&file, "image: registry.example/sidecar:9\n").expect("a file");
    let path = file.to_str().expect("a path");
    let found = json_of(&["-f", "-", "--config", path], DEPLOYMENT);
    let image = &found[0]["pod"]["spec"]["initContainers"][0]["image"];
    assert_eq!(image, "registry.example/sidecar:9");
}

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let cases = fs::read_dir(folder).expect("fixtures");
    let pods = cases.map(|case| case.expect("a case").path().join("pod.yaml"));
    pods.filter(|pod| pod.exists()).collect()
}

/// Texts that YAML may take for something else.
#[rustfmt::skip]
const ODD: [&str; 41] = [
    "yes", "off", "null", "~", "1e3", "0x1f", "0o7", "012", "1:30", "2001-01-01", "", " lead", "trail ", "a: b", "a #b",
    "- x", "? x", "!x", "&x", "*x", "%x", "@x", "`x", "'", "\"", "two\nlines\n", "tab\tin", "\u{7f}\u{1b}", "{x}", "[x]",
    ".nan", ".inf", "<<", "=", "---", "...", "ä", "\u{feff}", "\u{2028}", "💥", "\\",
];

fn odd_pod() -> String {
    let env = ODD.map(|value| json!({"name": "V", "value": value}));
    let others = json!([1, -1, 1.5, 1e300, true, null, [], {}, [[]], [{}]]);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "odd", "annotations": {"no": "on", "1": "2", "": "x"}},
        "spec": {"containers": [{"name": "a", "env": env.to_vec()}], "x": others},
    })
    .to_string()
}

/// YAML has many ways to misread a text; what is printed must be read as what was meant.
#[test]
fn the_printed_pod_is_the_pod_that_would_be_stored() {
    let mut files = Vec::new();
    for pod in fixtures() {
        files.extend(["-f".to_owned(), pod.to_str().expect("a path").to_owned()]);
    }
    let pod = odd_pod();
    let mut arguments: Vec<&str> = files.iter().map(String::as_str).collect();
    arguments.extend(["-f", "-"]);
    let found = json_of(&arguments, &pod);
    let stored: Vec<&Value> = found
        .iter()
        .map(|one| &one["pod"])
        .filter(|pod| !pod.is_null())
        .collect();
    let printed: Vec<Value> =
        serde_saphyr::from_multiple(&check(&arguments, &pod).out).expect("YAML");
    assert_eq!(printed.len(), stored.len());
    for (printed, stored) in printed.iter().zip(stored) {
        assert_eq!(printed, stored);
    }
    assert!(printed.len() > 50, "{}", printed.len());
    assert_eq!(printed.last().expect("one")["metadata"]["name"], "odd");
}

#[test]
fn all_faults_of_all_files_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("a file");
        path.to_str().expect("a path").to_owned()
    };
    let kindless = write("kindless", b"a: 1\n---\nkind: Pod\n---\n- 1\n");
    let broken = write("broken", b"kind: [\n");
    let twice = write("twice", b"kind: Pod\nkind: Pod\n");
    let binary = write("binary", b"\xff\xfe\x00");
    let empty = write("empty", b"# nothing\n");
    let config = write("config", b"imagee: x\n");
    let missing = folder
        .path()
        .join("missing")
        .to_str()
        .expect("a path")
        .to_owned();
    let mut arguments = Vec::new();
    let files = [&kindless, &broken, &twice, &binary, &empty, &missing];
    for file in files {
        arguments.extend(["-f", file]);
    }
    // Input that cannot be read is no finding and no wrong call; settings that cannot are.
    let ran = check(&arguments, "");
    assert_eq!((ran.code, ran.out.as_str()), (Some(66), ""), "{}", ran.err);
    arguments.extend(["--config", &config]);
    let ran = check(&arguments, "");
    assert_eq!((ran.code, ran.out.as_str()), (Some(64), ""), "{}", ran.err);
    for part in [
        &format!("{kindless}: document 1 has no kind"),
        &format!("{kindless}: document 3 has no kind"),
        &format!("{broken}: is not YAML"),
        &format!("{twice}: is not YAML"),
        &format!("{binary}: "),
        &format!("{empty}: there is no object"),
        &format!("{missing}: "),
        &format!("{config}: "),
    ] {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
}

#[test]
fn bad_arguments_end_with_64() {
    for arguments in [
        &[][..],
        &["-f", "-", "--namespace", "a"],
        &["-f", "-", "--namespace-label", "Enabled"],
        &["-f", "-", "--all"],
        &["--namespace", "a", "--namespace-label", "enabled"],
        &["--namespace", "../a"],
        &["--namespace", "a", "--config", "/nonexistent"],
        &["-f", "-", "-o", "xml"],
    ] {
        let ran = check(arguments, "");
        assert_eq!(ran.code, Some(64), "{arguments:?} {}", ran.err);
        assert!(!ran.err.is_empty());
    }
}

#[test]
fn a_cluster_that_cannot_be_asked_ends_with_66_and_says_how_to_name_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let none = folder.path().join("kubeconfig");
    let none = none.to_str().expect("a path");
    let ran = check(&["--namespace", "a", "--kubeconfig", none], "");
    assert_eq!((ran.code, ran.out.as_str()), (Some(66), ""));
    assert!(ran.err.contains("--kubeconfig"), "{}", ran.err);
    let dead = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    fs::write(none, dead.to_string()).expect("a file");
    let ran = check(&["--namespace", "a", "--kubeconfig", none], "");
    assert_eq!((ran.code, ran.out.as_str()), (Some(66), ""));
    assert!(
        ran.err.contains("cannot look at the cluster"),
        "{}",
        ran.err
    );
}

/// Words of which every denial has one, for what to do.
const ADVICE: [&str; 13] = [
    "allow", "correct", "create", "label", "let", "lower", "mount", "raise", "remove", "rename",
    "run", "set", "use",
];

#[test]
fn every_denial_says_what_to_do() {
    let mut denials = std::collections::BTreeSet::new();
    for label in ["opt-in", "enabled", "enforced"] {
        let mut arguments = vec!["--namespace-label".to_owned(), label.to_owned()];
        for pod in fixtures() {
            arguments.extend(["-f".to_owned(), pod.to_str().expect("a path").to_owned()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        for one in json_of(&arguments, "") {
            if one["decision"] == "denied" {
                let reason = one["reason"].as_str().expect("a reason").to_owned();
                denials.insert((
                    reason,
                    one["message"].as_str().expect("a message").to_owned(),
                ));
            }
        }
    }
    for (reason, message) in &denials {
        let (_, advice) = message.split_once([';', ',']).unwrap_or_default();
        let has = |word: &str| {
            advice
                .split(|c: char| !c.is_alphabetic())
                .any(|found| found == word)
        };
        assert!(ADVICE.iter().any(|word| has(word)), "{reason}: {message}");
    }
    let reasons: std::collections::BTreeSet<_> = denials.iter().map(|(reason, _)| reason).collect();
    assert!(reasons.len() > 12, "{reasons:?}");
}
