//! Unmodified clients through the sidecar and without it: the same command in an injected pod and in one that is not, with the
//! same service account, must say the same, once names, ids and times are taken out.

use std::fmt::Write as _;

use serde_json::json;
use tollgate_e2e::agent::{Agent, AgentPod};
use tollgate_e2e::audit::AuditLog;
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
# Runs a command that has no end of its own until its output holds the text.
until_says() {
    text=$1
    shift
    # A shell gives what it puts into the background no input but a named one.
    { "$@" <&4 >/tmp/said 2>&1 & } 4<&0
    until grep -q "$text" /tmp/said; do kill -0 $! || return; sleep 0.1; done
    kill $!
    cat /tmp/said
}
# Opened for both, it is an input that never ends.
[ -p /tmp/silence ] || mkfifo /tmp/silence
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
        let mut differences = String::new();
        for (script, part) in scripts {
            let script = format!("{REQUEST}{script}");
            let (ours, theirs) =
                tokio::try_join!(self.injected.sh(&script), self.direct.sh(&script))?;
            let ours = normal(&format!("{ours:?}"), "proxied");
            let theirs = normal(&format!("{theirs:?}"), "without");
            if ours != theirs {
                write!(
                    differences,
                    "\n==== {script}\n---- with the sidecar\n{ours}\n---- without\n{theirs}\n"
                )?;
            } else if !ours.contains(part) {
                write!(
                    differences,
                    "\n==== {script}\n---- does not say {part}\n{ours}\n"
                )?;
            }
        }
        assert!(
            differences.is_empty(),
            "{}",
            differences.replace(REQUEST, "")
        );
        Ok(())
    }

    /// Every call has its two lines, and each that was forwarded its event.
    async fn joined(mut self) -> anyhow::Result<()> {
        self.injected.joined(self.log.as_mut()).await?;
        Ok(())
    }
}

/// Takes out what differs between two pods and two moments: the pod's name, UUIDs, versions and times.
fn normal(text: &str, pod: &str) -> String {
    let text = text.replace(pod, "POD");
    let lines = text.lines().map(|line| {
        let lower = line.to_ascii_lowercase();
        let differs = [
            "resourceversion",
            "creationtimestamp",
            "\"time\"",
            "time:",
            "header date:",
            "header audit-id:",
        ];
        let head = differs
            .iter()
            .find(|key| lower.trim_start().starts_with(**key));
        head.map_or_else(|| words(line), |key| format!("{key} …"))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Replaces UUIDs, numbers of five digits and more, and ages.
fn words(line: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut normal = String::new();
    let mut rest = line;
    while !rest.is_empty() {
        let length = rest
            .find(|c| !is_word(c))
            .unwrap_or(rest.len())
            .max(rest.chars().next().map_or(0, char::len_utf8));
        let (word, after) = rest.split_at(length);
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let uuid = word.len() == 36 && word.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
        let version = word.len() >= 4 && digits(word);
        let time =
            word.len() >= 10 && word.starts_with("20") && word.contains("-") && word.contains('T');
        let age = word.len() <= 4 && word.strip_suffix(['s', 'm']).is_some_and(digits);
        normal.push_str(if uuid || version || time || age {
            "…"
        } else {
            word
        });
        rest = after;
    }
    normal
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
    with_pair(async |pair| {
        pair.same(&[
            ("kubectl get configmap none", "NotFound"),
            ("kubectl create configmap $POD --from-literal=a=b", "configmap/POD created"),
            ("kubectl create configmap $POD --from-literal=a=b", "already exists"),
            ("kubectl create configmap x --from-literal=a=b --dry-run=server -o yaml", "a: b"),
            ("kubectl patch configmap $POD -p '{\"data\":{\"a\":\"c\"}}'", "patched"),
            ("kubectl patch configmap $POD --type=json -p '[{\"op\":\"add\",\"path\":\"/data/x\",\"value\":\"y\"}]'", "patched"),
            ("kubectl patch configmap $POD --type=merge -p '{\"data\":{\"x\":null}}'", "patched"),
            ("KUBE_EDITOR='sed -i /a:.c$/s/c$/d/' kubectl edit configmap $POD", "edited"),
            ("kubectl get configmap $POD -o jsonpath={.data}", "{\"a\":\"d\"}"),
            ("kubectl label configmap $POD k=v", "labeled"),
            ("kubectl get configmaps -l k=v -o wide --field-selector metadata.name=$POD", "POD"),
            ("kubectl get configmap $POD -o yaml", "kind: ConfigMap"),
            ("kubectl create configmap a-$POD --from-literal=n=1 --dry-run=client -o yaml | kubectl apply -f -", "created"),
            ("kubectl create configmap a-$POD --from-literal=n=1 --dry-run=client -o yaml | kubectl apply -f -", "unchanged"),
            ("kubectl create configmap a-$POD --from-literal=n=2 --dry-run=client -o yaml | kubectl apply -f -", "configured"),
            ("kubectl create configmap s-$POD --from-literal=n=1 --dry-run=client -o yaml | kubectl apply --server-side -f -", "serverside-applied"),
            ("kubectl create configmap s-$POD --from-literal=n=2 --dry-run=client -o yaml | kubectl diff -f - | grep '^[-+] '", "\"n\": \"2\""),
            ("until_says $POD kubectl get configmap $POD --watch -o name", "configmap/POD"),
            ("kubectl wait --for=jsonpath='{.metadata.name}'=$POD configmap/$POD --timeout=60s", "condition met"),
            ("kubectl delete configmap $POD a-$POD s-$POD", "deleted"),
            ("kubectl auth whoami -o yaml", "authentication.kubernetes.io/credential-id"),
            ("kubectl auth can-i list secrets -n kube-system", "no"),
            ("kubectl get secrets -n kube-system", "Forbidden"),
            ("kubectl version", "Server Version"),
            ("kubectl api-resources --api-group=apps -o name", "deployments.apps"),
            ("kubectl explain pod.spec.nodeName", "nodeName"),
            ("kubectl logs target", "line 3"),
            ("kubectl logs target --tail=1", "line 3"),
            ("until_says 'line 3' kubectl logs -f target", "line 1"),
            ("kubectl logs none", "NotFound"),
        ])
        .await
    })
    .await
}

#[tokio::test]
async fn exec_cp_and_port_forward_say_the_same() -> anyhow::Result<()> {
    let scripts = [
        ("kubectl exec target -- echo hello", "hello"),
        (
            "kubectl exec target -- sh -c 'echo out; echo err >&2; exit 3'",
            "exit code 3",
        ),
        ("echo data | kubectl exec -i target -- cat", "data"),
        (
            "head -c 3000000 /dev/zero | kubectl exec -i target -- wc -c",
            "…",
        ),
        (
            "kubectl exec target -- head -c 3000000 /dev/zero | sha256sum",
            "-",
        ),
        (
            "script -qec 'kubectl exec -it target -- sh -c \"tty | tr 0-9 N\"' /dev/null <>/tmp/silence",
            "/dev/pts/N",
        ),
        (
            "script -qec 'stty rows 42 cols 132; kubectl exec -it target -- \
             sh -c \"until stty size | grep 42; do sleep 0.1; done\"' /dev/null <>/tmp/silence",
            "42 132",
        ),
        ("kubectl exec target -c none -- true", "container"),
        // Both attach to the same container, which repeats to both what either says.
        (
            "exec 3<>/tmp/silence; echo from $POD >&3; \
             until_says \"from $POD\" kubectl attach -i target <&3 | grep -m1 \"from $POD\"",
            "from POD",
        ),
        // kubectl prints what the remote tar says on its own stdout, unless it has ended before that comes.
        (
            "head -c 100000 /dev/urandom >/tmp/file && kubectl cp /tmp/file target:/tmp/$POD && \
             kubectl cp target:/tmp/$POD /tmp/back >/dev/null && cmp /tmp/file /tmp/back && echo same",
            "same",
        ),
        (
            "kubectl port-forward pod/proxied 18080:6480 >/tmp/forward 2>&1 & \
             until curl -s http://127.0.0.1:18080/livez -o /tmp/live -w '%{http_code}\\n' | grep 200; do sleep 0.2; done; kill $!",
            "200",
        ),
    ];
    with_pair(async |pair| {
        pair.same(&scripts).await?;
        // The same over SPDY, as clients before Kubernetes 1.30 do it.
        let spdy: Vec<_> = scripts
            .iter()
            .map(|(script, part)| {
                let variables = "export KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false KUBECTL_PORT_FORWARD_WEBSOCKETS=false;";
                (format!("{variables} {script}"), *part)
            })
            .collect();
        let spdy: Vec<_> = spdy.iter().map(|(script, part)| (script.as_str(), *part)).collect();
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
