#!/usr/bin/env bash
# Proves Convolt on a machine with a GPU and nothing else: no network, no packages. tools/gpu_check.sh [RESULTS_DIR]
# Uses build/gpu/bundle.tar.xz (tools/gpu_bundle.sh), else build/cuda. Runs the op tests on `cuda` in all types, the parity of ten training
# steps of four networks between CPU and CUDA, compute-sanitizer over the op tests, a short real training with its accuracy, the time of
# a ResNet-50 step, and every kernel's fraction of the bandwidth of a copy; writes <results>/<gpu>/<date>-<commit>.json after every stage, so that a cut-off run leaves what it had.
# CONVOLT_GPU_STAGES="kernels conv" runs those stages only.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
results=${1:-benchmarks/results}

if [ -e build/gpu/bundle.tar.xz ]; then
  mkdir -p build/gpu/unpacked && tar -C build/gpu/unpacked -xJf build/gpu/bundle.tar.xz
  bin=$PWD/build/gpu/unpacked/bin
  export LD_LIBRARY_PATH=$PWD/build/gpu/unpacked/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
elif [ -e build/cuda/tests/cuda/test_gpu ]; then
  bin=$PWD/build/gpu/bin
  mkdir -p "$bin" && ln -sf "$PWD"/build/cuda/tests/test_* "$PWD"/build/cuda/tests/cuda/test_gpu "$PWD"/build/cuda/convolt "$bin"
else
  echo "gpu_check: nothing is built: run tools/gpu_bundle.sh first, on a machine with the CUDA toolkit" >&2
  exit 2
fi
if ! gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1) || [ -z "$gpu" ]; then
  echo "gpu_check: no NVIDIA GPU was found (nvidia-smi shows none)" >&2
  exit 4
fi
# cuDNN and cuBLAS may be Python packages.
packages=$(python3 -c 'import nvidia, os; print(":".join(os.path.join(r, d, "lib") for r in nvidia.__path__ for d in sorted(os.listdir(r))))' 2>/dev/null || true)
export CONVOLT_CUDA_LIBRARIES=${CONVOLT_CUDA_LIBRARIES:-$packages} OMP_WAIT_POLICY=passive

commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
folder=$results/$(tr -cs 'A-Za-z0-9\n' '-' <<<"$gpu" | sed 's/-*$//')
mkdir -p "$folder"
GPU_CHECK_FILE=$folder/$(date +%F)-$commit.json
GPU_CHECK_LOGS=build/gpu/logs
export GPU_CHECK_FILE GPU_CHECK_LOGS
mkdir -p "$GPU_CHECK_LOGS"
echo "gpu_check: $gpu, results in $GPU_CHECK_FILE"
exec python3 tools/gpu_check.py "$bin" "$gpu" "$commit"
