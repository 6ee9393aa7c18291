//! Unmodified clients through the sidecar and without it: the same command in an injected pod and in one that is not, with the
//! same service account, must say the same, once names, ids and times are taken out.

use serde_json::json;
use tollgate_e2e::agent::{Agent, AgentPod};
use tollgate_e2e::audit::AuditLog;
use tollgate_e2e::compare::{self, Differences, KUBECTL, PRELUDE, STREAMS};
use tollgate_e2e::namespace::TestNamespace;
use tollgate_shared::contract::{Injection, POD_LABEL};

/// Makes an HTTP request as a client would with the pod's own files, and shows all of the answer.
const REQUEST: &str = r#"request() {
    files=/var/run/secrets/kubernetes.io/serviceaccount
    curl -sS --http1.1 --max-time 30 --cacert $files/ca.crt -H "Authorization: Bearer $(cat $files/token)" \
        -D /tmp/head -o /tmp/body "$@" "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT$path" || echo "curl: $?"
    # Names of header fields have no case, and their order no meaning.
    tr -d '\r' </tmp/head | sed -n '1s/^/status /p;1d;/^$/d;s/^[^:]*/header \L&/p' | sort -r
    if grep -qi '^content-encoding: gzip' /tmp/head; then gzip -dc </tmp/body >/tmp/plain && mv /tmp/plain /tmp/body; fi
    if head -c 2 /tmp/body | grep -q '^[{a-z]'; then sed 's/x\{100,\}/xxx/' /tmp/body; else echo "body $(sha256sum </tmp/body)"; fi
}
namespace=$(cat /var/run/secrets/kubernetes.io/serviceaccount/namespace)
configmaps=/api/v1/namespaces/$namespace/configmaps
head -c 200000 /dev/zero | tr '\0' x >/tmp/large
"#;

/// The pod behind the sidecar and the pod without one. Each script finds its pod's name in `$POD`, and a third pod, `target`, to
/// work on.
struct Pair {
    injected: Agent,
    direct: Agent,
    log: Option<AuditLog>,
}

impl Pair {
    async fn start(namespace: &TestNamespace) -> anyhow::Result<Self> {
        let log = namespace.cluster.audit_log()?;
        namespace
            .allow(json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]))
            .await?;
        let image = &namespace.cluster.config.agent_image;
        // Names of one length, or tables would differ.
        let pod = |name: &str| {
            AgentPod::new(name, image)
                .container_field("env", json!([{"name": "POD", "value": name}]))
        };
        let target = pod("target").label(POD_LABEL, "false").container_field(
            "command",
            json!([
                "sh",
                "-c",
                "for n in 1 2 3; do echo line $n; done; exec cat"
            ]),
        );
        let target = target.container_field("stdin", json!(true));
        let direct = pod("without").label(POD_LABEL, "false");
        let injected = pod("proxied");
        let (_, direct, injected) = tokio::try_join!(
            target.start(namespace),
            direct.start(namespace),
            injected.start(namespace)
        )?;
        Ok(Self {
            injected,
            direct,
            log,
        })
    }

    /// Runs scripts on both sides one after the other; each must say the same on both, and hold the given part. All that differ
    /// are shown together.
    async fn same(&self, scripts: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut differences = Differences::default();
        for (script, part) in scripts {
            let whole = format!("{PRELUDE}{REQUEST}{script}");
            let (ours, theirs) =
                tokio::try_join!(self.injected.sh(&whole), self.direct.sh(&whole))?;
            differences.compare(script, part, (&ours, "proxied"), (&theirs, "without"));
        }
        differences.none()
    }

    /// Every call has its two lines, and each that was forwarded its event.
    async fn joined(mut self) -> anyhow::Result<()> {
        self.injected.joined(self.log.as_mut()).await?;
        Ok(())
    }
}

async fn with_pair(test: impl AsyncFnOnce(&Pair) -> anyhow::Result<()>) -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        let pair = Pair::start(namespace).await?;
        test(&pair).await?;
        pair.joined().await
    })
    .await
}

#[tokio::test]
async fn kubectl_says_the_same() -> anyhow::Result<()> {
    with_pair(async |pair| pair.same(KUBECTL).await).await
}

#[tokio::test]
async fn exec_cp_and_port_forward_say_the_same() -> anyhow::Result<()> {
    with_pair(async |pair| {
        pair.same(STREAMS).await?;
        let spdy = compare::over_spdy(STREAMS);
        let spdy: Vec<_> = spdy
            .iter()
            .map(|(script, part)| (script.as_str(), *part))
            .collect();
        pair.same(&spdy).await
    })
    .await
}

#[tokio::test]
async fn answers_are_the_same_in_status_headers_and_body() -> anyhow::Result<()> {
    with_pair(async |pair| {
        // Large enough for the API server to compress a list of it.
        let fill = "head -c 200000 /dev/zero | tr '\\0' x >/tmp/large; kubectl create configmap large --from-file=/tmp/large";
        pair.direct.sh(fill).await?.success()?;
        pair.same(&[
            ("path=$configmaps/large; request -H 'Accept: application/json'", "status HTTP/1.1 200 OK"),
            ("path=$configmaps; request -H 'Accept-Encoding: gzip'", "header content-encoding: gzip"),
            ("path=$configmaps/large; request -H 'Accept: application/vnd.kubernetes.protobuf'", "application/vnd.kubernetes.protobuf"),
            ("path=$configmaps; request -H 'Accept: application/json;as=Table;g=meta.k8s.io;v=v1'", "\"kind\": \"Table\""),
            ("path=$configmaps/large; request -H 'Accept: application/yaml'", "application/yaml"),
            ("path=$configmaps/large; request -H 'Accept: text/plain'", "406"),
            ("path=$configmaps/large; request -I | grep -v ^body", "405"),
            ("path=$configmaps/none; request", "404"),
            ("path=/nothing/here; request", "status HTTP/1.1 40"),
            ("path=/version; request", "gitVersion"),
            ("path=/healthz; request", "ok"),
            ("path=/api/v1/namespaces/kube-system/secrets; request", "403"),
            ("path=$configmaps; request -X POST -H 'Content-Type: application/json' -d '{'", "400"),
            ("path=$configmaps; request -X POST -H 'Content-Type: application/json' -d '{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"UP\"}}'", "422"),
            ("path=$configmaps; request -X POST -H 'Content-Type: application/json' -H 'Expect: 100-continue' --data-binary @/tmp/large", "40"),
            ("path=$configmaps; request -X POST -H 'Content-Type: application/json' -H 'Transfer-Encoding: chunked' -d '{}'", "422"),
            ("path=$configmaps/large; request -X PATCH -H 'Content-Type: text/plain' -d x", "415"),
            ("path=$configmaps/none; request -X DELETE", "404"),
            ("path=\"$configmaps?watch=1&timeoutSeconds=1&fieldSelector=metadata.name=none\"; request", "status HTTP/1.1 200 OK"),
            ("path=\"$configmaps?limit=1&continue=garbage\"; request", "400"),
        ])
        .await
    })
    .await
}
