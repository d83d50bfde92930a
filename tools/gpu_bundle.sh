#!/usr/bin/env bash
# Packs what tools/gpu_check.sh needs into build/gpu: the CUDA build's programs, stripped, and the shared libraries that a bare machine
# lacks, compressed. Carry the folder with the sources to a machine with a GPU, which needs neither packages nor a network.
# For a small bundle configure build/cuda against a static OpenCV (-DOpenCV_DIR=...): Debian's brings a hundred libraries along.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/build.sh --cuda
programs=(tests/test_kernels tests/test_conv tests/test_graph tests/cuda/test_gpu convolt)
targets=(test_kernels test_conv test_graph test_gpu convolt_program)
cmake --build build/cuda -j "$(nproc)" --target "${targets[@]}"
rm -rf build/gpu
mkdir -p build/gpu/bin build/gpu/lib
for program in "${programs[@]}"; do strip -o "build/gpu/bin/${program##*/}" "build/cuda/$program"; done
# Everything but the C library and the loader; the driver, cuDNN and cuBLAS are found on the machine.
ldd build/gpu/bin/* | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
  grep -vE '/(libc|libm|libpthread|libdl|librt|ld-linux[^/]*|libresolv)\.so' | xargs -r cp -Lt build/gpu/lib
tar -C build/gpu -cJf build/gpu/bundle.tar.xz bin lib
rm -rf build/gpu/bin build/gpu/lib
du -h build/gpu/bundle.tar.xz
