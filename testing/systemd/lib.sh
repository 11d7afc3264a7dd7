# shellcheck shell=bash
# What the tests in a real systemd share. To be sourced by bash; they run as root inside of scripts/systemd-testbed, with
# the repository at /repo and the programs at /tools.

set -Eeuo pipefail
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR
export LC_ALL=C

# What a test is about, and that it went well; the reader counts these lines.
passed=0
ok() {
  passed=$((passed + 1))
  printf 'ok    %s\n' "$*"
}

# What is measured, for people.
figure() {
  printf '      %s\n' "$*"
}

# Gives up, with what the machine said last.
fail() {
  {
    printf 'FAIL  %s\n' "$*"
    systemctl --failed --all --no-legend --plain | sed 's/^/      failed unit: /'
    journalctl --quiet --no-pager --priority notice --lines 25 --output short-precise | sed 's/^/      | /'
  } >&2
  exit 1
}

# Says that something holds, or gives up: "expect WHAT COMMAND…".
expect() {
  local what=$1
  shift
  "$@" || fail "$what (this failed: $*)"
  ok "$what"
}

# The same for what must not be possible.
refused() {
  local what=$1 said
  shift
  if said=$("$@" 2>&1); then fail "$what (this was possible: $*: $said)"; fi
  ok "$what"
}

# Waits until a command succeeds: "within SECONDS WHAT COMMAND…".
within() {
  local seconds=$1 what=$2 deadline
  shift 2
  deadline=$((SECONDS + seconds))
  until "$@"; do
    [ $SECONDS -lt $deadline ] || fail "not within $seconds s: $what"
    sleep 0.05
  done
}

milliseconds() {
  local now=$EPOCHREALTIME
  now=${now/[.,]/}
  echo $((now / 1000))
}

logs_of() {
  echo "/var/lib/milepost/$1/logs"
}

# Emits milestones of these ids into a zone, in one process: "emit ZONE ID…". Says nothing.
emit() {
  local zone=$1
  shift
  printf '%s\n' "$@" | jq -Rc --arg zone "$zone" '{
      milestoneId: ., timestampUtc: (now | todate), scope: $zone, claim: "It was reached.", riskStatus: "on-track", nextAction: "Go on.",
      evidence: [{type: "issue", path: "tracker/1", summary: "closed"}]}' |
    milestone-emit --quiet --rotate-bytes 16KiB --logs "$(logs_of "$zone")"
}

# A journal of a zone, all its segments: "journal ZONE NAME". Nothing that is not there.
journal() {
  local dir file
  dir=$(logs_of "$1")
  for file in "$dir/$2".0*.jsonl "$dir/$2.jsonl"; do
    [ ! -e "$file" ] || cat "$file"
  done
}

lines() {
  journal "$1" "$2" | wc -l
}

has_lines() {
  [ "$(lines "$1" "$2")" = "$3" ]
}

# Whether the receiver of a zone has all that was emitted in it, each once, and both sides agree on it.
everything_arrived() {
  local zone=$1 journal=${2:-milestones} came=${3:-receive/feed}
  within 60 "$zone: as many received as emitted ($(lines "$zone" "$came") of $(lines "$zone" "$journal"))" \
    same_number "$zone" "$journal" "$came"
  ok "$zone: all $(lines "$zone" "$came") of $journal were received"
  local dir
  dir=$(logs_of "$zone")
  if [ "$journal" = milestones ]; then
    expect "$zone: each once" diff <(journal "$zone" milestones | jq -r .milestoneId | sort) \
      <(journal "$zone" receive/feed | jq -r .event.milestoneId | sort)
  fi
  within 20 "$zone: nothing is pending" nothing_pending "$zone"
  expect "$zone: the conservation check holds" milestone-status --check --quiet --logs "$dir"
  expect "$zone: the audit is unbroken" audit-tail --verify --quiet --logs "$dir"
}

same_number() {
  [ "$(lines "$1" "$2")" = "$(lines "$1" "$3")" ]
}

# An acknowledgement is in the audit a moment after the receiver has it.
nothing_pending() {
  milestone-status --json --logs "$(logs_of "$1")" | jq -e 'all(.. | .pending? // empty | numbers; . == 0)' >/dev/null
}

there_is() {
  compgen -G "$1" >/dev/null
}

nothing_failed() {
  [ -z "$(systemctl --failed --all --no-legend --plain)" ]
}

# Puts everything in its place, with a secret for each zone, as somebody would who has read the page about it.
install_milepost() {
  /repo/scripts/install --prefix /usr --tools /tools >/tmp/install.log 2>&1 ||
    fail "scripts/install: $(cat /tmp/install.log)"
  local zone port=8787
  for zone in ops personal; do
    (umask 077 && head -c 32 /dev/urandom | base64 >"/etc/milepost/$zone/milestone-webhook-secret")
    printf '%s\n' "MILESTONE_INGEST_URL=http://127.0.0.1:$port" "MILESTONE_REMINDER_URL=http://127.0.0.1:$port" \
      "MILEPOST_DELIVER_OPTIONS=--backoff-base 250ms" "MILEPOST_REMINDER_OPTIONS=--backoff-base 250ms" \
      MILESTONE_ROTATE_BYTES=16KiB >>"/etc/milepost/$zone.env"
    port=$((port + 1))
  done
}
