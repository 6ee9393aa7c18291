//! Random pods, made of the pieces that decisions turn on and of pieces that are wrong: never a panic, the same answer twice,
//! and no token in reach of an agent unless denied.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};
use tollgate_shared::contract::Injection;
use tollgate_webhook::inject::{Context, Decision, inject};
use tollgate_webhook::validate::{Operation, Verdict, validate};
use tollgate_webhook::voucher::{Vouchers, Vouching};

use crate::case::{apply, config, operations};
use crate::{api_server, judge};

const ALLOWED: &str = "sts.amazonaws.com";

/// An object of fields, each there with its probability.
fn object(fields: Vec<(&'static str, f64, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(key, weight, value)| option::weighted(weight, value.prop_map(move |v| (key, v))))
        .collect();
    let present = |fields: Vec<Option<(&str, Value)>>| {
        let fields = fields.into_iter().flatten();
        let fields = fields.map(|(key, value)| (key.to_owned(), value));
        Value::Object(fields.collect::<Map<String, Value>>())
    };
    fields.prop_map(present).boxed()
}

/// One of some values.
fn one_of(values: Vec<Value>) -> BoxedStrategy<Value> {
    select(values).boxed()
}

/// Each of some items, with its probability, in their order.
fn list(items: Vec<(f64, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let items: Vec<_> = items
        .into_iter()
        .map(|(weight, item)| option::weighted(weight, item))
        .collect();
    items
        .prop_map(|items| items.into_iter().flatten().collect())
        .boxed()
}

/// Volumes by name, and how often a pod has them.
const VOLUMES: [(&str, f64); 5] = [
    ("kube-api-access-1", 0.7),
    ("own", 0.3),
    ("kube-api-access-2", 0.1),
    ("tollgate-agent", 0.02),
    ("tollgate-bootstrap", 0.02),
];
/// Mount paths, and how often a container has one.
const PATHS: [(&str, f64); 5] = [
    (judge::PATH, 0.7),
    ("/data", 0.3),
    ("/tok", 0.2),
    ("/run/secrets/kubernetes.io/serviceaccount", 0.05),
    ("/var/run/secrets/kubernetes.io/serviceaccount/", 0.05),
];

fn mounts() -> BoxedStrategy<Value> {
    let mount = |path: &'static str| {
        let name = prop_oneof![
            12 => Just("kube-api-access-1"),
            2 => Just("own"),
            1 => Just("kube-api-access-2"),
            1 => select(vec!["tollgate-agent", "tollgate-bootstrap"]),
        ];
        let mount = move |name| json!({"name": name, "mountPath": path, "readOnly": true});
        name.prop_map(mount).boxed()
    };
    list(PATHS.map(|(path, weight)| (weight, mount(path))).into())
}

fn volumes() -> BoxedStrategy<Value> {
    let token = |audience: Value| {
        let token = json!({"path": "token", "expirationSeconds": 3600, "audience": audience});
        json!({"projected": {"sources": [{"serviceAccountToken": token}]}})
    };
    let content = prop_oneof![
        20 => Just(api_server::token_volume("x")),
        10 => Just(json!({"emptyDir": {}})),
        4 => Just(token(json!(ALLOWED))),
        1 => one_of(vec![token(Value::Null), token(json!("")), token(json!("api")), token(json!("x"))]),
        1 => one_of(vec![json!({"hostPath": {"path": "/"}}), json!({"projected": {"sources": "wrong"}})]),
    ];
    let volume = |name: &'static str| {
        let named = move |mut volume: Value| {
            volume["name"] = json!(name);
            volume
        };
        content.clone().prop_map(named).boxed()
    };
    list(VOLUMES.map(|(name, weight)| (weight, volume(name))).into())
}

fn container(name: &'static str) -> BoxedStrategy<Value> {
    let variable = one_of(vec![
        json!({"name": "HTTPS_PROXY", "value": "http://p"}),
        json!({"name": "NO_PROXY", "value": "a,localhost"}),
        json!({"name": "no_proxy"}),
        json!({"name": "KUBERNETES_SERVICE_HOST", "value": "10.0.0.1"}),
        json!({"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        json!({"name": "Y", "valueFrom": {"fileKeyRef": {"volumeName": "own", "path": "f", "key": "K"}}}),
        json!({"name": "Z", "valueFrom": {"fileKeyRef": {"volumeName": "tollgate-agent", "path": "f", "key": "K"}}}),
    ]);
    let security = one_of(vec![
        json!({"privileged": true}),
        json!({"runAsUser": 64430}),
        json!({"capabilities": {"add": ["NET_RAW"]}}),
        json!({"runAsUser": "wrong"}),
    ]);
    let fields = object(vec![
        ("volumeMounts", 0.8, mounts()),
        (
            "env",
            0.5,
            vec(variable, 0..4).prop_map(Value::from).boxed(),
        ),
        ("securityContext", 0.05, security),
        ("restartPolicy", 0.2, Just(json!("Always")).boxed()),
        ("x-future", 0.2, Just(json!({"kept": [1]})).boxed()),
    ]);
    let named = move |mut container: Value| {
        container["name"] = json!(name);
        container["image"] = json!("i");
        container
    };
    fields.prop_map(named).boxed()
}

fn pod() -> BoxedStrategy<Value> {
    let init = [("init", 0.5), ("tollgate", 0.05), ("native", 0.3)];
    let containers = [("agent", 0.98), ("helper", 0.3)];
    let each = |(name, weight)| (weight, container(name));
    let spec = object(vec![
        ("initContainers", 0.5, list(init.map(each).into())),
        ("containers", 0.99, list(containers.map(each).into())),
        ("volumes", 0.9, volumes()),
        (
            "automountServiceAccountToken",
            0.3,
            any::<bool>().prop_map(Value::from).boxed(),
        ),
        ("hostNetwork", 0.03, Just(json!(true)).boxed()),
        ("shareProcessNamespace", 0.03, Just(json!(true)).boxed()),
        (
            "securityContext",
            0.03,
            Just(json!({"runAsUser": 64430})).boxed(),
        ),
        ("hostPID", 0.03, Just(json!("wrong")).boxed()),
    ]);
    let label = prop_oneof![8 => Just("true"), 3 => Just("false"), 1 => Just("yes")];
    let annotations = prop_oneof![
        4 => Just(json!({"a/b~c": "d"})),
        4 => Just(json!({"tollgate.dev/port": "7443"})),
        1 => Just(json!({"tollgate.dev/token-ttl": "1s"})),
        2 => Just(Value::Null),
    ];
    let metadata = object(vec![
        (
            "labels",
            0.6,
            label
                .prop_map(|v| json!({"tollgate.dev/inject": v}))
                .boxed(),
        ),
        ("annotations", 0.5, annotations.boxed()),
    ]);
    let pod = |(metadata, spec)| json!({"metadata": metadata, "spec": spec});
    (metadata, spec).prop_map(pod).boxed()
}

fn injection() -> impl Strategy<Value = Injection> {
    select(vec![
        Injection::OptIn,
        Injection::Enabled,
        Injection::Enforced,
    ])
}

/// Any JSON at all.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z/~]{0,6}".prop_map(Value::from),
    ];
    let keys = vec![
        "metadata",
        "spec",
        "containers",
        "initContainers",
        "volumes",
        "name",
        "env",
        "labels",
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((select(keys.clone()), inner), 0..5).prop_map(|pairs| {
                let pairs = pairs
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value));
                Value::Object(pairs.collect())
            }),
        ]
    })
}

/// A property that holds because every pod is denied would prove nothing.
#[test]
fn random_pods_meet_every_kind_of_decision() {
    let config = config(&json!({"allowedAudiences": [ALLOWED], "apiAudiences": ["api"]}));
    let mut runner = TestRunner::deterministic();
    let (mut injected, mut stripped, mut denied, mut skipped) = (0, 0, 0, 0);
    for _ in 0..600 {
        let tree = (pod(), injection()).new_tree(&mut runner).unwrap();
        let (pod, injection) = tree.current();
        let context = Context::unvouched(injection, "n", &config);
        let decision = inject(&pod, &context);
        match &decision {
            Decision::Skip(_) => skipped += 1,
            Decision::Deny(_) => denied += 1,
            Decision::Patch { .. } => injected += 1,
        }
        let removes = operations(&decision).to_string().contains("\"remove\"");
        stripped += u32::from(removes);
    }
    let seen = format!(
        "injected {injected}, of them stripped {stripped}, denied {denied}, skipped {skipped}"
    );
    assert!(
        injected > 100 && stripped > 25 && denied > 100 && skipped > 50,
        "{seen}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_injected_pod_has_no_token_and_needs_nothing_more(pod in pod(), injection in injection()) {
        let config = config(&json!({"allowedAudiences": [ALLOWED], "apiAudiences": ["api"]}));
        let keys = &Vouchers::new([b"key".as_slice()]);
        let context = Context { injection: Some(injection), namespace: "n", from_node: false, config: &config, vouching: Some(Vouching { keys, now: 0 }) };
        let decision = inject(&pod, &context);
        prop_assert_eq!(&decision, &inject(&pod, &context));
        if let Decision::Patch { .. } = &decision {
            let injected = apply(&pod, &decision);
            prop_assert_eq!(judge::bare(&pod), judge::bare(&injected));
            for pod in [injected.clone(), api_server::second_pass(injected)] {
                prop_assert_eq!(judge::leaks(&pod, &[ALLOWED]), Vec::<String>::new());
                prop_assert_eq!(operations(&inject(&pod, &context)), json!([]));
                let verdict = validate(Operation::Create, &pod, None, &context);
                prop_assert!(matches!(verdict, Verdict::Allow(_)), "{:?}", verdict);
            }
        }
    }

    #[test]
    fn a_final_pod_of_an_enforced_namespace_has_no_token(pod in pod()) {
        let config = config(&json!({"allowedAudiences": [ALLOWED], "apiAudiences": ["api"]}));
        let context = Context::unvouched(Injection::Enforced, "n", &config);
        if let Verdict::Allow(_) = validate(Operation::Create, &pod, None, &context) {
            let mut leaks = judge::leaks(&pod, &[ALLOWED]);
            // Without a sidecar there is nothing that shared processes would reach.
            leaks.retain(|leak| leak != "shareProcessNamespace");
            prop_assert_eq!(leaks, Vec::<String>::new());
        }
    }

    #[test]
    fn nothing_panics(pod in json_value(), old in json_value(), injection in injection()) {
        let config = config(&json!(null));
        let context = Context::unvouched(injection, "n", &config);
        let _ = inject(&pod, &context);
        for (operation, subresource) in [("CREATE", ""), ("UPDATE", "ephemeralcontainers"), ("UPDATE", "resize")] {
            let _ = validate(Operation::new(operation, subresource), &pod, Some(&old), &context);
        }
    }
}
