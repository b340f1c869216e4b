# The quickstart's private PostgreSQL: a cluster in the state folder, reachable over a Unix socket by
# its own user only. Sourced by quickstart.sh after processes.sh. Debian's cluster is left alone.

postgres_bin=/usr/lib/postgresql/15/bin

# A socket path holds at most 107 bytes, its file name ".s.PGSQL.5432" included. A state folder too
# deep for that gets a folder under /run or /tmp that carries its checksum.
choose_socket_folder() {
  socket_folder=$state/run
  if ((${#socket_folder} > 90)); then
    local parent=/tmp
    if ((EUID == 0)); then
      parent=/run
    elif [[ -d ${XDG_RUNTIME_DIR:-} ]]; then
      parent=$XDG_RUNTIME_DIR
    fi
    socket_folder=$parent/qaas-$(printf %s "$state" | sha256sum | cut -c 1-12)
    make_service_folder "$socket_folder" 700
  fi
}

database_dsn() {
  echo "host=$socket_folder dbname=qaas user=$service_user"
}

postgres_sql() { # DATABASE SQL
  "${as_service[@]}" "$postgres_bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 \
    -h "$socket_folder" -d "$1" -c "$2"
}

create_cluster() {
  local new=$state/postgres.new
  echo "creating a PostgreSQL cluster in $state/postgres"
  rm -rf "$new"
  make_service_folder "$new" 700
  "${as_service[@]}" "$postgres_bin/initdb" -D "$new" -U "$service_user" -E UTF8 --locale=C.UTF-8 \
    --auth-local=peer --auth-host=reject >/dev/null
  printf 'local all all peer\n' | "${as_service[@]}" tee "$new/pg_hba.conf" >/dev/null
  # Only a cluster that is complete gets the name, so an interrupted run starts over.
  mv -T "$new" "$state/postgres"
}

# postmaster.pid survives a power cut; a process that has its pid by then and is no postgres would
# keep the server from starting.
remove_stale_postmaster_pid() {
  local file=$state/postgres/postmaster.pid pid
  [[ -f $file ]] || return 0
  read -r pid <"$file" || true
  if [[ $(cat "/proc/$pid/comm" 2>/dev/null) != postgres ]]; then
    rm -f "$file"
  fi
}

start_postgres() {
  [[ -x $postgres_bin/postgres ]] || fail "$postgres_bin/postgres is missing: package postgresql-15"
  if [[ ! -d $state/postgres ]]; then
    create_cluster
  fi
  local command=("$postgres_bin/postgres" -D "$state/postgres" -c listen_addresses=
    -c "unix_socket_directories=$socket_folder" -c unix_socket_permissions=0700)
  if ! runs_as_wanted postgres "${command[@]}"; then
    stop_process postgres INT 60
    remove_stale_postmaster_pid
    start_process postgres "${command[@]}"
  fi
  wait_until postgres 60 "${as_service[@]}" "$postgres_bin/pg_isready" -q -h "$socket_folder"
  if [[ $(postgres_sql postgres "SELECT 1 FROM pg_database WHERE datname = 'qaas'") != 1 ]]; then
    postgres_sql postgres "CREATE DATABASE qaas"
  fi
}
