#!/bin/sh
# Lints the protos with the pinned buf (package.json), by the rules of proto/buf.yaml.
# Usage: buf_lint.sh [FOLDER], where buf is installed on first use; default: a folder in the build
# tree named by QAAS_BINARY_DIR, else build/.
set -eu

source=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-${QAAS_BINARY_DIR:-$source/build}/buf}

command -v npm >/dev/null || { echo "buf_lint: npm is missing (Debian package npm)" >&2; exit 1; }
mkdir -p "$folder"
for file in package.json package-lock.json .npmrc; do
  if ! cmp -s "$source/tests/proto/$file" "$folder/$file"; then
    rm -rf "$folder/node_modules"
    cp "$source/tests/proto/$file" "$folder/$file"
  fi
done
if [ ! -x "$folder/node_modules/.bin/buf" ]; then
  (cd "$folder" && npm ci --silent --no-audit --no-fund) || {
    echo "buf_lint: npm could not install buf; is the package registry reachable?" >&2
    exit 1
  }
fi
exec "$folder/node_modules/.bin/buf" lint "$source/proto"
