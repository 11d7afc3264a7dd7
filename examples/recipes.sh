#!/usr/bin/env bash
# Milepost from a shell: report a milestone, and read a journal from where one stood. Needs jq.
#
# usage: recipes.sh append LOGS < milestone.json    prints what became of it
#        recipes.sh read LOGS NAME [OFFSET]         prints the records from OFFSET on, then the offset to go on from
set -euo pipefail

# Reports a milestone; give it an id of its own, and it is safe to do so again. What may pass is tried again.
append() {
  local logs=$1 milestone try code
  milestone=$(jq -c .)
  for try in 1 2 3; do
    code=0
    milestone-emit --logs "$logs" - <<<"$milestone" | jq -r .status || code=${PIPESTATUS[0]}
    case $code in
    69 | 74 | 75) sleep "$try" ;;
    *) return "$code" ;;
    esac
  done
  return "$code"
}

# What the mark of a journal says: where the active file begins, and up to where it is surely on disk. What lies beyond
# may still go away.
mark() {
  head -c 320 "$1/.lock/$2.lock" | jq -r '"\(.base) \(.base + .length)"'
}

# The records of a journal from a logical offset on. No lock is needed. Offsets count bytes since the journal began, over
# all its files, so they stay right when it goes on in a new one.
read_from() {
  local logs=$1 name=$2 offset=${3:-0} base end start file stop files at text
  while :; do
    read -r base end < <(mark "$logs" "$name")
    files=()
    for file in "$logs/$name".[0-9]*.jsonl; do
      [ ! -e "$file" ] || files+=("$((10#$(basename "$file" .jsonl | sed 's/.*\.//'))) $file")
    done
    files+=("$base $logs/$name.jsonl" "$end -")
    text=$(mktemp) at=$offset
    for ((i = 0; i + 1 < ${#files[@]}; i++)); do
      start=${files[i]%% *} file=${files[i]#* } stop=${files[i + 1]%% *}
      if ((start <= at && at < stop)); then
        tail -c +$((at - start + 1)) "$file" 2>/dev/null | head -c $((stop - at)) >>"$text" || true
        at=$stop
      fi
    done
    # Between the two looks it may have gone on in a new file.
    if [ "$(mark "$logs" "$name" | cut -d' ' -f1)" = "$base" ]; then
      cat "$text"
      rm "$text"
      echo "$at"
      return
    fi
    rm "$text"
  done
}

case ${1:-} in
append) append "$2" ;;
read) read_from "$2" "$3" "${4:-0}" ;;
*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit 64 ;;
esac
