# The table at the end of the quickstart, made from `qaas get JOB --json`. Sourced by quickstart.sh.

# One cell a line, "FORMAT VALUE" for printf, in the order of the labels of print_report.
report_cells() { # JOB_JSON
  jq -r '
    def seconds: sub("\\.[0-9]+Z$"; "Z") | fromdateiso8601;
    .spec.weights as $weights | .evaluation as $evaluation | .forecast.quantized as $predicted |
    "%s \($weights.bits) bits, " + (if $weights.group_size == -1 then "whole rows" else "groups of \($weights.group_size)" end),
    "%s ",
    "%.2f \($evaluation.original.perplexity)",
    "%.2f \($evaluation.round_to_nearest.perplexity)",
    "%.2f \($evaluation.quantized.perplexity)",
    "%s ",
    "%.2f_MB \(($evaluation.original_bytes | tonumber) / 1e6)",
    "%.2f_MB \(($evaluation.artifact_bytes | tonumber) / 1e6)",
    "%s ",
    if $predicted.error == null then "%s -"
    elif $predicted.extrapolated then "%.4f* \($predicted.error)"
    else "%.4f \($predicted.error)" end,
    "%.4f \($evaluation.measured_error)",
    "%.4f \($evaluation.quantized.kl_divergence)",
    "%d_s \((.end_time | seconds) - (.start_time | seconds))"' "$1"
}

print_report() { # JOB_JSON...
  local labels=("" "Perplexity (lower is better)" "  original" "  round-to-nearest" "  EfficientQAT"
    "Size of the weight files" "  before" "  after" "Loss increase (nats per token)"
    "  predicted at submit" "  measured" "  KL divergence from original" "Time")
  local rows=() cells row file
  for row in "${!labels[@]}"; do
    rows[row]=$(printf '  %-36s' "${labels[row]}")
  done
  for file in "$@"; do
    mapfile -t cells < <(report_cells "$file")
    ((${#cells[@]} == ${#labels[@]})) || fail "cannot read the result in $file"
    for row in "${!labels[@]}"; do
      printf -v cell "${cells[row]%% *}" "${cells[row]#* }"
      rows[row]+=$(printf '%24s' "${cell//_/ }")
    done
  done
  printf '\nEfficientQAT on the demo model %s\n\n' "$demo_model"
  printf '%s\n' "${rows[@]}"
  if [[ ${rows[*]} == *'*'* ]]; then
    echo "  * a rough guess: the model or the method lies outside what the scaling law was fitted on"
  fi
  printf '\nThe quantized models, Hugging Face folders in GPTQ format\n\n'
  for file in "$@"; do
    echo "  $(downloaded_artifact "$(jq -r .name "$file")")"
  done
}

print_addresses() {
  cat <<ADDRESSES

Running now

  gRPC             127.0.0.1:$grpc_port
  server metrics   http://127.0.0.1:$server_metrics_port/metrics
  worker metrics   http://127.0.0.1:$worker_metrics_port/metrics
  command line     $app/bin/qaas --server 127.0.0.1:$grpc_port
  models, texts    $state/models, $state/datasets: put your own folders there
  logs             $state/logs
  to stop          ${QAAS_STATE:+QAAS_STATE=$state }deploy/quickstart.sh stop

ADDRESSES
}
