#!/bin/bash
# One command from a fresh Debian 12 machine to a quantized language model: installs, builds, starts
# PostgreSQL and the service, runs the demo jobs and prints what came out.
set -euo pipefail
umask 022

usage() {
  cat <<'USAGE'
usage: deploy/quickstart.sh [start|stop|status]

  start    (default) install packages, build, start everything, run the demo jobs, print a table
  stop     stop everything that start has started; data, models and artifacts stay
  status   say what runs, where it listens and where its files lie

environment:
  QAAS_STATE                 state folder; /var/lib/qaas as root, else ~/.local/state/qaas
  QAAS_GRPC_PORT             50051
  QAAS_SERVER_METRICS_PORT   9464
  QAAS_WORKER_METRICS_PORT   9465
  QAAS_BUILD                 build folder; build/ in the checkout

Root and sudo are used to install packages and, as root, to create the system user "qaas", which
PostgreSQL and all services run as.
USAGE
}

source_dir=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
build_dir=${QAAS_BUILD:-$source_dir/build}
grpc_port=${QAAS_GRPC_PORT:-50051}
server_metrics_port=${QAAS_SERVER_METRICS_PORT:-9464}
worker_metrics_port=${QAAS_WORKER_METRICS_PORT:-9465}
demo_specs=(efficientqat-w2g64 efficientqat-w4g128)
demo_model=kjv-sotu-4m

if ((EUID == 0)); then
  state=${QAAS_STATE:-/var/lib/qaas}
  service_user=qaas
else
  state=${QAAS_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/qaas}
  service_user=$(id -un)
fi
state=$(realpath -m "$state")
app=$state/app

fail() {
  printf 'quickstart: %s\n' "$@" >&2
  exit 1
}

# Nothing ends the script without a word.
trap 'echo "quickstart: failed: $BASH_COMMAND" >&2' ERR

source "$source_dir/deploy/quickstart/processes.sh"
source "$source_dir/deploy/quickstart/postgres.sh"
source "$source_dir/deploy/quickstart/report.sh"

# The words before a command that make it run as the service user, with nothing of the caller's
# environment but the terminal. Passive: where other programs want the processors too, threads that
# wait for each other by spinning make the engine several times slower.
clean_environment=(env -i "HOME=$state" PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8
  "TERM=${TERM:-dumb}" OMP_WAIT_POLICY=PASSIVE)
as_service=("${clean_environment[@]}")
if ((EUID == 0)); then
  as_service=(setpriv "--reuid=$service_user" "--regid=$service_user" --clear-groups --no-new-privs
    "${clean_environment[@]}")
fi
cli=("${as_service[@]}" "$app/bin/qaas" --server "127.0.0.1:$grpc_port")

prepare_state() {
  if ((EUID == 0)) && ! id -u "$service_user" >/dev/null 2>&1; then
    echo "creating the system user $service_user"
    useradd --system --user-group --no-create-home --home-dir /var/lib/qaas \
      --shell /usr/sbin/nologin "$service_user"
  fi
  mkdir -p "$state" || fail "cannot create the state folder $state; set QAAS_STATE to another one"
  mkdir -p "$state"/{app,pids,models,datasets}
  "${as_service[@]}" test -x "$state" ||
    fail "user $service_user cannot reach $state; set QAAS_STATE to a folder it can enter"
  local folder
  for folder in run logs artifacts scratch downloads; do
    make_service_folder "$state/$folder" 700
  done
  choose_socket_folder
}

lock_state() {
  exec 9>"$state/lock"
  flock -n 9 || fail "another quickstart works on $state right now"
}

build_programs() {
  echo "building in $build_dir (the first time takes some minutes)"
  mkdir -p "$build_dir" || fail "cannot write $build_dir; set QAAS_BUILD to another folder"
  cmake -S "$source_dir" -B "$build_dir" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DQAAS_BUILD_TESTS=OFF >"$build_dir/quickstart-configure.log" 2>&1 ||
    fail "configuring failed: $(tail -n 5 "$build_dir/quickstart-configure.log")"
  cmake --build "$build_dir" -j "$("$source_dir/deploy/build_jobs.sh")" \
    --target qaas-server qaas-worker qaas-engine qaas
}

# A checkout may lie where the service user cannot read: programs, demo model and texts are copied.
# Models and datasets of the reader's own go into the same two folders.
install_programs() {
  cmake --install "$build_dir" --prefix "$app" >/dev/null || fail "installing into $app failed"
  local demo
  for demo in "$app"/share/qaas/{models,datasets}/*/; do
    demo=${demo%/}
    local target=$state/${demo#"$app/share/qaas/"}
    if ! diff -rq "$demo" "$target" >/dev/null 2>&1; then
      rm -rf "$target"
      cp -r "$demo" "$target"
    fi
  done
}

# The command lines of both services, in `server_command` and `worker_command`.
compose_commands() {
  local shared=(--database "$(database_dsn)" --models "$state/models" --datasets "$state/datasets"
    --artifacts "$state/artifacts")
  server_command=("$app/bin/qaas-server" serve --listen "127.0.0.1:$grpc_port"
    --metrics "127.0.0.1:$server_metrics_port" "${shared[@]}")
  worker_command=("$app/bin/qaas-worker" --metrics "127.0.0.1:$worker_metrics_port"
    --scratch "$state/scratch" --engine "$app/bin/qaas-engine" --threads "$(nproc)" "${shared[@]}")
}

require_free_port() { # PORT WHAT VARIABLE
  if port_answers "$1"; then
    fail "port $1 on 127.0.0.1, wanted for $2, is taken by another program" \
      "stop that program, or choose another port: $3=PORT deploy/quickstart.sh"
  fi
}

# Said before minutes of building: a port that nobody of ours holds must be free.
require_ports() {
  local port
  for port in "$grpc_port" "$server_metrics_port" "$worker_metrics_port"; do
    [[ $port =~ ^[0-9]+$ ]] && ((port >= 1 && port <= 65535)) || fail "'$port' is no port number"
  done
  if ! running_pid qaas-server >/dev/null; then
    require_free_port "$grpc_port" gRPC QAAS_GRPC_PORT
    require_free_port "$server_metrics_port" "the server's metrics" QAAS_SERVER_METRICS_PORT
  fi
  if ! running_pid qaas-worker >/dev/null; then
    require_free_port "$worker_metrics_port" "the worker's metrics" QAAS_WORKER_METRICS_PORT
  fi
}

start_services() {
  compose_commands
  local restart_server=no restart_worker=no
  runs_as_wanted qaas-server "${server_command[@]}" || restart_server=yes
  runs_as_wanted qaas-worker "${worker_command[@]}" || restart_worker=yes
  if [[ $restart_worker == yes ]]; then
    stop_process qaas-worker TERM 90
  fi
  if [[ $restart_server == yes ]]; then
    stop_process qaas-server TERM 30
  fi
  require_ports
  start_postgres
  "${as_service[@]}" "$app/bin/qaas-server" migrate --database "$(database_dsn)" ||
    fail "migrating the database failed"
  if [[ $restart_server == yes ]]; then
    start_process qaas-server "${server_command[@]}"
  fi
  wait_until qaas-server 30 "${cli[@]}" --timeout 2 models
  if [[ $restart_worker == yes ]]; then
    start_process qaas-worker "${worker_command[@]}"
  fi
  wait_until qaas-worker 30 port_answers "$worker_metrics_port"
}

downloaded_artifact() { # JOB_NAME: the folder
  echo "$state/downloads/${1#jobs/}"
}

demo_model_is_ready() {
  [[ $("${cli[@]}" models --json | jq -r --arg name "models/$demo_model" \
    '.models[]? | select(.name == $name) | .state') == STATE_READY ]]
}

# Submits every demo job, follows one after the other, fetches the artifacts.
run_demo_jobs() {
  local spec job jobs=() results=$state/results
  mkdir -p "$results"
  wait_until qaas-server 60 demo_model_is_ready
  for spec in "${demo_specs[@]}"; do
    job=$("${cli[@]}" submit --spec "$app/share/qaas/demo/$spec.json" --json | jq -r .name)
    echo "submitted $job: $spec"
    jobs+=("$job")
  done
  for job in "${jobs[@]}"; do
    "${cli[@]}" watch "$job" || fail "$job did not succeed" \
      "see: $app/bin/qaas --server 127.0.0.1:$grpc_port get $job"
    "${cli[@]}" download "$job" --out "$(downloaded_artifact "$job")" >/dev/null
    "${cli[@]}" get "$job" --json >"$results/${job#jobs/}.json"
    demo_results+=("$results/${job#jobs/}.json")
  done
}

start() {
  local began=$SECONDS
  "$source_dir/deploy/install_dependencies.sh"
  prepare_state
  lock_state
  require_ports
  build_programs
  install_programs
  start_services
  trap 'echo; echo "the services keep running; stop them: deploy/quickstart.sh stop"; exit 130' INT
  demo_results=()
  run_demo_jobs
  print_report "${demo_results[@]}"
  print_addresses
  echo "the whole run took $((SECONDS - began)) s"
}

stop() {
  if [[ ! -d $state/pids ]]; then
    echo "nothing runs in $state"
    return
  fi
  lock_state
  stop_process qaas-worker TERM 90
  stop_process qaas-server TERM 30
  stop_process postgres INT 60
  echo "stopped; data, models and artifacts stay in $state"
}

# " --listen A --metrics B" of a running service, from its command line.
addresses_of() { # NAME
  grep -oE -- ' --(listen|metrics) [^ ]+' "$state/pids/$1" | tr -d '\n' || true
}

status() {
  local name pid down=0
  for name in postgres qaas-server qaas-worker; do
    if pid=$(running_pid "$name"); then
      printf '%-12s runs, pid %s%s\n' "$name" "$pid" "$(addresses_of "$name")"
    else
      printf '%-12s does not run\n' "$name"
      down=1
    fi
  done
  echo "state        $state"
  exit "$down"
}

case ${1:-start} in
  start | stop | status)
    (($# <= 1)) || { usage >&2 && exit 2; }
    "${1:-start}"
    ;;
  -h | --help) usage ;;
  *) usage >&2 && exit 2 ;;
esac
