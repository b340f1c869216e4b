#!/bin/bash
# Runs deploy/quickstart.sh twice against a temporary state folder on free ports: the first start
# must end with the table, the second must reuse what runs, and stop must leave no process behind.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
chmod 755 "$scratch" # the service user must be able to enter
export QAAS_STATE=$scratch/state

free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}
QAAS_GRPC_PORT=$(free_port)
QAAS_SERVER_METRICS_PORT=$(free_port)
QAAS_WORKER_METRICS_PORT=$(free_port)
export QAAS_GRPC_PORT QAAS_SERVER_METRICS_PORT QAAS_WORKER_METRICS_PORT

clean_up() {
  deploy/quickstart.sh stop || true
  rm -rf "$scratch"
}
trap clean_up EXIT

expect() { # WORDS, FILE
  grep -qF -- "$1" "$2" || { echo "quickstart smoke: '$1' is missing from the output" && exit 1; }
}

began=$SECONDS
deploy/quickstart.sh | tee "$scratch/first.log"
echo "first start: $((SECONDS - began)) s"
for words in "original" "round-to-nearest" "EfficientQAT" "predicted at submit" "measured" \
  "127.0.0.1:$QAAS_GRPC_PORT" "quickstart.sh stop"; do
  expect "$words" "$scratch/first.log"
done
for artifact in "$QAAS_STATE"/downloads/*; do
  test -s "$artifact/model.safetensors" -a -s "$artifact/manifest.json"
done

pids_of_first=$(head -qn 1 "$QAAS_STATE"/pids/*)
began=$SECONDS
deploy/quickstart.sh start >"$scratch/second.log"
echo "warm start: $((SECONDS - began)) s"
if [[ $(head -qn 1 "$QAAS_STATE"/pids/*) != "$pids_of_first" ]]; then
  echo "quickstart smoke: the second start did not reuse the running services" && exit 1
fi

QAAS_STATE=$scratch/other deploy/quickstart.sh start >"$scratch/taken.log" 2>&1 && exit 1
expect "is taken" "$scratch/taken.log"

deploy/quickstart.sh stop
deploy/quickstart.sh status >"$scratch/status.log" && exit 1
expect "does not run" "$scratch/status.log"
while read -r pid _; do
  # An exit status that PID 1 has not fetched yet is no process.
  if grep -qs '^State:[[:space:]]*[^Z[:space:]]' "/proc/$pid/status"; then
    echo "quickstart smoke: pid $pid is left" && exit 1
  fi
done <<<"$pids_of_first"
echo "quickstart smoke: passed"
