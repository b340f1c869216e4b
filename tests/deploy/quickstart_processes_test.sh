#!/bin/bash
# Background processes and the private PostgreSQL of the quickstart: each check is a claim, printed
# when it does not hold.
set -euo pipefail
source_dir=$(realpath "$(dirname "$0")/../..")
scratch=$(mktemp -d)
chmod 755 "$scratch"
state=$scratch/state
service_user=$(id -un)
as_service=(env)
if ((EUID == 0)); then
  service_user=nobody
  as_service=(setpriv --reuid=nobody "--regid=$(id -gn nobody)" --clear-groups)
fi
fail() {
  echo "$@" >&2
  exit 1
}
source "$source_dir/deploy/quickstart/processes.sh"
source "$source_dir/deploy/quickstart/postgres.sh"

stop_everything() {
  for pid_file in "$scratch"/*/pids/* "$scratch"/*/*/pids/*; do
    [[ -f $pid_file ]] || continue
    state=${pid_file%/pids/*}
    stop_process "${pid_file##*/}" KILL 5
  done
  rm -rf "$scratch" "${deep_socket_folder:-$scratch}"
}
trap stop_everything EXIT

prepare() { # STATE_FOLDER
  state=$1
  mkdir -p "$state/pids"
  make_service_folder "$state/run" 700
  make_service_folder "$state/logs" 700
}

check() { # CLAIM COMMAND...
  local claim=$1
  shift
  "$@" || fail "does not hold: $claim ($*)"
}
check_not() { # CLAIM COMMAND...
  local claim=$1
  shift
  ! "$@" || fail "does not hold: $claim ($*)"
}

prepare "$state"
start_process sleeper sleep 600
check "a started process runs" running_pid sleeper >/dev/null
check "the same command is as wanted" runs_as_wanted sleeper sleep 600
check_not "another command is not as wanted" runs_as_wanted sleeper sleep 601
pid=$(running_pid sleeper)
check "it runs as the service user" test "$(stat -c %U "/proc/$pid")" = "$service_user"
stop_process sleeper TERM 10
check_not "a stopped process is gone" test -d "/proc/$pid"

echo "$$ 1" >"$state/pids/stale"
check_not "a pid that another process has by now is stale" running_pid stale
stop_process stale KILL 1
check_not "a stale pid file is removed" test -e "$state/pids/stale"
echo "garbage" >"$state/pids/broken"
check_not "a broken pid file is no running process" running_pid broken

start_process deaf bash -c 'trap "" TERM; while :; do sleep 0.05; done'
stop_process deaf TERM 1 >/dev/null
check_not "a process that ignores TERM is killed" running_pid deaf

line=$(printf '%99s' x)
for ((i = 0; i < 100; i++)); do echo "$line$i"; done | bounded_log "$scratch/bounded.log" 2000
check "a log is bounded" test "$(cat "$scratch"/bounded.log* | wc -c)" -lt 4400
check "the last line is kept" grep -q "x99$" "$scratch/bounded.log"

choose_socket_folder
start_postgres >/dev/null
check "the database answers" test "$(postgres_sql qaas 'SELECT 1')" = 1
check "it listens on no address" test -z "$(postgres_sql qaas 'SHOW listen_addresses')"
check "only peer authentication is left" test \
  "$(postgres_sql qaas "SELECT string_agg(type || auth_method, ' ') FROM pg_hba_file_rules")" = localpeer
check "the socket is the owner's alone" test "$(stat -c %a "$state/run/.s.PGSQL.5432")" = 700
pid=$(running_pid postgres)
start_postgres
check "a second start keeps the server" test "$(running_pid postgres)" = "$pid"
postgres_sql qaas "CREATE TABLE kept AS SELECT 7 AS value"
stop_process postgres KILL 5 # a power cut: postmaster.pid stays
if ((EUID == 0)); then
  # Its pid belongs to another process by the next start.
  sed -i "1s/.*/$$/" "$state/postgres/postmaster.pid"
fi
start_postgres >/dev/null
check "data survive a crash" test "$(postgres_sql qaas 'SELECT value FROM kept')" = 7
stop_process postgres INT 30 >/dev/null

prepare "$scratch/$(printf '%120s' '' | tr ' ' d)"
choose_socket_folder
deep_socket_folder=$socket_folder
start_postgres >/dev/null
check "a state folder too deep for a socket works" test "$(postgres_sql qaas 'SELECT 1')" = 1
stop_process postgres INT 30 >/dev/null
echo "all claims hold"
