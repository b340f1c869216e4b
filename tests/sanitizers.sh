#!/bin/bash
# Runs the tests that link no LibTorch under the sanitizers: address and undefined behaviour over all
# of them, threads over those of the database and the agent. (Debian's gRPC is not instrumented:
# ThreadSanitizer reports races in a correct server, so programs that link it stay out.)
#
# usage: tests/sanitizers.sh [address|thread]     both by default
# Builds in build-asan/ and build-tsan/.
set -euo pipefail
cd "$(dirname "$0")/.."

build() { # FOLDER SANITIZERS TARGET...
  local folder=$1 sanitizers=$2
  shift 2
  cmake -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O1 \
    -DQAAS_BUILD_ENGINE=OFF -DQAAS_BUILD_TESTS=ON "-DQAAS_SANITIZE=$sanitizers" >/dev/null
  cmake --build "$folder" -j "$(deploy/build_jobs.sh)" --target "$@"
}

run() { # FOLDER
  tests/support/with_postgres.sh ctest --test-dir "$1" -j "$(nproc)" --output-on-failure \
    --no-tests=error
}

address() {
  build build-asan address,undefined all
  ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1 \
    UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 run build-asan
}

thread() {
  build build-tsan thread tests/storage/database/all tests/agent/all
  export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
  local folder
  for folder in tests/storage/database tests/agent; do
    # Newer kernels randomise addresses more than this ThreadSanitizer can follow.
    setarch --addr-no-randomize bash -c "$(declare -f run); run build-tsan/$folder"
  done
}

case ${1:-both} in
  address) address ;;
  thread) thread ;;
  both) address && thread ;;
  *) sed -n '6,7s/^# //p' "$0" >&2 && exit 2 ;;
esac
