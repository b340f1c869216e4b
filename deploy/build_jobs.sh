#!/bin/bash
# Prints how many compilers to run at once: one per processor, but no more than memory allows. A file
# that includes LibTorch or gRPC takes up to 2 GiB.
set -euo pipefail
by_memory=$(awk '/^MemAvailable/ {print int($2 / 2097152)}' /proc/meminfo)
jobs=$(nproc)
jobs=$((by_memory < jobs ? by_memory : jobs))
echo $((jobs > 0 ? jobs : 1))
