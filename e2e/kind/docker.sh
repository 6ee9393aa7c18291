# shellcheck shell=bash
# shellcheck disable=SC2154  # env.sh is sourced first
# Sourced after env.sh by what talks to Docker or kind. Owns the choice of both: the daemon that the user's own
# environment reaches, or else ours, a private dockerd that `dockerd` starts and stops; the user's kind if it is
# new enough, or else the one that is built from its Go module.

. "$kind_src/packages.sh"

# Not below the cache: socket paths are limited to about 100 characters. One such daemon per machine.
own_run=/run/tollgate-kind
own_docker_host=unix://$own_run/docker.sock

# Sets DOCKER_HOST and PATH so that `docker` and `kind` talk to the chosen daemon, whether or not it runs.
choose_docker() {
  if [[ ${DOCKER_HOST:-$own_docker_host} == "$own_docker_host" ]] && own_docker_works; then
    : # ours stays chosen while it runs: the clusters are in it
  elif user_docker_works; then
    return
  fi
  export DOCKER_HOST=$own_docker_host
  # Debian's client, which goes with Debian's daemon, whatever other client is on the PATH; it has BuildKit.
  export DOCKER_BUILDKIT=1 PATH=/usr/bin:/usr/sbin:$PATH
}

# The same, and ours is started where the user has none.
need_docker() {
  if ! own_docker_works && ! user_docker_works; then
    if [[ $EUID != 0 ]]; then
      die 69 "no Docker daemon answers $(id -un) (DOCKER_HOST=${DOCKER_HOST:-unset}): start yours, or run this as root"
    fi
    need_packages docker.io iptables iproute2 jq
    # Where systemd runs, the package has started a daemon by now.
    user_docker_works || "$kind_src/dockerd" start
  fi
  choose_docker
}

user_docker_works() {
  [[ ${DOCKER_HOST:-} != "$own_docker_host" ]] && command -v docker >/dev/null \
    && timeout 20 docker version >/dev/null 2>&1
}

own_docker_works() {
  [[ -S $own_run/docker.sock ]] \
    && DOCKER_HOST=$own_docker_host timeout 20 docker version >/dev/null 2>&1
}

# Prints the path of kind.
kind_program() {
  local pinned version
  pinned=$(sed -n 's|^.*sigs\.k8s\.io/kind v\([0-9.]*\).*|\1|p' "$kind_src/tools/kind/go.mod")
  if command -v kind >/dev/null && version=$(kind version -q) \
    && [[ $(printf '%s\n' "$pinned" "$version" | sort -V | tail -n 1) == "$version" ]]; then
    command -v kind
  else
    echo "$("$kind_src/binaries" kind)/kind"
  fi
}
