#!/bin/sh
# Compares our tokenizer with the Rust tokenizers library (pinned in package.json), which is
# installed on first use.
# Usage: tokenizer_parity.sh ENCODE_TEXTS WORK_FOLDER [MODEL_FOLDER...]
# Compared are the demo model's tokenizer, that of stories15M under QAAS_SHARED where present, and
# those of the folders named. Exit status 77: skipped, since node or npm is absent.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../../../.." && pwd)
program=$1
folder=$2
shift 2

for command in node npm; do
  command -v $command >/dev/null || { echo "skipped: $command is absent" >&2; exit 77; }
done
mkdir -p "$folder"
for file in package.json package-lock.json .npmrc; do
  if ! cmp -s "$here/$file" "$folder/$file"; then
    rm -rf "$folder/node_modules"
    cp "$here/$file" "$folder/$file"
  fi
done
if [ ! -d "$folder/node_modules/@anush008/tokenizers" ]; then
  (cd "$folder" && npm ci --silent --no-audit --no-fund --ignore-scripts) || {
    echo "tokenizer_parity: npm could not install the tokenizers; is the package registry reachable?" >&2
    exit 1
  }
fi

demo=$source/tests/data/demo
shared=${QAAS_SHARED:-$source/../shared}/models/stories15M
if [ -f "$shared/tokenizer.json" ]; then
  set -- "$shared" "$@"
else
  echo "left out: $shared is absent"
fi
exec node "$here/parity.mjs" "$program" "$folder" "$demo/datasets/sotu-evaluation/text.txt" \
  "$demo/models/kjv-sotu-4m" "$@"
