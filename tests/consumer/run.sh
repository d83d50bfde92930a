#!/bin/sh
# Installs a build into a folder and uses it from there, by find_package() and by pkg-config:
# tests/consumer/run.sh BUILD CXX CC
set -eu
source=$(cd "$(dirname "$0")" && pwd)
work=$1/tests/consumer
rm -rf "$work"
cmake --install "$1" --prefix "$work/prefix" >/dev/null

cmake -S "$source" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_CXX_COMPILER="$2" --log-level=WARNING
cmake --build "$work/build"
"$work/build/consumer"
"$work/prefix/bin/convolt" --version

if ! command -v pkg-config >/dev/null; then
  echo "pkg-config is not installed: convolt.pc was not tried"
  exit 0
fi
PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name convolt.pc)")
export PKG_CONFIG_PATH
# Its words are for the compiler.
# shellcheck disable=SC2046
"$3" -std=c99 -Wall -Wextra -Werror "$source/main.c" -o "$work/main_c" $(pkg-config --cflags --libs convolt)
"$work/main_c"
