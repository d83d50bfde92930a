#!/usr/bin/env bash
# Packs all that tools/gpu_check.sh needs into build/gpu/bundle.tar.xz: the CUDA build's programs, stripped, the shared libraries that
# a bare machine lacks, the scripts of the stages and of the comparisons with PyTorch, the networks, a data set, and the commit.
# Carry it to a machine with a GPU, which needs neither packages nor a network: beside the sources, or alone; then unpack it and run
# the tools/gpu_check.sh in it. For a small bundle configure build/cuda against a static OpenCV (-DOpenCV_DIR=...): Debian's brings a
# hundred libraries along. CONVOLT_BUNDLE_BUILD takes the programs of another folder as they are.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${CONVOLT_BUNDLE_BUILD:-build/cuda}
limit_mib=60 # what may travel to such a machine is 64 MiB, with the sources
programs=(tests/test_kernels tests/test_conv tests/test_graph tests/cuda/test_gpu convolt)
targets=(test_kernels test_conv test_graph test_gpu convolt_program)
if [ -z "${CONVOLT_BUNDLE_BUILD:-}" ]; then
  tools/build.sh --cuda
  cmake --build build/cuda -j "$(nproc)" --target "${targets[@]}"
fi
out=build/gpu stage=build/gpu/bundle
rm -rf "$stage" "$out/bundle.tar.xz"
mkdir -p "$stage"/{bin,lib,data,tools,benchmarks}
for program in "${programs[@]}"; do strip -o "$stage/bin/${program##*/}" "$build/$program"; done
# Everything but the C library and the loader; the driver, cuDNN and cuBLAS are found on the machine. A shared imgcodecs is
# loaded by name (src/data/opencv_codecs.cpp), so that ldd does not tell of it; it lies beside OpenCV's core.
core=$(ldd "$stage/bin/convolt" | awk '/libopencv_core/ {print $3}')
codecs=${core/_core/_imgcodecs}
[ -z "$codecs" ] || cp -Lt "$stage/lib" "$codecs"
ldd "$stage"/bin/* $codecs | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
  grep -vE '/(libc|libm|libpthread|libdl|librt|ld-linux[^/]*|libresolv)\.so' | xargs -r cp -Lt "$stage/lib"
[ ! -e .deps/nvjpeg ] || cp -L .deps/nvjpeg/cu13/lib/libnvjpeg.so.* "$stage/lib" # PyTorch, where the others are from, lacks it
cp -r tools/gpu_check tools/gpu_check.sh "$stage/tools"
cp -r benchmarks/peers benchmarks/networks "$stage/benchmarks"
find "$stage" -name __pycache__ -prune -exec rm -r {} +
"$build/convolt" synth "$stage/data/shapes" --train-per-class 300 -j "$(nproc)" >/dev/null
git rev-parse --short HEAD >"$stage/commit"
[ -z "$(git status --porcelain --untracked-files=no)" ] || sed -i 's/$/-changed/' "$stage/commit"
# Each program holds the same kernels: a window over all of them packs these once.
XZ_OPT=--lzma2=preset=6,dict=256MiB tar -C "$stage" -cJf "$out/bundle.tar.xz" bin lib data tools benchmarks commit
rm -rf "$stage"
size=$(du -m "$out/bundle.tar.xz" | cut -f1)
echo "$out/bundle.tar.xz: $size MiB"
if [ "$size" -gt $limit_mib ]; then
  echo "gpu_bundle: more than $limit_mib MiB: too much to travel with the sources" >&2
  exit 1
fi
