#!/usr/bin/env bash
# Builds the release program, build/convolt: tools/build.sh [--cuda|--cpu]
# Without an option: CUDA where nvcc and cudnn-frontend are at hand or an NVIDIA driver is present (what else a CUDA build
# needs is fetched into .deps), else CPU. Done in a second when nothing has changed.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/cuda/bin:$PWD/.deps/cuda/nvidia/cu13/bin

wants_cuda() {
  [ -e /dev/nvidiactl ] || command -v nvidia-smi >/dev/null ||
    { command -v nvcc && { [ -e .deps/cudnn_frontend ] || [ -e /usr/include/cudnn_frontend.h ]; }; } >/dev/null
}

# prepare KIND: packages, what CUDA needs beside them, and a configured folder; quick when it is all there.
prepare() {
  # Who cannot install packages may have the libraries from elsewhere: CMake says which are really missing.
  tools/setup.sh "--$1" || true
  if [ "$1" = cuda ]; then tools/fetch_cuda_deps.sh --toolkit || return; fi
  [ -e "build/$1/build.ninja" ] || cmake --preset "$1" --log-level=WARNING
}

case "$*" in
  --cpu) kind=cpu ;;
  --cuda) kind=cuda ;;
  "") kind=auto ;;
  *) echo "usage: tools/build.sh [--cuda|--cpu]" >&2; exit 2 ;;
esac
if [ $kind = auto ]; then
  kind=cpu
  if wants_cuda; then
    if prepare cuda; then kind=cuda; else echo "build: no CUDA build, as said above: building for the CPU" >&2; fi
  fi
fi
prepare $kind
cmake --build build/$kind --target convolt_program -j "$(nproc)"
ln -sfn $kind/convolt build/convolt
echo "build/convolt is ready ($kind)"
