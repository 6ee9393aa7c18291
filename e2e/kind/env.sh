# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here is read by the scripts that source this
# Sourced by every script here. Owns the names, paths and cache keys that they share: which Kubernetes,
# which cluster, where built parts are cached, where a cluster's files go.
# Inputs: K8S_VERSION, KIND_CLUSTER, TOLLGATE_CACHE, TOLLGATE_KIND_DIR.

umask 022
kind_src=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd -- "$kind_src/../.." && pwd)

. "$kind_src/progress.sh"

# The minors that have a Go module under k8s/; its require line pins the patch release.
K8S_VERSION=${K8S_VERSION:-1.37}
k8s_module=$kind_src/k8s/$K8S_VERSION
if ! [[ $K8S_VERSION =~ ^1\.[0-9]+$ && -f $k8s_module/go.mod ]]; then
  die 64 "K8S_VERSION=$K8S_VERSION is not one of: $(cd "$kind_src/k8s" && echo *)"
fi
k8s_release=$(sed -n 's|^.*k8s\.io/kubernetes \(v1\.[0-9.]*\).*|\1|p' "$k8s_module/go.mod")

KIND_CLUSTER=${KIND_CLUSTER:-tollgate}
if ! [[ $KIND_CLUSTER =~ ^[a-z0-9][a-z0-9-]{0,39}$ ]]; then
  die 64 "KIND_CLUSTER=$KIND_CLUSTER: want lower-case letters, digits and dashes, at most 40"
fi
control_plane=$KIND_CLUSTER-control-plane

# What other programs read of this cluster: kubeconfig, audit.log, kubectl, env.
out=${TOLLGATE_KIND_DIR:-$repo/target/kind}
[[ $KIND_CLUSTER == tollgate || ${TOLLGATE_KIND_DIR:-} ]] || out=$out/$KIND_CLUSTER

[[ $out == /* ]] || out=$PWD/$out

# What is kept between runs: built parts, Docker's store, and for each cluster what its node mounts.
cache=${TOLLGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tollgate-kind}
[[ $cache == /* ]] || die 64 "TOLLGATE_CACHE=$cache: want an absolute path"
state=$cache/clusters/$KIND_CLUSTER

# recipe PATH...: short hash of the contents of what something is built from; part of every cache key.
recipe() { find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 cat | sha256sum | cut -c1-12; }

# The directory of what `binaries WHAT` builds.
binaries_dir() {
  case $1 in
    kubernetes) echo "$cache/kubernetes-$k8s_release-$(recipe "$kind_src/binaries" "$k8s_module"/go.*)" ;;
    *) echo "$cache/$1-$(recipe "$kind_src/binaries" "$kind_src/tools/$1")" ;;
  esac
}

# The node image that `node-image` builds, and the one that a registry has.
built_node_image() {
  echo "tollgate-e2e/node:$k8s_release-$(recipe "$kind_src"/{node-image,node.Dockerfile,node,rootfs,binaries,tools} \
    "$k8s_module"/go.*)"
}
registry_node_image() { cat "$k8s_module/kindest-node"; }

# One `up` or `down` at a time; file 9 holds the lock until the script ends.
take_lock() {
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  command -v flock >/dev/null || return 0
  flock -n 9 && return 0
  say "another up or down is at work: waiting for it"
  flock 9
}

command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
