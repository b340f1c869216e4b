#!/bin/bash
# The quickstart's table from jobs as `qaas get --json` prints them.
set -euo pipefail
source_dir=$(realpath "$(dirname "$0")/../..")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
state=$scratch
demo_model=tiny
fail() {
  echo "$@" >&2
  exit 1
}
downloaded_artifact() {
  echo "$state/downloads/${1#jobs/}"
}
source "$source_dir/deploy/quickstart/report.sh"

cat >"$scratch/two.json" <<'JSON'
{"name": "jobs/a", "start_time": "2026-01-02T03:04:05.250Z", "end_time": "2026-01-02T03:05:15Z",
 "spec": {"weights": {"bits": 2, "group_size": 64, "symmetric": false}},
 "forecast": {"quantized": {"error": 1.69114, "extrapolated": true}},
 "evaluation": {"original": {"perplexity": 22.337}, "round_to_nearest": {"perplexity": 32.19},
  "quantized": {"perplexity": 25.5, "kl_divergence": 0.123456}, "measured_error": 0.13241,
  "original_bytes": "7348736", "artifact_bytes": "2012345"}}
JSON
cat >"$scratch/four.json" <<'JSON'
{"name": "jobs/b", "start_time": "2026-01-02T03:06:00Z", "end_time": "2026-01-02T03:06:59Z",
 "spec": {"weights": {"bits": 4, "group_size": -1, "symmetric": true}},
 "forecast": {"quantized": {"extrapolated": false}},
 "evaluation": {"original": {"perplexity": 22.337}, "round_to_nearest": {"perplexity": 22.65},
  "quantized": {"perplexity": 22.3, "kl_divergence": 0.004}, "measured_error": -0.00166,
  "original_bytes": "7348736", "artifact_bytes": "2612345"}}
JSON
print_report "$scratch/two.json" "$scratch/four.json" >"$scratch/table"

row() { # LABEL FIRST_CELL SECOND_CELL
  grep -qE "^ *$1 +$2 +$3\$" "$scratch/table" ||
    fail "no row '$1 $2 $3' in:"$'\n'"$(cat "$scratch/table")"
}
row "" "2 bits, groups of 64" "4 bits, whole rows"
row "original" "22\.34" "22\.34"
row "round-to-nearest" "32\.19" "22\.65"
row "EfficientQAT" "25\.50" "22\.30"
row "before" "7\.35 MB" "7\.35 MB"
row "after" "2\.01 MB" "2\.61 MB"
row "predicted at submit" "1\.6911\*" "-"
row "measured" "0\.1324" "-0\.0017"
row "KL divergence from original" "0\.1235" "0\.0040"
row "Time" "70 s" "59 s"
grep -q "\* a rough guess" "$scratch/table" || fail "the extrapolation is not explained"
grep -q "$state/downloads/b" "$scratch/table" || fail "the artifact's folder is not named"

echo '{"name": "jobs/c"}' >"$scratch/broken.json"
if (print_report "$scratch/broken.json") >"$scratch/table" 2>&1; then
  fail "a job without results made a table"
fi
echo "all claims hold"
