#!/bin/bash
# with_postgres.sh COMMAND [ARGUMENT...]
#
# Runs a command with a throw-away PostgreSQL cluster of its own: QAAS_TEST_DSN names it. The
# cluster lives in a temporary folder that only its owner can enter, listens on a Unix socket only,
# and is stopped and removed however the command ends; the exit status is the command's. Works as
# root (PostgreSQL then runs as user postgres, or nobody) and as an ordinary user. Nothing is
# synced to disk: it must be fast, not durable.
set -euo pipefail

if [[ $# -eq 0 ]]; then
  echo "usage: $0 COMMAND [ARGUMENT...]" >&2
  exit 2
fi

bindir=${QAAS_POSTGRES_BIN:-}
if [[ -z $bindir ]]; then
  for candidate in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV); do
    if [[ -x $candidate/initdb ]]; then
      bindir=$candidate
      break
    fi
  done
fi
if [[ ! -x $bindir/initdb ]]; then
  echo "$0: no PostgreSQL server programs under /usr/lib/postgresql;" \
    "install the package postgresql-15 or set QAAS_POSTGRES_BIN" >&2
  exit 1
fi

# A socket's path is limited to 107 bytes; a long TMPDIR would not leave room for the file's name.
parent=${TMPDIR:-/tmp}
if ((${#parent} > 60)); then
  parent=/tmp
fi
folder=$(mktemp -d "$parent/qaas-pg.XXXXXX")

identity=()
if [[ $(id -u) -eq 0 ]]; then
  account=nobody
  if id -u postgres >/dev/null 2>&1; then
    account=postgres
  fi
  chown "$account:$(id -gn "$account")" "$folder"
  identity=("--reuid=$account" "--regid=$(id -g "$account")" --clear-groups)
fi

# The server dies with this script, also when the script itself is killed.
as_owner() {
  cd "$folder"
  exec setpriv "${identity[@]}" --pdeathsig QUIT env HOME="$folder" "$@"
}

server=
command_pid=
clean_up() {
  trap '' INT TERM HUP
  if [[ -n $command_pid ]]; then
    kill -TERM "$command_pid" 2>/dev/null || true
    wait "$command_pid" 2>/dev/null || true
  fi
  if [[ -n $server ]]; then
    kill -QUIT "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

if ! (as_owner "$bindir/initdb" --pgdata="$folder/data" --username=qaas_test --auth=trust \
  --encoding=UTF8 --locale=C.UTF-8 --no-sync --no-instructions) >"$folder/initdb.log" 2>&1; then
  cat "$folder/initdb.log" >&2
  exit 1
fi

(as_owner "$bindir/postgres" -D "$folder/data" -k "$folder" -c listen_addresses= \
  -c fsync=off -c full_page_writes=off -c synchronous_commit=off -c max_connections=200 \
  -c shared_buffers=64MB -c max_wal_size=2GB) >"$folder/server.log" 2>&1 &
server=$!

export QAAS_TEST_DSN="host=$folder port=5432 user=qaas_test dbname=postgres"
deadline=$((SECONDS + 60))
until "$bindir/pg_isready" --quiet --dbname="$QAAS_TEST_DSN"; do
  if ! kill -0 "$server" 2>/dev/null || ((SECONDS > deadline)); then
    echo "$0: PostgreSQL did not start:" >&2
    cat "$folder/server.log" >&2
    exit 1
  fi
  sleep 0.05
done

# In the background, so that a signal to this script is acted upon at once.
"$@" <&0 &
command_pid=$!
status=0
wait "$command_pid" || status=$?
command_pid=
exit "$status"
