# shellcheck shell=bash
# shellcheck disable=SC2154  # env.sh is sourced first
# Sourced by what needs Debian packages. Owns their installation: nothing if they are there, and the exact
# command where this user may not install them.

need_packages() {
  local package missing=() command
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  command="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  if [[ $EUID != 0 ]] || ! command -v apt-get >/dev/null; then
    die 69 "missing Debian packages; run as root: $command"
  fi
  step "installing Debian packages: ${missing[*]}" install_packages "${missing[@]}"
}

install_packages() {
  # Another apt-get may be at work: give it time.
  local options=(-o DPkg::Lock::Timeout=300 -o Acquire::Retries=3) try
  export DEBIAN_FRONTEND=noninteractive
  for try in 1 2 3 4 5; do
    apt-get "${options[@]}" update && break
    sleep $((try * 3))
  done
  apt-get "${options[@]}" install -y --no-install-recommends "$@"
}
