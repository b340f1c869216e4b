#!/bin/bash
# Installs what is missing, builds everything and runs the tests against a real PostgreSQL that is
# started for them. Works without ../shared, without a GPU, and offline once all is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'USAGE'
usage: tests/run.sh [CTEST ARGUMENT...]

Runs all tests, or those that the arguments of ctest choose:
  tests/run.sh -R job_store           tests whose name matches
  tests/run.sh -LE 'slow|postgres'    all but those with a label

environment: QAAS_BUILD  build folder (build)
             QAAS_JOBS   compilers at once (one per processor, at most one per 2 GiB of memory)
USAGE
}
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  usage
  exit 0
fi

build=$(realpath -m "${QAAS_BUILD:-build}")
deploy/install_dependencies.sh --tests
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DQAAS_BUILD_TESTS=ON
cmake --build "$build" -j "${QAAS_JOBS:-$(deploy/build_jobs.sh)}"

# PostgreSQL refuses to run as root, and runs as a user who may not be able to enter the checkout;
# with_postgres.sh takes care of that.
status=0
tests/support/with_postgres.sh ctest --test-dir "$build" -j "$(nproc)" --output-on-failure \
  --no-tests=error "$@" || status=$?

# ctest counts programs; the log counts the cases within them.
log=$build/Testing/Temporary/LastTest.log
count() {
  grep -cE "^$1" "$log" || true
}
grep -hE '^\[  SKIPPED \] [A-Za-z0-9_/]+\.[A-Za-z0-9_/]+ \(' "$log" | sort -u || true
programs_failed=$(count 'Test Failed')
echo "programs: $(count 'Test Passed') passed, $programs_failed failed;" \
  "cases: $(count '\[       OK \]') passed, $(count '\[  FAILED  \] .* \([0-9]+ ms\)') failed," \
  "$(count '\[  SKIPPED \] .* \([0-9]+ ms\)') skipped"
exit "$status"
