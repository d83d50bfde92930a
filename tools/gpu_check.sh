#!/usr/bin/env bash
# Proves and measures Convolt on a machine with a GPU and nothing else: no network, no packages.
#   tools/gpu_check.sh [--again] [RESULTS_DIR] [STAGE...]
# Uses a bundle of tools/gpu_bundle.sh (build/gpu/bundle.tar.xz, or the unpacked folder that this script lies in), else build/cuda.
# Stages, the most telling first, each under 8 minutes; all that are named here or in CONVOLT_GPU_STAGES, else all:
#   ops       op tests on `cuda` in all types, with the machine            parity    ten training steps of networks, CPU and CUDA
#   step      training steps, pictures a second, the plan's bound          peers     the same training in PyTorch, in turn
#   kernels   each kernel beside a copy                                    conv      each convolution under the roofline
#   train     a training that must learn                                   sanitize  compute-sanitizer over the op tests
#   soak      a killed and resumed training, minutes of flat memory
# Results: RESULTS_DIR (benchmarks/results)/<gpu>/<date>-<commit>/{ops,step,peers,kernels,conv,train,sanitize}.json, written after
# every part; parity is in ops.json, soak in train.json. What was ok for this commit is not run again but with --again.
# CONVOLT_GPU_SECONDS bounds all of it; CONVOLT_TORCH_PYTHON is the Python that has PyTorch (python3).
# CONVOLT_GPU_CHECK_DEVICE=cpu runs the stages small on the CPU, to prove them where no GPU is; such results are none.
# Exit code: 0 every chosen stage is ok; 1 one failed or was not run; 2 usage, or nothing is built; 4 there is no GPU.
exec python3 "$(dirname "$0")/gpu_check" "$@"
