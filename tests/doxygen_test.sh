#!/bin/sh
# Every public name is documented, and Doxygen has nothing to say: tests/doxygen_test.sh BUILD
# Leaves the pages in BUILD/docs. Exits with 77, skipped, where there is no doxygen.
set -eu
cd "$(dirname "$0")/.."
if ! command -v doxygen >/dev/null; then
  echo "doxygen is not installed"
  exit 77
fi
mkdir -p "$1/docs"
{ cat docs/Doxyfile; echo "OUTPUT_DIRECTORY = $1/docs"; } | doxygen -
