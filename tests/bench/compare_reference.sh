#!/usr/bin/env bash
# Measures EfficientQAT here against the plain PyTorch reference, on the same model, ids, settings
# and thread count in one run, and the original's perplexity against an independent numpy oracle.
#
# Usage: tests/bench/compare_reference.sh [--build DIR] [--threads N] [--preset paper|accuracy|fast]
# `paper`, the default, takes the reference's end-to-end settings; the others stand as they are.
# Needs the shared material (../shared, or QAAS_SHARED) and Debian's python3-torch, python3-numpy.
# Speeds mean something only on a machine that does nothing else. Last line:
#   ppl_original=… ppl_rtn=… ppl_block_ap=… ppl_e2e_qp=… block_ap_ratio=… e2e_qp_ratio=…
# (ratios: our tokens per second over the reference's; a preset without an end-to-end stage repeats
# the perplexity before it, with ratio 0).
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build threads=1 preset=paper
while [ $# -gt 0 ]; do
  case "$1" in
    --build) build=$2; shift 2 ;;
    --threads) threads=$2; shift 2 ;;
    --preset) preset=$2; shift 2 ;;
    *) echo "usage: $0 [--build DIR] [--threads N] [--preset paper|accuracy|fast]" >&2; exit 2 ;;
  esac
done
end_to_end=
case "$preset" in
  paper) end_to_end=', "e2e_qp": {"batch_size": 8, "micro_batch_size": 8,
            "schedule": "LEARNING_RATE_SCHEDULE_CONSTANT"}' ;;
  accuracy|fast) ;;
  *) echo "$0: --preset $preset: accepted: paper, accuracy, fast" >&2; exit 2 ;;
esac
shared=${QAAS_SHARED:-../shared}
[ -f "$shared/bench/reference_efficientqat.py" ] || { echo "skipped: no shared material at $shared"; exit 0; }
engine=$build/bin/qaas-engine
[ -x "$engine" ] || { echo "$engine is missing: build it first (tests/run.sh does)" >&2; exit 1; }
model=$shared/models/stories15M
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OPENBLAS_NUM_THREADS=$threads OMP_NUM_THREADS=$threads

echo "== reference (plain PyTorch, fp32, $threads thread(s))"
/usr/bin/python3 "$shared/bench/reference_efficientqat.py" "$model" \
  "$shared/data/stories15M_calib.ids" "$shared/data/stories15M_eval.ids" \
  --bits 2 --group 32 --samples 128 --evalw 64 --threads "$threads" | tee "$work/reference"

echo "== oracle (numpy)"
/usr/bin/python3 "$shared/bench/oracle_perplexity.py" "$model" \
  --ids "$shared/data/stories15M_eval.ids" --max-windows 64 | tee "$work/oracle"

echo "== qaas-engine, preset $preset ($threads thread(s))"
cat > "$work/spec.json" <<JSON
{"method": "METHOD_EFFICIENT_QAT", "preset": "PRESET_${preset^^}",
 "weights": {"bits": 2, "group_size": 32},
 "calibration": {"samples": 128, "sequence_length": 256, "sampling": "WINDOW_SAMPLING_FIRST"},
 "evaluation": {"samples": 64, "sequence_length": 256}$end_to_end}
JSON
"$engine" run --threads "$threads" --spec "$work/spec.json" --model "$model" \
  --calibration "$shared/data/stories15M_calib.ids" \
  --evaluation "$shared/data/stories15M_eval.ids" --out "$work/artifact"

/usr/bin/python3 - "$work" <<'PY'
import json, re, sys
work = sys.argv[1]
reference = open(f"{work}/reference").read()
evaluation = json.load(open(f"{work}/artifact/manifest.json"))["evaluation"]
stages = {stage["stage"]: stage for stage in evaluation["stages"]}
number = lambda pattern: float(re.search(pattern, reference).group(1))
oracle = float(re.search(r"ppl ([0-9.]+)", open(f"{work}/oracle").read()).group(1))
block = stages["block_ap"]
end = stages.get("e2e_qp", {"score": block["score"], "tokens_per_second": 0})
print(f"reference: block-ap {number(r'block-ap ppl ([0-9.]+)')}, "
      f"+e2e-qp {number(r'e2e-qp ppl ([0-9.]+)')}; oracle: original {oracle}")
print(f"block-tokens/s {block['tokens_per_second']:.0f}, "
      f"end-to-end tokens/s {end['tokens_per_second']:.0f}")
print(f"ppl_original={evaluation['original']['perplexity']:.4f} "
      f"ppl_rtn={evaluation['round_to_nearest']['perplexity']:.4f} "
      f"ppl_block_ap={block['score']['perplexity']:.4f} "
      f"ppl_e2e_qp={end['score']['perplexity']:.4f} "
      f"block_ap_ratio={block['tokens_per_second'] / number(r'([0-9]+) block-tokens/s'):.2f} "
      f"e2e_qp_ratio={end['tokens_per_second'] / number(r'([0-9]+) tokens/s'):.2f}")
PY
