//! Pods of a size that no node runs: what they take of the webhook is bounded, and what goes beyond is refused by name.

use serde_json::{Value, json};
use tollgate_webhook::inject::{Decision, inject};
use tollgate_webhook::validate::{Operation, Verdict, validate};

use crate::case::{Case, apply};
use crate::judge;

/// Containers whose names are as long as they may be.
fn pod(containers: usize, content: &Value) -> Value {
    let container = |n: usize| {
        let mut container = content.clone();
        container["name"] = json!(format!("c{n:062}"));
        container
    };
    let containers: Vec<Value> = (0..containers).map(container).collect();
    json!({"metadata": {}, "spec": {"containers": containers}})
}

/// The message of a denial by both stages.
fn refusal(pod: &Value) -> String {
    let case = Case::read("06-two-containers");
    let Decision::Deny(denial) = inject(pod, &case.context()) else {
        panic!("the pod is injected");
    };
    let verdict = validate(Operation::Create, pod, None, &case.context());
    assert_eq!(verdict, Verdict::Deny(denial.clone()));
    denial.to_string()
}

#[test]
fn as_many_containers_as_the_sidecar_can_be_told_of_and_no_more() {
    let case = Case::read("06-two-containers");
    let most = pod(2000, &json!({"image": "i"}));
    let injected = apply(&most, &inject(&most, &case.context()));
    assert_eq!(judge::leaks(&injected, &[]), Vec::<String>::new());
    let verdict = validate(Operation::Create, &injected, None, &case.context());
    assert!(matches!(verdict, Verdict::Allow(_)), "{verdict:?}");

    let variables = judge::sidecar(&injected)["env"].as_array().unwrap().iter();
    let longest = variables.map(|variable| {
        let value = variable["value"].as_str().unwrap_or_default();
        variable["name"].as_str().unwrap().len() + value.len()
    });
    // The kernel's limit of one argument or variable (execve(2)).
    assert!(longest.max().unwrap() < 128 * 1024);

    let message = refusal(&pod(2001, &json!({"image": "i"})));
    assert!(
        message.contains("spec.containers has more than 2000 entries"),
        "{message}"
    );
    let mut volumes = pod(1, &json!({"image": "i"}));
    let volume = |n: usize| json!({"name": format!("v{n}"), "emptyDir": {}});
    volumes["spec"]["volumes"] = (0..2001).map(volume).collect();
    let message = refusal(&volumes);
    assert!(
        message.contains("spec.volumes has more than 2000 entries"),
        "{message}"
    );
}

#[test]
fn a_patch_has_an_end() {
    let env = |count: usize| vec![json!({"name": "NO_PROXY", "value": "a"}); count];
    let case = Case::read("06-two-containers");
    let pod_of = |count| pod(1, &json!({"image": "i", "env": env(count)}));
    let decision = inject(&pod_of(19_000), &case.context());
    assert!(matches!(decision, Decision::Patch { .. }), "{decision:?}");
    let Decision::Deny(denial) = inject(&pod_of(21_000), &case.context()) else {
        panic!("the pod is injected");
    };
    assert!(
        denial.message.contains("more than 20000 changes"),
        "{denial}"
    );
}

#[test]
fn warnings_have_an_end() {
    let from = json!({"fieldRef": {"fieldPath": "metadata.name"}});
    let env = vec![json!({"name": "NO_PROXY", "valueFrom": from}); 1000];
    let pod = pod(1, &json!({"image": "i", "env": env}));
    let Decision::Patch { warnings, .. } = inject(&pod, &Case::read("06-two-containers").context())
    else {
        panic!("the pod is not injected");
    };
    assert_eq!(warnings.len(), 50);
}

#[test]
fn a_path_that_no_kernel_takes_is_refused() {
    let mounted = |length: usize| {
        let mount = json!({"name": "v", "mountPath": "/".repeat(length - 1) + "x"});
        let mut pod = pod(1, &json!({"image": "i", "volumeMounts": [mount]}));
        pod["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
        pod
    };
    let decision = inject(&mounted(4096), &Case::read("06-two-containers").context());
    assert!(matches!(decision, Decision::Patch { .. }), "{decision:?}");
    assert!(refusal(&mounted(4097)).contains("volumeMounts"));
}
