#!/bin/bash
# Checks what the programs load: qaas-server, qaas-worker and qaas never LibTorch, qaas-engine never
# gRPC or libpqxx. A crash of LibTorch must end a child process, and a bare GPU machine must be able
# to build the engine.
#
# usage: link_closure.sh BIN_DIR
set -euo pipefail
bin=$1
failures=0

must_not_load() { # PROGRAM, REGULAR EXPRESSION
  local loaded found
  loaded=$(ldd "$bin/$1")
  if found=$(grep -E "$2" <<<"$loaded"); then
    echo "$1 loads what it must not:"$'\n'"$found"
    failures=$((failures + 1))
  fi
}

must_not_load qaas-server 'libtorch|libc10|libcuda'
must_not_load qaas-worker 'libtorch|libc10|libcuda'
must_not_load qaas 'libtorch|libc10|libcuda|libpq'
# LibTorch of Debian itself brings libpq along, so only libpqxx tells.
must_not_load qaas-engine 'libgrpc|libpqxx|libprometheus'
exit $((failures > 0))
