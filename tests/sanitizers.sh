#!/bin/bash
# Runs tests that link no LibTorch under the sanitizers: address and undefined behaviour over storage,
# spec and agent (with --all over server and client as well, which compiles for much longer), threads
# over those of the database and the agent. (Debian's gRPC is not instrumented: ThreadSanitizer
# reports races in a correct server, so programs that link it stay out.)
#
# usage: tests/sanitizers.sh [--all] [address|thread]     both by default
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

address_folders=(tests/proto/spec tests/storage tests/agent)
thread_folders=(tests/storage/database tests/agent)

address() {
  build build-asan address,undefined "${address_folders[@]/%//all}"
  export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
  export LSAN_OPTIONS=suppressions=$PWD/tests/leak_suppressions.txt:print_suppressions=0
  export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
  local folder
  for folder in "${address_folders[@]}"; do
    run "build-asan/$folder"
  done
}

thread() {
  build build-tsan thread "${thread_folders[@]/%//all}"
  export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
  TSAN_OPTIONS+=:suppressions=$PWD/tests/thread_suppressions.txt
  local folder
  for folder in "${thread_folders[@]}"; do
    # Newer kernels randomise addresses more than this ThreadSanitizer can follow.
    setarch --addr-no-randomize bash -c "$(declare -f run); run build-tsan/$folder"
  done
}

if [[ ${1:-} == --all ]]; then
  address_folders=(tests)
  shift
fi
case ${1:-both} in
  address) address ;;
  thread) thread ;;
  both) address && thread ;;
  *) sed -n '7,8s/^# //p' "$0" >&2 && exit 2 ;;
esac
