#!/usr/bin/env bash
# Shows that block-wise jobs need the memory of one block, not of the model: generates a Llama
# checkpoint many times larger than the budget, runs Block-AP on it (few, short windows, one epoch),
# and samples the engine's anonymous memory from outside. Mapped pages do not count: the kernel
# drops them when it needs them.
#
# Usage: tests/bench/memory_budget.sh [--build DIR] [--gigabytes N] [--budget-mb N] [--hidden N]
#                                     [--threads N] [--work DIR]
# Default: 8 GB of weights in blocks of hidden size 2048 against 1500 MB. Needs about 1.6 times
# the checkpoint on disk at DIR (default: a temporary folder) and Debian's python3-numpy. Last line:
#   weights_mb=… budget_mb=… peak_anonymous_mb=… peak_mapped_mb=… planned_mb=… seconds=…
# With the defaults the plan refuses (see RESULTS.md): the target is not reached yet.
# Exit status 1 if the peak is above the budget, or above what `qaas-engine plan` said beforehand.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build gigabytes=8 budget=1500 hidden=2048 threads=$(nproc) work=
while [ $# -gt 0 ]; do
  case "$1" in
    --build) build=$2 ;;
    --gigabytes) gigabytes=$2 ;;
    --budget-mb) budget=$2 ;;
    --hidden) hidden=$2 ;;
    --threads) threads=$2 ;;
    --work) work=$2 ;;
    *) sed -n '/^# Usage/,/^#    /s/^# //p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done
engine=$build/bin/qaas-engine
[ -x "$engine" ] || { echo "$engine is missing: build it first (tests/run.sh does)" >&2; exit 1; }
work=$(mktemp -d -p "${work:-${TMPDIR:-/tmp}}" qaas_memory.XXXXXX)
trap 'rm -rf "$work"' EXIT
export OPENBLAS_NUM_THREADS=$threads OMP_NUM_THREADS=$threads

/usr/bin/python3 tests/bench/generate_checkpoint.py "$work" "$gigabytes" "$hidden"
cat > "$work/spec.json" <<'JSON'
{"method": "METHOD_EFFICIENT_QAT", "weights": {"bits": 2, "group_size": 64},
 "calibration": {"samples": 4, "sequence_length": 64},
 "evaluation": {"samples": 2, "sequence_length": 64},
 "block_ap": {"epochs": 1}, "e2e_qp": {"epochs": 0}}
JSON
folders=(--spec "$work/spec.json" --model "$work/model" --calibration "$work/calibration"
         --evaluation "$work/evaluation")

"$engine" plan --threads "$threads" "${folders[@]}" --out "$work/out" \
  --memory-limit $((budget * 1000000)) --json > "$work/plan.json"
planned=$(/usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["memory_bytes"])' < "$work/plan.json")

/usr/bin/python3 tests/bench/peak_memory.py "$work/peak" \
  "$engine" run --threads "$threads" "${folders[@]}" --out "$work/out" \
  --memory-limit $((budget * 1000000)) > "$work/log" 2>&1 || { tail -20 "$work/log"; exit 1; }

weights=$(du -bc "$work"/model/*.safetensors | tail -1 | cut -f1)
value() { sed "s/.*$1=\([0-9.]*\).*/\1/" "$work/peak"; }
echo "weights_mb=$((weights / 1000000)) budget_mb=$budget" \
  "peak_anonymous_mb=$(($(value peak_anonymous) / 1000000))" \
  "peak_mapped_mb=$(($(value peak_mapped) / 1000000))" \
  "planned_mb=$((planned / 1000000)) seconds=$(value seconds)"
[ "$(value peak_anonymous)" -le $((budget * 1000000)) ] || { echo "above the budget" >&2; exit 1; }
[ "$(value peak_anonymous)" -le "$planned" ] || { echo "above the plan" >&2; exit 1; }
