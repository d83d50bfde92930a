#!/usr/bin/env bash
# Installs the Debian 12 packages that building and testing need, as far as they are missing: tools/setup.sh [--cpu|--cuda]
# --cuda adds pip, with which tools/fetch_cuda_deps.sh fetches.
set -euo pipefail

packages=(g++ cmake ninja-build ccache git ca-certificates python3 libopencv-dev libdnnl-dev libcli11-dev
  nlohmann-json3-dev libtomlplusplus-dev libfmt-dev libgtest-dev libgmock-dev zlib1g-dev libjpeg-dev xz-utils procps)
[ "${1:-}" != --cuda ] || packages+=(python3-pip)

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "setup: this is no Debian system: install what these packages hold by hand: ${packages[*]}" >&2
  exit 1
fi
installed=$(dpkg-query -W -f='${db:Status-Abbrev}${Package}\n' "${packages[@]}" 2>/dev/null | sed -n 's/^ii //p' || true)
missing=()
for package in "${packages[@]}"; do
  grep -qx -- "$package" <<<"$installed" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: run this as root: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "setup: installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${missing[@]}" >/dev/null
