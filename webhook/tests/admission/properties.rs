//! Random pods, made of the pieces that decisions turn on and of pieces that are wrong: never a panic, the same answer twice,
//! and no token in reach of an agent unless denied.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use tollgate_shared::contract::Injection;
use tollgate_webhook::inject::{Context, Decision, inject};
use tollgate_webhook::validate::{Operation, Verdict, validate};

use crate::case::{apply, config, operations};
use crate::{api_server, judge};

const ALLOWED: &str = "sts.amazonaws.com";

/// One of some values.
fn one_of(values: Vec<Value>) -> impl Strategy<Value = Value> {
    select(values)
}

/// An object of fields, each there or not.
fn object(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> impl Strategy<Value = Value> {
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(key, value)| option::weighted(0.4, value).prop_map(move |value| (key, value)))
        .collect();
    fields.prop_map(|fields| {
        let present = fields.into_iter();
        let present = present.filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Value::Object(present.collect::<Map<String, Value>>())
    })
}

fn volume_names() -> Vec<&'static str> {
    vec![
        "data",
        "kube-api-access-1",
        "kube-api-access-2",
        "own",
        "tollgate-agent",
        "tollgate-bootstrap",
    ]
}

fn mount() -> impl Strategy<Value = Value> {
    let paths = vec![
        judge::PATH,
        judge::PATH,
        "/var/run/secrets/kubernetes.io/serviceaccount/",
        "/run/secrets/kubernetes.io/serviceaccount",
        "/data",
        "/tok",
    ];
    (select(volume_names()), select(paths))
        .prop_map(|(name, path)| json!({"name": name, "mountPath": path, "readOnly": true}))
}

fn volume() -> impl Strategy<Value = Value> {
    let token = |audience: Option<&str>, seconds: u32| {
        let mut token = json!({"path": "token", "expirationSeconds": seconds});
        if let Some(audience) = audience {
            token["audience"] = json!(audience);
        }
        json!({"projected": {"sources": [{"serviceAccountToken": token}]}})
    };
    let content = one_of(vec![
        json!({"emptyDir": {}}),
        json!({"projected": null}),
        api_server::token_volume("x"),
        api_server::token_volume("x"),
        token(None, 3600),
        token(Some(""), 3607),
        token(Some("api"), 3600),
        token(Some(ALLOWED), 3600),
        json!({"hostPath": {"path": "/"}}),
        json!({"projected": {"sources": "wrong"}}),
    ]);
    (select(volume_names()), content).prop_map(|(name, mut volume)| {
        volume["name"] = json!(name);
        volume
    })
}

fn container(name: &'static str) -> impl Strategy<Value = Value> {
    let env = one_of(vec![
        json!({"name": "HTTPS_PROXY", "value": "http://p"}),
        json!({"name": "NO_PROXY", "value": "a,localhost"}),
        json!({"name": "no_proxy"}),
        json!({"name": "KUBERNETES_SERVICE_HOST", "value": "10.0.0.1"}),
        json!({"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        json!(null),
    ]);
    let security = one_of(vec![
        json!({}),
        json!({"privileged": true}),
        json!({"runAsUser": 64430}),
        json!({"capabilities": {"add": ["NET_RAW"]}}),
        json!({"runAsUser": "wrong"}),
    ]);
    object(vec![
        (
            "volumeMounts",
            vec(mount(), 0..4).prop_map(Value::from).boxed(),
        ),
        ("env", vec(env, 0..4).prop_map(Value::from).boxed()),
        (
            "securityContext",
            option::weighted(0.2, security)
                .prop_map(Value::from)
                .boxed(),
        ),
        ("restartPolicy", Just(json!("Always")).boxed()),
        ("x-future", Just(json!({"kept": [1]})).boxed()),
    ])
    .prop_map(move |mut container| {
        container["name"] = json!(name);
        container["image"] = json!("i");
        container
    })
}

fn containers(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let each: Vec<_> = names
        .iter()
        .map(|name| option::weighted(0.6, container(name)))
        .collect();
    each.prop_map(|each| Value::from(each.into_iter().flatten().collect::<Vec<_>>()))
}

fn pod() -> impl Strategy<Value = Value> {
    let rarely = |value: Value| {
        option::weighted(0.1, Just(value))
            .prop_map(Value::from)
            .boxed()
    };
    let spec = object(vec![
        (
            "initContainers",
            containers(&["init", "tollgate", "native"]).boxed(),
        ),
        (
            "containers",
            containers(&["agent", "helper", "other"]).boxed(),
        ),
        ("volumes", vec(volume(), 0..4).prop_map(Value::from).boxed()),
        (
            "automountServiceAccountToken",
            any::<bool>().prop_map(Value::from).boxed(),
        ),
        ("hostNetwork", rarely(json!(true))),
        ("shareProcessNamespace", rarely(json!(true))),
        ("securityContext", rarely(json!({"runAsUser": 64430}))),
        ("hostPID", rarely(json!("wrong"))),
    ]);
    let label = select(vec!["true", "true", "true", "false", "yes"]);
    let metadata = object(vec![
        (
            "labels",
            label
                .prop_map(|v| json!({"tollgate.dev/inject": v}))
                .boxed(),
        ),
        (
            "annotations",
            one_of(vec![
                json!({"a/b~c": "d"}),
                json!({"tollgate.dev/port": "7443"}),
                json!({"tollgate.dev/token-ttl": "1s"}),
                json!(null),
            ])
            .boxed(),
        ),
    ]);
    (metadata, spec).prop_map(|(metadata, spec)| json!({"metadata": metadata, "spec": spec}))
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_injected_pod_has_no_token_and_needs_nothing_more(pod in pod(), injection in injection()) {
        let config = config(&json!({"allowedAudiences": [ALLOWED], "apiAudiences": ["api"]}));
        let context = Context { injection: Some(injection), namespace: "n", from_node: false, config: &config };
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
        let context = Context {
            injection: Some(Injection::Enforced), namespace: "n", from_node: false, config: &config,
        };
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
        let context = Context { injection: Some(injection), namespace: "n", from_node: false, config: &config };
        let _ = inject(&pod, &context);
        for (operation, subresource) in [("CREATE", ""), ("UPDATE", "ephemeralcontainers"), ("UPDATE", "resize")] {
            let _ = validate(Operation::new(operation, subresource), &pod, Some(&old), &context);
        }
    }
}
