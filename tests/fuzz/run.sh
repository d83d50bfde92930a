#!/usr/bin/env bash
# Runs libFuzzer over the targets of tests/fuzz under ASan and UBSan: run.sh [SECONDS [TARGET...]], 600 seconds each and
# all targets by default. Needs clang++. Corpora and findings stay under build/fuzz; exit code 1 after a finding.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-600}
shift || true
targets=("$@")
if [ $# = 0 ]; then targets=(checkpoint network configuration idx cifar packed numpy manifest tuning index picture tar zip); fi
# -w: clang does not know all of g++'s warnings.
cmake -S . -B build/fuzz -G Ninja -DCONVOLT_CUDA=OFF -DCONVOLT_OPENMP=OFF -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_CXX_FLAGS=-w \
  -DCONVOLT_SANITIZE=fuzzer-no-link,address,undefined >/dev/null
cmake --build build/fuzz --target fuzz
status=0
for target in "${targets[@]}"; do
  folder=build/fuzz/$target
  mkdir -p "$folder/corpus" "$folder/seeds"
  if CONVOLT_FUZZ_TARGET=$target CONVOLT_FUZZ_SEEDS=$folder/seeds build/fuzz/tests/fuzz -max_total_time="$seconds" \
    -max_len=8192 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$folder/" \
    "$folder/corpus" "$folder/seeds" >"$folder/log" 2>&1; then
    echo "$target: no finding; $(grep -aE 'number_of_executed_units' "$folder/log")"
  else
    echo "$target: FINDING, see $folder/log"
    status=1
  fi
done
exit $status
