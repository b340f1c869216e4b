#!/bin/bash
# Installs the Debian 12 packages that building and running qaas takes. Without network access or
# rights it changes nothing when all of them are there, and otherwise says which ones are missing.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: deploy/install_dependencies.sh [--tests] [--check]

Installs what building and running qaas needs, as root or through sudo.
  --tests   also what the tests, the linters and the sanitizers need
  --check   install nothing; list what is missing and exit 1 if anything is
USAGE
}

# One line of words per purpose, so that a diff says why a package came or went.
packages=(
  ca-certificates util-linux passwd                        # setpriv, flock, useradd
  g++ cmake ninja-build pkg-config ccache mold             # build
  libprotobuf-dev protobuf-compiler                        # messages
  libgrpc++-dev protobuf-compiler-grpc libabsl-dev         # service, status codes
  libpqxx-dev libpq-dev postgresql-15 postgresql-client-15 # queue
  prometheus-cpp-dev libspdlog-dev                         # metrics, logs
  libcli11-dev nlohmann-json3-dev libssl-dev               # flags, JSON, SHA-256
  libtorch-dev                                             # tensors
  libopenblas0-pthread                                     # without it LibTorch runs on reference BLAS, ten times slower
  libpcre2-dev libicu-dev                                  # tokenizers
  jq                                                       # the quickstart's table
)
test_packages=(
  libgtest-dev libgmock-dev libbenchmark-dev
  clang-format clang-tidy
  libsentencepiece-dev  # a foreign judge of tokenizers
  python3 python3-numpy # independent readers of artifacts
  git             # lint what changed
  nodejs npm      # foreign judges from npm; buf
)

# Some machines have these from elsewhere than Debian: the command is what counts.
declare -A by_command=([nodejs]=node [npm]=npm [git]=git [cmake]=cmake)

check_only=no
for argument in "$@"; do
  case $argument in
    --tests) packages+=("${test_packages[@]}") ;;
    --check) check_only=yes ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
done

is_installed() { # PACKAGE
  if [[ -n ${by_command[$1]:-} ]] && command -v "${by_command[$1]}" >/dev/null; then
    return 0
  fi
  [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

fail() {
  printf 'install_dependencies: %s\n' "$@" >&2
  exit 1
}

command -v dpkg-query >/dev/null || fail "this machine has no dpkg; the packages are for Debian 12"

missing=()
for package in "${packages[@]}"; do
  is_installed "$package" || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  exit 0
fi
if [[ $check_only == yes ]]; then
  fail "missing packages: ${missing[*]}"
fi

as_root=()
if ((EUID != 0)); then
  command -v sudo >/dev/null ||
    fail "missing packages: ${missing[*]}" "installing them takes root or sudo"
  as_root=(sudo)
  if ! sudo -n true 2>/dev/null && [[ ! -t 0 ]]; then
    fail "missing packages: ${missing[*]}" "sudo asks for a password and there is no terminal"
  fi
fi

# PostgreSQL's package would create and start a cluster of its own on port 5432; qaas brings a
# private one. An administrator's explicit choice in that file stays.
keep_debian_from_creating_a_cluster() {
  local file=/etc/postgresql-common/createcluster.conf
  if grep -qs '^[[:space:]]*create_main_cluster' "$file"; then
    return
  fi
  "${as_root[@]}" mkdir -p "${file%/*}"
  echo 'create_main_cluster = false' | "${as_root[@]}" tee -a "$file" >/dev/null
}
if [[ " ${missing[*]} " == *" postgresql-15 "* ]]; then
  keep_debian_from_creating_a_cluster
fi

echo "installing ${#missing[@]} packages: ${missing[*]}"
apt_get() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
    -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@"
}
apt_get update || fail "apt-get update failed (no network?); missing packages: ${missing[*]}"
apt_get install --no-install-recommends "${missing[@]}" ||
  fail "apt-get could not install: ${missing[*]}" "the packages are those of Debian 12"
