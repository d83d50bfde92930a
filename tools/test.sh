#!/usr/bin/env bash
# Builds and runs everything that can be proven on this machine: the tests as released, all of them again under ASan and
# UBSan, those with threads under TSan, and where there is an nvcc the CUDA build with the tests that need no device.
# Logs lie in build/logs. The last line sums all builds up: "N passed, N failed, N skipped"; exit code 1 when any failed.
# CONVOLT_TEST_DATA may name a folder of data sets; without it the tests that read them are skipped.
# --coverage: instead, the tests once with lines counted, and a table of what of src/ and kernels/ they ran.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/cuda/bin:$PWD/.deps/cuda/nvidia/cu13/bin
export OMP_WAIT_POLICY=passive
# What one checkout compiled serves every other, wherever it lies. Without these ccache keeps absolute paths apart, and
# objects with debug information by the folder they were compiled in; a sanitizer's report may then name that folder.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
logs=$PWD/build/logs
jobs=$(nproc) # here, since nproc heeds OMP_NUM_THREADS, which a stage below sets
rm -rf "$logs"
mkdir -p "$logs"

# The sanitizers of gcc 12 cannot map their shadow where the kernel randomises addresses by 32 bits.
fixed_addresses=()
if setarch "$(uname -m)" -R true 2>/dev/null; then fixed_addresses=(setarch "$(uname -m)" -R); fi

# stage PRESET [TEST...]: builds and runs all tests, or those named.
stage() {
  local name=$1 log=$logs/$1.log start=$SECONDS names
  shift
  mkdir -p "$logs/$name"
  names=$(IFS='|'; echo "$*")
  echo "== $name: building"
  # -k 0: one file that does not compile hides no other program's tests.
  if ! { cmake --preset "$name" &&
    cmake --build "build/$name" -j "$jobs" ${names:+--target "${@/#/test_}"} -- -k 0; } >"$log" 2>&1; then
    touch "$logs/$name/build_failed"
    { grep -E 'error:|CMake Error|undefined reference' "$log" || tail -n 20 "$log"; } | head -n 40
  fi
  echo "== $name: built in $((SECONDS - start)) s, testing"
  start=$SECONDS
  GTEST_OUTPUT=json:$logs/$name/ "${fixed_addresses[@]}" ctest --test-dir "build/$name" ${names:+-R "^($names)$"} \
    -j "$jobs" --timeout 900 --test-output-truncation head --output-junit "$logs/$name/junit.xml" >>"$log" 2>&1 || true
  tools/count_tests.py --show-failures "$logs/$name" || true
  echo "== $name: tested in $((SECONDS - start)) s"
}

if [ "${1:-}" = --coverage ]; then
  find build/coverage -name '*.gcda' -delete 2>/dev/null || true
  stage coverage
  tools/coverage.py build/coverage | tee "$logs/coverage.txt"
  tools/count_tests.py "$logs/coverage"
  exit
fi

kind=--cpu
if command -v nvcc >/dev/null; then kind=--cuda; fi
tools/setup.sh $kind || true # CMake says what is really missing
stage cpu
[ -e build/convolt ] || ln -sfn cpu/convolt build/convolt # as tools/build.sh leaves it
stage asan
OMP_NUM_THREADS=1 stage tsan core data train # what has threads; train runs whole plans
if [ $kind = --cpu ]; then
  echo "== cuda: left out, there is no nvcc"
elif tools/fetch_cuda_deps.sh --toolkit; then
  stage cuda
else
  echo "== cuda: skipped, its headers could not be fetched"
  mkdir -p "$logs/cuda" && touch "$logs/cuda/skipped"
fi
tools/count_tests.py "$logs"/*/
