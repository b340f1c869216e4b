# Background processes of the quickstart: started as the service user, found again by pid file,
# stopped in order. Sourced by quickstart.sh, which sets `state` (the state folder), `service_user`,
# `as_service` (the words that run a command as that user) and `fail`.
#
# state/pids/NAME holds "PID START_TIME" and below it the command line. The folder belongs to the
# caller, not to the service user: a service cannot make root signal another process. A pid file
# whose process is gone, or whose pid the kernel has given to another process since, is stale.

log_bytes=$((8 * 1024 * 1024))

# Copies standard input to FILE. Past log_bytes FILE becomes FILE.1, so a log never takes more than
# twice that. A full disk loses lines, never the process that wrote them.
bounded_log() { # FILE BYTES
  local file=$1 limit=$2 line size
  size=$(stat -c %s "$file" 2>/dev/null || echo 0)
  while IFS= read -r line; do
    if ((size > limit)); then
      mv -f "$file" "$file.1" && size=0
    fi
    printf '%s\n' "$line" >>"$file" || true
    size=$((size + ${#line} + 1))
  done 2>/dev/null
}

# Makes a folder that belongs to the service user, or takes it over if it is the caller's.
make_service_folder() { # FOLDER MODE
  mkdir -p "$1"
  [[ ! -L $1 && -O $1 || $(stat -c %U "$1") == "$service_user" ]] ||
    fail "$1 belongs to $(stat -c %U "$1"), not to $service_user"
  if ((EUID == 0)); then
    chown "$service_user:" "$1"
  fi
  chmod "$2" "$1"
}

# PID: in clock ticks since boot; fails if there is no such process, or only its exit status is left.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  set -- $stat
  [[ $1 != Z ]] || return 1
  echo "${20}"
}

# Prints the pid of NAME, or fails if it does not run.
running_pid() { # NAME
  local pid started
  read -r pid started 2>/dev/null <"$state/pids/$1" || return 1
  [[ $pid =~ ^[0-9]+$ && -n $started && $(start_time "$pid") == "$started" ]] || return 1
  echo "$pid"
}

# True if NAME runs this very command line from the program file that is installed now.
runs_as_wanted() { # NAME COMMAND...
  local name=$1 pid
  pid=$(running_pid "$name") || return 1
  shift
  [[ $(tail -n +2 "$state/pids/$name") == "$*" ]] &&
    [[ $(readlink "/proc/$pid/exe") != *' (deleted)' ]]
}

# Starts COMMAND as the service user in a session of its own, logging to state/logs/NAME.log.
start_process() { # NAME COMMAND...
  local name=$1 log pid
  shift
  # Neither the process nor its log writer keeps the quickstart's lock (descriptor 9) or its output.
  exec {log}> >(exec 9>&- >/dev/null 2>&1 && exec setsid "${as_service[@]}" bash -c \
    "$(declare -f bounded_log); bounded_log \"\$@\"" bash "$state/logs/$name.log" "$log_bytes")
  (cd "$state" && exec setsid "${as_service[@]}" "$@") </dev/null >&"$log" 2>&1 9>&- {log}>&- &
  pid=$!
  exec {log}>&-
  disown "$pid"
  printf '%s %s\n%s\n' "$pid" "$(start_time "$pid")" "$*" >"$state/pids/$name"
}

# Sends SIGNAL to NAME and waits; after SECONDS it is killed.
stop_process() { # NAME SIGNAL SECONDS
  local pid tenths
  if ! pid=$(running_pid "$1"); then
    rm -f "$state/pids/$1"
    return
  fi
  echo "stopping $1"
  kill -s "$2" "$pid" 2>/dev/null || true
  for ((tenths = $3 * 10; tenths > 0; tenths--)); do
    running_pid "$1" >/dev/null || break
    sleep 0.1
  done
  if running_pid "$1" >/dev/null; then
    echo "$1 does not stop; killing it"
    kill -s KILL "$pid" 2>/dev/null || true
  fi
  rm -f "$state/pids/$1"
}

# Waits until PROBE... succeeds. Gives up when NAME ends or SECONDS are over, and shows its log.
wait_until() { # NAME SECONDS PROBE...
  local name=$1 tenths=$(($2 * 10))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ! running_pid "$name" >/dev/null || ((--tenths <= 0)); then
      tail -n 8 "$state/logs/$name.log" >&2 2>/dev/null || true
      fail "$name did not come up; its whole log is $state/logs/$name.log"
    fi
    sleep 0.1
  done
}

port_answers() { # PORT
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}
