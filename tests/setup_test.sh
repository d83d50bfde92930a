#!/bin/sh
# What tools/setup.sh says to a user who may not install packages: tests/setup_test.sh
set -eu
setup=$(cd "$(dirname "$0")/.." && pwd)/tools/setup.sh
fakes=$(mktemp -d)
trap 'rm -rf "$fakes"' EXIT
fake() { printf '#!/bin/sh\n%s\n' "$2" > "$fakes/$1" && chmod +x "$fakes/$1"; }
fake apt-get 'echo "apt-get must not run" >&2; exit 9'
fake id 'case $1 in -u) echo 1000 ;; -un) echo somebody ;; esac'
fake sudo 'exit 1'
fail() { printf '%s\n%s\n' "$1" "$said"; exit 1; }

# All but two packages are there.
fake dpkg-query 'for p; do case $p in libfmt-dev|ninja-build) ;; -*) ;; *) echo "ii $p" ;; esac; done'
if said=$(PATH="$fakes:$PATH" "$setup" </dev/null 2>&1); then fail "it should have failed"; fi
printf '%s\n' "$said" | grep -qx "  apt-get update && apt-get install -y --no-install-recommends ninja-build libfmt-dev" ||
  fail "expected the line for an administrator"
printf '%s\n' "$said" | grep -q "may not be installed by somebody" || fail "expected the reason"

# Nothing is missing.
fake dpkg-query 'for p; do echo "ii $p"; done'
said=$(PATH="$fakes:$PATH" "$setup" </dev/null 2>&1) || fail "it should have passed"
[ -z "$said" ] || fail "it should have been silent"
