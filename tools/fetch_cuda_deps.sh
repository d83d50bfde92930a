#!/bin/sh
# Fetches what a CUDA build needs and Debian does not have, as wheels from PyPI, into .deps:
#
#   tools/fetch_cuda_deps.sh               the headers of cudnn-frontend, and nvJPEG
#   tools/fetch_cuda_deps.sh --toolkit     and, where no complete toolkit is on PATH, NVIDIA's: nvcc, the static
#                                          runtime, cuBLASLt, NVRTC and cuDNN (no root needed; 2 GB unpacked)
#   tools/fetch_cuda_deps.sh --into DIR    somewhere else than .deps
#
# What is there already is left alone. Things appear whole, by rename, so a run that was cut off does no harm.
set -eu
export PIP_ROOT_USER_ACTION=ignore

frontend="nvidia-cudnn-frontend==1.32.0"
nvjpeg="nvidia-nvjpeg==13.0.4.44"
toolkit="cuda-toolkit[nvcc,cudart,cccl,crt,nvvm,nvrtc,cublas]==13.0.2 nvidia-cudnn-cu13==9.19.0.56"

root=$(cd "$(dirname "$0")/.." && pwd)/.deps
want_toolkit=no
while [ $# -gt 0 ]; do
  case $1 in
    --toolkit) want_toolkit=yes ;;
    --into) root=${2:?--into needs a folder}; shift ;;
    *) echo "usage: $0 [--toolkit] [--into DIR]" >&2; exit 2 ;;
  esac
  shift
done
mkdir -p "$root"
root=$(cd "$root" && pwd)

# present NAME REQUIREMENTS: NAME was fetched from exactly these.
present() { [ "$(cat "$root/$1/.fetched" 2>/dev/null)" = "$2" ]; }

# install NAME FOLDER REQUIREMENTS: unpacks wheels, checks for FOLDER inside, and puts that folder at NAME.
install() {
  if present "$1" "$3"; then
    echo "$1: present"
    return
  fi
  work=$(mktemp -d "$root/.fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT INT TERM
  # The requirements are words for pip.
  # shellcheck disable=SC2086
  python3 -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --only-binary=:all: $4 \
    --target "$work/wheels" $3
  [ -d "$work/wheels/$2" ] || { echo "$3 holds no $2" >&2; exit 1; }
  mkdir "$work/$1"
  mv "$work/wheels/$2" "$work/$1/${5:-}"
  if [ "$1" = cuda ]; then # names that nvcc and CMake look for and the wheels leave out
    ln -s lib "$work/cuda/nvidia/cu13/lib64"
    ln -s libcudart.so.13 "$work/cuda/nvidia/cu13/lib/libcudart.so"
  fi
  printf '%s\n' "$3" > "$work/$1/.fetched"
  [ ! -e "$root/$1" ] || mv "$root/$1" "$work/old"
  mv "$work/$1" "$root/$1"
  rm -rf "$work"
  trap - EXIT INT TERM
  echo "$1: fetched"
}

# The toolkit on PATH serves when it is new enough and has the headers of the libraries too.
complete_toolkit_on_path() {
  nvcc=$(command -v nvcc) || return 1
  include=$(dirname "$(dirname "$(readlink -f "$nvcc")")")/include
  for header in cudnn.h cublasLt.h nvrtc.h; do
    [ -e "$include/$header" ] || return 1
  done
}

install cudnn_frontend include "$frontend" --no-deps include
install nvjpeg nvidia/cu13 "$nvjpeg" --no-deps
if [ $want_toolkit = yes ]; then
  if complete_toolkit_on_path; then
    echo "toolkit: $(command -v nvcc) is complete"
  else
    install cuda nvidia "$toolkit" "" nvidia
  fi
fi
