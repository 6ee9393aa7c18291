//! Runs every case: the decision, the patch, and what must hold for any injected pod.

use std::fs;

use serde_json::{Value, json};
use tollgate_webhook::inject::{Decision, inject};
use tollgate_webhook::validate::{Operation, validate};

use crate::case::{Case, apply, operations, word_of, word_of_verdict};
use crate::{api_server, judge};

#[test]
fn every_case_is_decided_as_written() {
    let cases = Case::all();
    assert!(cases.len() > 100, "only {} cases were found", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let about = format!("{} ({})", case.name, case.expect.about);
        if let Some(expected) = &case.expect.mutate {
            let decision = inject(&case.pod, &case.context());
            if word_of(&decision) != *expected {
                wrong.push(format!("{about}: mutate gave {decision:?}, not {expected}"));
                continue;
            }
            check_warnings(case, &decision);
        }
        let verdict = validate(
            case.operation(),
            &case.pod,
            case.old.as_ref(),
            &case.context(),
        );
        if word_of_verdict(&verdict) != case.expect.as_final {
            wrong.push(format!(
                "{about}: final gave {verdict:?}, not {}",
                case.expect.as_final
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check_warnings(case: &Case, decision: &Decision) {
    let warnings: &[String] = match decision {
        Decision::Patch { warnings, .. } => warnings,
        Decision::Skip(_) | Decision::Deny(_) => &[],
    };
    let expected = &case.expect.warnings;
    assert_eq!(
        warnings.len(),
        expected.len(),
        "{}: {warnings:?}",
        case.name
    );
    for (warning, part) in warnings.iter().zip(expected) {
        assert!(warning.contains(part.as_str()), "{}: {warning}", case.name);
    }
}

/// The expected operations. The annotation names the release, which is no part of the decision.
fn patch_of(decision: &Decision) -> Value {
    let text = operations(decision).to_string();
    let version = format!("\"{}-", env!("CARGO_PKG_VERSION"));
    serde_json::from_str(&text.replace(&version, "\"VERSION-")).unwrap()
}

/// One operation a line, so that a change of one shows as a change of one line.
fn text_of(patch: &Value) -> String {
    let operations = patch.as_array().unwrap().iter();
    let lines: Vec<String> = operations
        .map(|operation| format!("  {operation}"))
        .collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

#[test]
fn every_patch_is_as_written() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a switch of the test, not of a program"
    )]
    let write = std::env::var_os("GOLDEN").is_some_and(|value| value == "write");
    let mut wrong = Vec::new();
    for case in Case::all() {
        let path = case.folder.join("patch.json");
        let decision = inject(&case.pod, &case.context());
        let changes = case.expect.mutate.is_some() && word_of(&decision) == "inject";
        let actual = changes.then(|| patch_of(&decision));
        if write {
            match &actual {
                Some(patch) => fs::write(&path, text_of(patch)).unwrap(),
                None => drop(fs::remove_file(&path)),
            }
        }
        let expected = fs::read_to_string(&path).ok();
        let expected = expected.map(|text| serde_json::from_str::<Value>(&text).unwrap());
        if actual != expected {
            wrong.push(case.name);
        }
    }
    assert!(
        wrong.is_empty(),
        "the patches of {wrong:?} changed; run with GOLDEN=write and review the difference"
    );
}

#[test]
fn every_injected_pod_keeps_what_injection_promises() {
    let injected = |case: &Case| case.expect.mutate.as_deref() == Some("inject");
    for case in Case::all().iter().filter(|case| injected(case)) {
        let about = &case.name;
        let context = case.context();
        let decision = inject(&case.pod, &context);
        assert_eq!(
            decision,
            inject(&case.pod, &context),
            "{about}: not the same twice"
        );
        let pod = apply(&case.pod, &decision);

        assert_eq!(
            judge::bare(&case.pod),
            judge::bare(&pod),
            "{about}: something else changed"
        );
        check_result(case, &pod);
        // The API server's second pass, then our second round.
        let second = api_server::second_pass(pod.clone());
        check_result(case, &second);
        if judge::is_guaranteed(&case.pod) {
            assert!(judge::is_guaranteed(&pod), "{about}: QoS class was lost");
        }
    }
}

fn check_result(case: &Case, pod: &Value) {
    let about = &case.name;
    let allowed: Vec<&str> = case
        .config
        .allowed_audiences
        .iter()
        .map(String::as_str)
        .collect();
    assert_eq!(judge::leaks(pod, &allowed), Vec::<String>::new(), "{about}");
    assert_eq!(
        judge::restricted(judge::sidecar(pod)),
        Vec::<&str>::new(),
        "{about}"
    );
    let again = inject(pod, &case.context());
    assert_eq!(
        operations(&again),
        json!([]),
        "{about}: not idempotent: {again:?}"
    );
    let verdict = validate(Operation::Create, pod, None, &case.context());
    assert_eq!(
        word_of_verdict(&verdict),
        "allow(valid)",
        "{about}: {verdict:?}"
    );
    for container in judge::containers(pod).filter(|container| container["name"] != "tollgate") {
        let mounts = container["volumeMounts"].as_array().unwrap();
        let files = mounts
            .iter()
            .filter(|mount| mount["mountPath"] == judge::PATH);
        assert_eq!(files.count(), 1, "{about}: {}", container["name"]);
    }
}

/// Row 18: two megabytes of variables in a hundred containers.
#[test]
fn a_very_large_pod_is_injected() {
    let env: Vec<Value> = (0..250)
        .map(|n| json!({"name": format!("V{n}"), "value": "x".repeat(80)}))
        .collect();
    let containers: Vec<Value> = (0..100)
        .map(|n| json!({"name": format!("c{n}"), "image": "i", "env": env}))
        .collect();
    let pod = json!({"metadata": {}, "spec": {"containers": containers}});
    assert!(pod.to_string().len() > 2_500_000);
    let case = Case::read("06-two-containers");
    let injected = apply(&pod, &inject(&pod, &case.context()));
    check_result(&case, &injected);
}
