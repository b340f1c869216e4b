#!/bin/bash
# Checks form: clang-format on every C++ file, include direction, and clang-tidy within a time limit,
# on the files that changed since a revision first.
#
# usage: tests/lint.sh [--since REVISION] [--tidy-seconds SECONDS]
#   --since REVISION       clang-tidy only what differs from REVISION (default: every file)
#   --tidy-seconds SECONDS stop starting clang-tidy runs after so long (600); 0: no clang-tidy
# Configures build-tidy/ for the compile commands.
set -euo pipefail
cd "$(dirname "$0")/.."

since=
tidy_seconds=600
while (($# > 0)); do
  case $1 in
    --since) since=$2 && shift 2 ;;
    --tidy-seconds) tidy_seconds=$2 && shift 2 ;;
    *) sed -n '5,8s/^# //p' "$0" >&2 && exit 2 ;;
  esac
done
build=build-tidy
failures=0

# By find, not by git: a tree without its history, or of another owner, is checked as well.
code_folders=(proto telemetry storage workers server clients tests)
mapfile -t sources < <(find "${code_folders[@]}" -type f \
  \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) | sort)
echo "clang-format: ${#sources[@]} files"
unformatted=$({ clang-format --dry-run --Werror "${sources[@]}" 2>&1 || true; } |
  sed -nE 's/^([^: ]+):[0-9]+:[0-9]+: error.*/\1/p' | sort | uniq -c)
if [[ -n $unformatted ]]; then
  echo "run clang-format -i on these (with the number of places):"$'\n'"$unformatted"
  failures=$((failures + 1))
fi

tests/layering/include_direction.sh || failures=$((failures + 1))

# Clean results are remembered by the content of the file and of all headers, so that a second run
# over the same tree costs nothing and a limited run gets further each time.
tidy() {
  local commands=$build/compile_commands.json checked=$build/clean
  # clang cannot read the precompiled headers of gcc; generated headers are all it needs to be built.
  cmake -S . -B "$build" -G Ninja -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON -DQAAS_BUILD_TESTS=OFF >/dev/null
  ninja -C "$build" -t targets all | sed -nE 's/^([^ ]+\.(pb|inc)\.?h): .*/\1/p' |
    xargs ninja -C "$build" --quiet
  mkdir -p "$checked"
  # clang 14 cannot compile some sources over LibTorch 1.13's headers (an incomplete c10::IValue):
  # those sources have the compiler's warnings only.
  local torch_sources
  torch_sources=$(awk -F'"' '/"command":/ {torch = /torch\/csrc/} /"file":/ && torch {print $4}' "$commands")
  local headers key file work=()
  headers=$(find "${code_folders[@]}" -type f \( -name '*.h' -o -name '*.proto' \) -print0 |
    sort -z | xargs -0 cat .clang-tidy | sha256sum)
  for file in "${sources[@]}"; do
    if [[ $file != *.cpp || $file == tests/* ]] || ! grep -qF "/$file\"" "$commands"; then
      continue
    fi
    if grep -qxF "$PWD/$file" <<<"$torch_sources"; then
      continue
    fi
    if [[ -n $since ]] && git diff --quiet "$since" -- "$file"; then
      continue
    fi
    key=$({ echo "$headers" && cat "$file"; } | sha256sum | cut -c 1-32)
    if [[ ! -f $checked/$key ]]; then
      work+=("$file" "$checked/$key")
    fi
  done
  echo "clang-tidy: $((${#work[@]} / 2)) files to check, at most $tidy_seconds s"
  ((${#work[@]} > 0)) || return 0
  # What comes after the deadline is left for the next run; a finding fails the run.
  local status=0 left=0 index
  export build deadline=$(($(date +%s) + tidy_seconds))
  printf '%s\n' "${work[@]}" | xargs -P "$(nproc)" -n 2 bash -c '
    (($(date +%s) >= deadline)) ||
      { clang-tidy -p "$build" --quiet "$1" 2>/dev/null && touch "$2"; }' tidy || status=$?
  for ((index = 1; index < ${#work[@]}; index += 2)); do
    [[ -f ${work[index]} ]] || left=$((left + 1))
  done
  echo "clang-tidy: $left files with findings or out of time"
  return "$status"
}
if ((tidy_seconds > 0)); then
  tidy || failures=$((failures + 1))
fi
exit $((failures > 0))
