//! What unmodified kubectl says through the sidecar and without it must be the same, once names, ids and times are taken out. The
//! scripts find a name of their side in `$POD`, a folder of their own in `$T`, and a pod `target` to work on, which says three
//! lines and then repeats its input.

use std::fmt::Write as _;

use anyhow::ensure;

use crate::exec::Output;

/// Comes before every script.
pub const PRELUDE: &str = r#"T=${WORK:-/tmp}
# Runs a command that has no end of its own until its output holds the text.
until_says() {
    text=$1
    shift
    # Here, because the background may be slower than the first look; and nothing said before counts.
    : >$T/said
    # A shell gives what it puts into the background no input but a named one.
    { "$@" <&4 >$T/said 2>&1 & } 4<&0
    until grep -q "$text" $T/said; do kill -0 $! || return; sleep 0.1; done
    kill $!
    cat $T/said
}
# A manifest; what kubectl itself would print of one differs between its versions.
configmap() {
    echo "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"$1\"},\"data\":{\"n\":\"$2\"}}"
}
# Opened for both, it is an input that never ends.
[ -p $T/silence ] || mkfifo $T/silence
"#;

/// Scripts of kubectl, each with a part of what it says.
pub const KUBECTL: &[(&str, &str)] = &[
    ("kubectl get configmap none", "NotFound"),
    (
        "kubectl create configmap $POD --from-literal=a=b",
        "configmap/POD created",
    ),
    (
        "kubectl create configmap $POD --from-literal=a=b",
        "already exists",
    ),
    (
        "kubectl create configmap x --from-literal=a=b --dry-run=server -o yaml",
        "a: b",
    ),
    (
        "kubectl patch configmap $POD -p '{\"data\":{\"a\":\"c\"}}'",
        "patched",
    ),
    (
        "kubectl patch configmap $POD --type=json -p '[{\"op\":\"add\",\"path\":\"/data/x\",\"value\":\"y\"}]'",
        "patched",
    ),
    (
        "kubectl patch configmap $POD --type=merge -p '{\"data\":{\"x\":null}}'",
        "patched",
    ),
    (
        "KUBE_EDITOR='sed -i /a:.c$/s/c$/d/' kubectl edit configmap $POD",
        "edited",
    ),
    (
        "kubectl get configmap $POD -o jsonpath={.data}",
        "{\"a\":\"d\"}",
    ),
    ("kubectl label configmap $POD k=v", "labeled"),
    (
        "kubectl get configmaps -l k=v -o wide --field-selector metadata.name=$POD",
        "POD",
    ),
    ("kubectl get configmap $POD -o yaml", "kind: ConfigMap"),
    ("configmap a-$POD 1 | kubectl apply -f -", "created"),
    ("configmap a-$POD 1 | kubectl apply -f -", "unchanged"),
    ("configmap a-$POD 2 | kubectl apply -f -", "configured"),
    (
        "configmap s-$POD 1 | kubectl apply --server-side -f -",
        "serverside-applied",
    ),
    (
        "configmap s-$POD 2 | kubectl diff -f - | grep '^[-+] '",
        "\"n\": \"2\"",
    ),
    (
        "until_says $POD kubectl get configmap $POD --watch -o name",
        "configmap/POD",
    ),
    (
        "kubectl wait --for=jsonpath='{.metadata.name}'=$POD configmap/$POD --timeout=60s",
        "condition met",
    ),
    ("kubectl delete configmap $POD a-$POD s-$POD", "deleted"),
    (
        "kubectl auth whoami -o yaml",
        "authentication.kubernetes.io/credential-id",
    ),
    ("kubectl auth can-i list secrets -n kube-system", "no"),
    ("kubectl get secrets -n kube-system", "Forbidden"),
    ("kubectl version", "Server Version"),
    (
        "kubectl api-resources --api-group=apps -o name",
        "deployments.apps",
    ),
    ("kubectl explain pod.spec.nodeName", "nodeName"),
    ("kubectl logs target", "line 3"),
    ("kubectl logs target --tail=1", "line 3"),
    ("until_says 'line 3' kubectl logs -f target", "line 1"),
    ("kubectl logs none", "NotFound"),
];

/// The same for exec, attach, cp and port-forward.
pub const STREAMS: &[(&str, &str)] = &[
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
        "script -qec 'kubectl exec -it target -- sh -c \"tty | tr 0-9 N\"' /dev/null <>$T/silence",
        "/dev/pts/N",
    ),
    (
        "script -qec 'stty rows 42 cols 132; kubectl exec -it target -- \
         sh -c \"until stty size | grep 42; do sleep 0.1; done\"' /dev/null <>$T/silence",
        "42 132",
    ),
    ("kubectl exec target -c none -- true", "container"),
    // Both attach to the same container, which repeats to both what either says.
    (
        "exec 3<>$T/silence; echo from $POD >&3; \
         until_says \"from $POD\" kubectl attach -i target <&3 | grep -m1 \"from $POD\"",
        "from POD",
    ),
    // kubectl prints what the remote tar says on its own stdout, unless it has ended before that comes.
    (
        "head -c 100000 /dev/urandom >$T/file && kubectl cp $T/file target:/tmp/$POD && \
         kubectl cp target:/tmp/$POD $T/back >/dev/null && cmp $T/file $T/back && echo same",
        "same",
    ),
    (
        "kubectl port-forward pod/${FORWARD:-proxied} ${PORT:-18080}:6480 >$T/forward 2>&1 & \
         until curl -s http://127.0.0.1:${PORT:-18080}/livez -o $T/live -w '%{http_code}\\n' | grep 200; do sleep 0.2; done; kill $!",
        "200",
    ),
];

/// The same over SPDY, as clients before Kubernetes 1.30 do it.
#[must_use]
pub fn over_spdy(scripts: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    let variables =
        "export KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false KUBECTL_PORT_FORWARD_WEBSOCKETS=false;";
    let over = |(script, part): &(&str, &'static str)| (format!("{variables} {script}"), *part);
    scripts.iter().map(over).collect()
}

/// Everything in which two sides differ.
#[derive(Debug, Default)]
pub struct Differences(String);

impl Differences {
    /// Compares what one script said on both sides, each with its name; both must hold `part`.
    pub fn compare(
        &mut self,
        script: &str,
        part: &str,
        (ours, our_name): (&Output, &str),
        (theirs, their_name): (&Output, &str),
    ) {
        let ours = normal(&format!("{ours:?}"), our_name);
        let theirs = normal(&format!("{theirs:?}"), their_name);
        if ours != theirs {
            let both = format!("---- with the sidecar\n{ours}\n---- without\n{theirs}");
            self.add(script, &both);
        } else if !ours.contains(part) {
            self.add(script, &format!("---- does not say {part}\n{ours}"));
        }
    }

    fn add(&mut self, script: &str, what: &str) {
        // Writing to a text does not fail.
        write!(self.0, "\n==== {script}\n{what}\n").unwrap_or_default();
    }

    /// # Errors
    /// There is a difference; the message shows all.
    pub fn none(self) -> anyhow::Result<()> {
        ensure!(self.0.is_empty(), "{}", self.0);
        Ok(())
    }
}

/// Takes out what differs between two pods and two moments: the pod's name, UUIDs, versions and times.
fn normal(text: &str, pod: &str) -> String {
    let text = text.replace(pod, "POD");
    // kubectl before 1.34 says so when its own two ends of a stream close in an unlucky order.
    let noise = |line: &&str| line.contains("Unknown stream id") && line.contains("websocket.go");
    let lines = text.lines().filter(|line| !noise(line)).map(|line| {
        let lower = line.to_ascii_lowercase();
        // A field of JSON is in quotes.
        let start = lower.trim_start();
        let start = start.strip_prefix('"').unwrap_or(start);
        let differs = [
            "resourceversion",
            "creationtimestamp",
            "time\"",
            "time:",
            "header date:",
            "header audit-id:",
        ];
        let head = differs.iter().find(|key| start.starts_with(**key));
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
