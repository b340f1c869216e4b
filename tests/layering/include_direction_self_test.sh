#!/bin/bash
# Shows that include_direction.sh sees what it is there for: each case is one file in an otherwise
# empty tree, and the words the complaint about it must contain ("" for none).
set -euo pipefail
checker=$(realpath "$(dirname "$0")/include_direction.sh")
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0

check() { # FILE, INCLUDE, WORDS OF THE COMPLAINT
  rm -rf "${tree:?}"/*
  mkdir -p "$tree/$(dirname "$1")"
  echo "#include $2" >"$tree/$1"
  local output exit_code=0
  output=$(bash "$checker" "$tree") || exit_code=$?
  if [[ -z $3 && $exit_code -ne 0 || -n $3 && ($exit_code -ne 1 || $output != *"$3"*) ]]; then
    echo "$1 with #include $2: exit $exit_code, expected '$3', got: $output"
    failures=$((failures + 1))
  fi
}

check server/main.cpp '"storage/database/job_store.h"' ""
check server/main.cpp '"workers/agent/lease.h"' "server must not include"
check server/main.cpp '"clients/cli/table.h"' "must not include"
check workers/agent/agent.cpp '"workers/engine/quant/affine.h"' "workers/agent must not include"
check workers/engine/main.cpp '"storage/database/job_store.h"' "workers/engine must not include"
check workers/engine/main.cpp '"storage/checkpoint/safetensors.h"' ""
check storage/checkpoint/digest.cpp '"storage/database/job_store.h"' "stands below"
check telemetry/log.cpp '"proto/spec/job_spec.h"' "must not include"
check proto/spec/job_spec.cpp '"telemetry/log.h"' "stands below"
check workers/engine/quant/affine.cpp '"workers/engine/train/block_ap.h"' "stands below"
check server/main.cpp '<torch/torch.h>' "is for workers/engine"
check server/main.cpp '<pqxx/pqxx>' "is for storage/database only"
check workers/agent/agent.cpp '"qaas/v1/model_service.grpc.pb.h"' "is for server clients only"
check common/strings.h '<string>' "lies in no layer"
check server/main.cpp '"main_options.h"' "no path from the repository root"
exit $((failures > 0))
