#!/bin/bash
# Checks that a folder includes only what stands above it, and that a library which must stay out of
# a program is included by the folders named here only. Prints one violation a line; exit 1 if any.
#
# usage: include_direction.sh [ROOT]
set -euo pipefail
cd "${1:-$(dirname "$0")/../..}"

# Lowest layer first. Every source file outside tests/ lies in one of these folders.
layers=(
  proto/spec
  telemetry
  storage/checkpoint
  storage/database
  storage/artifacts
  workers/engine/kernels
  workers/engine/data
  workers/engine/model
  workers/engine/quant
  workers/engine/train
  workers/engine/eval
  workers/engine/exporters
  workers/engine/report
  workers/engine
  workers/agent
  server
  clients
)

# Folders that never include one another, and what the engine and the clients must build without.
declare -A never=(
  [telemetry]="proto/spec" # knows no job
  [workers/engine]="workers/agent server clients storage/database storage/artifacts"
  [workers/agent]="workers/engine server clients"
  [server]="workers clients"
  [clients]="workers server storage/database storage/artifacts"
)

# System headers (a regular expression on what stands between the brackets) and the folders that may
# include them.
declare -A only_in=(
  ['pqxx/|libpq-fe\.h']="storage/database"
  ['torch/|ATen/|c10/']="workers/engine/model workers/engine/quant workers/engine/train workers/engine/eval workers/engine/job workers/engine/torch_precompiled.h"
  ['grpcpp/|grpc/']="server clients"
  ['prometheus/']="telemetry server workers/agent"
  ['CLI/']="server workers clients"
)

violations=0
violation() { # FILE:LINE, MESSAGE
  echo "$1: $2"
  violations=$((violations + 1))
}

# Sets `layer` and `rank` of a path; the deepest folder of the list that holds it. rank is -1 for
# paths in no layer.
find_layer() { # PATH
  layer="" rank=-1
  local index
  for index in "${!layers[@]}"; do
    if [[ $1 == "${layers[index]}"/* && ${#layers[index]} -gt ${#layer} ]]; then
      layer=${layers[index]} rank=$index
    fi
  done
}

is_under_any() { # PATH, FOLDERS or files separated by spaces
  local folder
  for folder in $2; do
    if [[ $1 == "$folder" || $1 == "$folder"/* ]]; then
      return 0
    fi
  done
  return 1
}

while IFS=: read -r file line include; do
  file=${file#./}
  find_layer "$file"
  from=$layer from_rank=$rank
  if ((from_rank < 0)); then
    violation "$file:$line" "lies in no layer of tests/layering/include_direction.sh"
    continue
  fi
  if [[ $include =~ \<([^>]+)\> ]]; then
    header=${BASH_REMATCH[1]}
    for pattern in "${!only_in[@]}"; do
      if [[ $header =~ ^($pattern) ]] && ! is_under_any "$file" "${only_in[$pattern]}"; then
        violation "$file:$line" "<$header> is for ${only_in[$pattern]} only"
      fi
    done
  elif [[ $include =~ \"([^\"]+)\" ]]; then
    header=${BASH_REMATCH[1]}
    if [[ $header == *.grpc.pb.h ]] && ! is_under_any "$file" "server clients"; then
      violation "$file:$line" "\"$header\" is for server clients only"
    fi
    if [[ $header == qaas/v1/* || $header == google/rpc/* ]]; then
      continue # generated from proto/, the lowest layer
    fi
    find_layer "$header"
    if ((rank < 0)); then
      violation "$file:$line" "\"$header\" is no path from the repository root into a layer"
    elif ((rank > from_rank)); then
      violation "$file:$line" "$from stands below $layer and must not include \"$header\""
    fi
    for folder in "${!never[@]}"; do
      if [[ $file == "$folder"/* ]] && is_under_any "$header" "${never[$folder]}"; then
        violation "$file:$line" "$folder must not include \"$header\""
      fi
    done
  fi
done < <(find proto telemetry storage workers server clients common utils -type f \
  \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) 2>/dev/null |
  sort | xargs -r grep -nHE '^[[:space:]]*#[[:space:]]*include')

if ((violations > 0)); then
  echo "$violations includes against the layers"
  exit 1
fi
