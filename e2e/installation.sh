# shellcheck shell=bash
# Sourced, at the top of the repository, by the scripts that take an installation through its life by docs/operations.md. Owns how they
# speak and wait, how a section's commands are run, what counts as an object of ours, and the namespaces that one script uses: `ns`, managed
# for its time, and `example`, that of manifests/examples. The sourcing script sets `me`.

export KUBECONFIG=${KUBECONFIG:-$PWD/target/kind/kubeconfig}
kubectl=$PWD/target/kind/kubectl
[ -x "$kubectl" ] || kubectl=$(command -v kubectl)
work=$(mktemp -d)
ns=tollgate-${me:?}
example=my-agents
pod=none
injection=tollgate.dev/injection
part_of=app.kubernetes.io/part-of=tollgate
limit=120

say() { echo "$me: $*"; }
die() {
    say "$*" >&2
    exit 1
}
leave() {
    "$kubectl" delete namespace "$ns" "$example" --wait=false --ignore-not-found >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap leave EXIT
until_true() { # WHAT COMMAND...
    local what=$1 begun=$SECONDS
    shift
    until "$@" 2>"$work/error"; do
        ((SECONDS - begun < limit)) || die "waited $limit s in vain: $what; $(tail -n 5 "$work/error")"
        sleep 0.5
    done
}

# documented SECTION [EDIT]: runs the commands of one section of docs/operations.md for the example's agent, with one more sed command
# where given; what they print is left in output.
documented() {
    awk -v section="$1" '
        /^##+ / { inside = ($0 ~ "^##+ " section "$") }
        inside && /^```sh/ { code = 1; next }
        /^```/ { code = 0 }
        inside && code' docs/operations.md | sed -E "s/\bNS\b/$example/g; s/\bPOD\b/$pod/g; s/\bAGENT\b/agent/g;${2:-}" >"$work/commands"
    [ -s "$work/commands" ] || die "docs/operations.md has no commands in the section $1"
    say "as documented in '$1':"
    sed 's/^/    /' "$work/commands"
    mkdir -p "$work/bin"
    ln -sf "$kubectl" "$work/bin/kubectl"
    ln -sf "$PWD/target/debug/tollgate-e2e" "$work/bin/tollgate-e2e"
    (cd "${installed:-manifests}" && PATH=$work/bin:$PATH bash -euo pipefail "$work/commands") >"$work/output" || die "$(tail -n 20 "$work/output")"
}
printed() { grep -q "$1" "$work/output" || die "that did not print $1: $(tail -n 20 "$work/output")"; }

# Every object of ours, of whatever kind, as KIND/NAMESPACE/NAME: by the label, and all that is cluster-wide by its name. Events are no
# objects of ours, and what was made for a pod or a Service goes with it.
ours() {
    local kinds
    kinds=$("$kubectl" api-resources --verbs=list,delete -o name | grep -vE '^events(\.|$)' | paste -sd,)
    "$kubectl" get "$kinds" --all-namespaces -l "$part_of" --ignore-not-found -o "$columns" --no-headers
    kinds=$("$kubectl" api-resources --verbs=list,delete --namespaced=false -o name | grep -vE '^(namespaces|nodes|csinodes\.storage\.k8s\.io)$' | paste -sd,)
    "$kubectl" get "$kinds" --ignore-not-found -o "$columns" --no-headers | grep -E '[ .]tollgate[-.]|[ .]tollgate$' | grep -v tollgate-e2e || true
}
columns='custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name'
nothing_is_left() {
    ours | sort -u >"$work/left"
    [ ! -s "$work/left" ]
}

# The managed namespaces and their labels, so that an uninstall can be undone.
note_managed() {
    "$kubectl" get namespaces -l "$injection" -o json |
        jq -r --arg key "$injection" '.items[] | select(.metadata.deletionTimestamp == null) | "\(.metadata.name) \($key)=\(.metadata.labels[$key])"' >"$work/managed"
}
manage_again() {
    local name label
    while read -r name label; do
        "$kubectl" label namespace "$name" "$label" --overwrite >/dev/null
    done <"$work/managed"
    until_true "the grant in $ns" "$kubectl" -n "$ns" get rolebinding tollgate -o name >/dev/null
    until_true "pods are injected after the install" is_injected
}

is_injected() {
    "$kubectl" -n "$ns" run probe --image=agent:none --dry-run=server -o json | jq -e '[.spec.initContainers[]?.name] == ["tollgate"]' >/dev/null
}
is_bare() {
    "$kubectl" -n "$ns" run probe --image=agent:none --dry-run=server -o json | jq -e '.spec.initContainers == null' >/dev/null
}

# The example's namespace, with the image of the tests in place of one that a registry would serve.
apply_example() {
    "$kubectl" kustomize manifests/examples | sed -E 's#image: registry\.k8s\.io/kubectl:.*#image: tollgate-e2e/agent:dev#' >"$work/example.yaml"
    grep -q tollgate-e2e/agent:dev "$work/example.yaml" || die "the example names another image than this script knows"
    "$kubectl" apply -f "$work/example.yaml" >/dev/null
}

# Makes `ns`, and waits until its pods are injected.
manage_ns() {
    "$kubectl" create namespace "$ns" --dry-run=client -o yaml | "$kubectl" apply -f - >/dev/null
    "$kubectl" label namespace "$ns" "$injection=enabled" --overwrite >/dev/null
    until_true "the grant in $ns" "$kubectl" -n "$ns" get rolebinding tollgate -o name >/dev/null
    # A Service may refuse connections for a moment after its pods are ready: kube-proxy follows once a second.
    until_true "pods of $ns are injected" is_injected
}
