//! What later webhooks may do to an injected pod and what they may not: one change each, to the pod of case `01-plain`.
//! A line of a table is an operation, a path and a JSON value.

use serde_json::{Value, json};
use tollgate_webhook::inject::{api_server_variables, inject};
use tollgate_webhook::validate::{Operation, validate};

use crate::case::{Case, apply, word_of, word_of_verdict};
use crate::{api_server, judge};

/// Harm to our container. Paths are inside it.
const HARM_TO_SIDECAR: &str = r#"
replace /image "evil"
replace /command ["/bin/sh"]
remove /command
add /args/- "--log-level=debug"
add /env/0/value "x"
replace /env/5/value "7443"
remove /env/5
add /env/- {"name": "TOLLGATE_SERVICE_ACCOUNT", "value": "admin"}
add /env/- {"name": "TOLLGATE_PORT", "value": "1"}
replace /env/0 {"name": "TOLLGATE_NAMESPACE", "value": "kube-system"}
add /env/- {"name": "KUBERNETES_SERVICE_HOST", "value": "172.18.0.1"}
add /env/- {"name": "KUBERNETES_SERVICE_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}
add /env/- {"name": "KUBERNETES_SERVICE_PORT", "value": "18443"}
add /envFrom [{"configMapRef": {"name": "x"}}]
add /volumeMounts/- {"name": "x", "mountPath": "/tollgate-sidecar"}
add /volumeMounts/- {"name": "x", "mountPath": "/"}
add /volumeMounts/- {"name": "x", "mountPath": "/var/run"}
add /volumeMounts/- {"name": "x", "mountPath": "/var/run/secrets/../tollgate/state"}
add /volumeMounts/- {"name": "tollgate-state", "mountPath": "/x"}
replace /volumeMounts/0/mountPath "/x"
replace /volumeMounts/0/readOnly false
add /volumeMounts/1/subPath "agent"
add /volumeMounts/1/mountPropagation "Bidirectional"
remove /volumeMounts/2
add /volumeDevices [{"name": "x", "devicePath": "/dev/x"}]
replace /securityContext/runAsUser 0
replace /securityContext/runAsUser 1000
replace /securityContext/privileged true
replace /securityContext/readOnlyRootFilesystem false
replace /securityContext/allowPrivilegeEscalation true
add /securityContext/capabilities/add ["SYS_PTRACE"]
replace /securityContext/seccompProfile/type "Unconfined"
add /securityContext/procMount "Unmasked"
add /securityContext/appArmorProfile {"type": "Unconfined"}
remove /securityContext
add /ports/0/hostPort 6480
add /ports/- {"containerPort": 1}
add /lifecycle {"preStop": {"exec": {"command": ["x"]}}}
add /readinessProbe {"exec": {"command": ["x"]}}
replace /startupProbe/exec/command ["x"]
remove /startupProbe
replace /livenessProbe/httpGet/port 1
remove /restartPolicy
replace /restartPolicy "OnFailure"
add /restartPolicyRules [{"action": "RestartAllContainers"}]
add /tty true
add /stdin true
add /workingDir "/x"
replace /terminationMessagePath "/var/run/tollgate/state/ca.key"
replace /terminationMessagePolicy "FallbackToLogsOnError"
add /livenessProbe/httpGet/host "10.0.0.1"
add /livenessProbe/httpGet/httpHeaders [{"name": "a", "value": "b"}]
add /resources/claims [{"name": "gpu"}]
"#;

/// Harm to what belongs to it, and the denial.
const HARM_TO_POD: &str = r#"
replace /spec/automountServiceAccountToken true
remove /spec/automountServiceAccountToken
add /spec/volumes/- TOKEN
replace /spec/volumes/0/projected/sources/0/serviceAccountToken/expirationSeconds 86400
replace /spec/volumes/1/emptyDir {}
remove /spec/volumes/2
remove /spec/containers/0/volumeMounts/0
add /spec/initContainers/0 {"name": "first", "image": "i"}
add /spec/containers/- {"name": "late", "image": "i"}
"#;

/// Defaults of newer servers and additions that cannot harm. Paths are inside our container. A platform that changes the API server's
/// address does so in the webhook's own pod, too.
const BENIGN: &str = r#"
replace /imagePullPolicy "Always"
add /env/- {"name": "AWS_REGION", "value": "x"}
add /env/- {"name": "KUBERNETES_SERVICE_HOST", "value": "api.example"}
add /env/0/valueFrom/fieldRef/fromTheFuture 1
add /volumeMounts/- {"name": "aws", "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount"}
replace /resources/requests/cpu "1"
replace /resources/requests/memory "0.0625Gi"
add /resources/limits/cpu "1"
add /resources/claims []
add /securityContext/seLinuxOptions {"level": "s0:c1,c2"}
add /securityContext/fromTheFuture "x"
add /startupProbe/terminationGracePeriodSeconds 5
add /resizePolicy [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]
add /fromTheFuture {}
add /stdin false
add /envFrom []
add /volumeMounts/0/recursiveReadOnly "Disabled"
"#;

/// Conveniences: restored where we are asked again, no reason to deny.
const CONVENIENCES: &str = r#"
remove /spec/containers/0/env/0
add /spec/containers/0/env/- {"name": "HTTPS_PROXY", "value": "http://p"}
remove /metadata/annotations/tollgate.dev~1injected
replace /spec/initContainers/0/resources/limits/memory "64Mi"
"#;

/// `pod` after each line of `table`, with the line. Paths are below `root`.
fn changed<'a>(pod: &Value, table: &'a str, root: &str) -> Vec<(&'a str, Value)> {
    let change = |line: &'a str| {
        let mut words = line.splitn(3, ' ');
        let (op, path) = (words.next().unwrap(), words.next().unwrap());
        let value = match words.next() {
            None => Value::Null,
            Some("TOKEN") => api_server::token_volume("kube-api-access-new"),
            Some(text) => serde_json::from_str(text).unwrap(),
        };
        let patch = json!([{"op": op, "path": format!("{root}{path}"), "value": value}]);
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        let mut pod = pod.clone();
        json_patch::patch(&mut pod, &patch).unwrap_or_else(|error| panic!("{line}: {error}"));
        (line, pod)
    };
    let lines = table.lines().filter(|line| !line.is_empty());
    lines.map(change).collect()
}

/// `pod` after each kind of harm, with the line that did it.
pub(crate) fn harmed(pod: &Value) -> Vec<(&'static str, Value)> {
    let mut harmed = changed(pod, HARM_TO_SIDECAR, "/spec/initContainers/0");
    harmed.extend(changed(pod, HARM_TO_POD, ""));
    harmed
}

fn injected(case: &Case) -> Value {
    api_server::with_defaults(apply(&case.pod, &inject(&case.pod, &case.context())))
}

/// `pod` earns `verdict` if it is final, and what mutation makes of it is valid.
fn expect(case: &Case, pod: &Value, verdict: &str, about: &str) {
    let context = case.context();
    let actual = validate(Operation::Create, pod, None, &context);
    assert_eq!(word_of_verdict(&actual), verdict, "{about}: {actual:?}");
    let decision = inject(pod, &context);
    assert_eq!(word_of(&decision), "inject", "{about}: {decision:?}");
    let restored = apply(pod, &decision);
    assert_eq!(
        judge::leaks(&restored, &[]),
        Vec::<String>::new(),
        "{about}"
    );
    let actual = validate(Operation::Create, &restored, None, &context);
    assert_eq!(
        word_of_verdict(&actual),
        "allow(valid)",
        "{about}: {actual:?}"
    );
}

#[test]
fn harm_is_restored_and_denied_if_final() {
    let case = Case::read("01-plain");
    let pod = injected(&case);
    for (line, pod) in changed(&pod, HARM_TO_SIDECAR, "/spec/initContainers/0") {
        expect(&case, &pod, "deny(sidecar-drift)", line);
    }
    for (line, pod) in changed(&pod, HARM_TO_POD, "") {
        let token = line.contains("automount") || line.contains("TOKEN");
        let verdict = if token { "token-left" } else { "sidecar-drift" };
        expect(&case, &pod, &format!("deny({verdict})"), line);
    }
}

#[test]
fn lost_conveniences_deny_nothing() {
    let case = Case::read("01-plain");
    let pod = injected(&case);
    for (line, pod) in changed(&pod, CONVENIENCES, "") {
        expect(&case, &pod, "allow(valid)", line);
    }
}

#[test]
fn defaults_and_benign_additions_are_left_alone() {
    let mut case = Case::read("01-plain");
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let own = [("KUBERNETES_SERVICE_HOST", "api.example"), ("HOME", "/")].map(own);
    case.config.api_server = api_server_variables(own);
    let pod = injected(&case);
    for (line, pod) in changed(&pod, BENIGN, "/spec/initContainers/0") {
        let decision = inject(&pod, &case.context());
        assert_eq!(word_of(&decision), "already", "{line}: {decision:?}");
        let verdict = validate(Operation::Create, &pod, None, &case.context());
        assert_eq!(
            word_of_verdict(&verdict),
            "allow(valid)",
            "{line}: {verdict:?}"
        );
    }
}
