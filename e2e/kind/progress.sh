# shellcheck shell=bash
# Sourced by env.sh. Owns how the scripts speak: all on standard error, so that standard output stays for
# answers. `say` prints a line, `die` ends the script, `step` runs one long command quietly, shows that it is
# alive and how long it took, and prints the end of its output if it fails; `wait_for` tries until it works.

say() { printf 'kind: %s\n' "$*" >&2; }

# die STATUS TEXT...
die() {
  local status=$1
  shift
  printf 'kind: error: %s\n' "$*" >&2
  exit "$status"
}

# step TEXT COMMAND...
step() {
  local text=$1 log pid started=$SECONDS status=0 shown=0
  shift
  log=$(mktemp)
  say "$text ..."
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  # A background command of a script ignores Ctrl-C.
  trap 'kill "$pid" 2>/dev/null; rm -f -- "$log"; exit 130' INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    if (((SECONDS - started) / 30 > shown)); then
      shown=$(((SECONDS - started) / 30))
      say "$text ... $((SECONDS - started)) s"
    fi
  done
  wait "$pid" || status=$?
  trap - INT TERM
  if ((status)); then
    tail -n 40 -- "$log" >&2
    rm -f -- "$log"
    say "$text: FAILED after $((SECONDS - started)) s; the last lines it printed are above"
    return "$status"
  fi
  rm -f -- "$log"
  say "$text: done in $((SECONDS - started)) s"
}

# wait_for TEXT SECONDS COMMAND...: until the command succeeds; fails when the time is over.
wait_for() {
  local text=$1 limit=$2 started=$SECONDS shown=0
  shift 2
  until "$@" >/dev/null 2>&1 </dev/null; do
    if ((SECONDS - started >= limit)); then
      say "waiting for $text: not there after $limit s"
      return 1
    fi
    if (((SECONDS - started) / 5 >= shown)); then
      shown=$(((SECONDS - started) / 5 + 1))
      say "waiting for $text ... $((SECONDS - started)) s"
    fi
    sleep 0.3
  done
}
