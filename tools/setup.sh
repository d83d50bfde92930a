#!/usr/bin/env bash
# Installs the packages that building and testing need, as far as they are missing: tools/setup.sh [--cpu|--cuda]
# --cuda adds pip, with which tools/fetch_cuda_deps.sh fetches. The names are those of Debian 12 and 13 and of Ubuntu 24.04 (from
# its component universe). Where the caller may not install, it prints the line for an administrator and fails.
set -euo pipefail

packages=(g++ cmake ninja-build ccache git ca-certificates python3 libopencv-dev libdnnl-dev libcli11-dev
  nlohmann-json3-dev libtomlplusplus-dev libfmt-dev libgtest-dev libgmock-dev zlib1g-dev libjpeg-dev libpng-dev libgif-dev libwebp-dev libarchive-dev libzip-dev libxxhash-dev pkgconf xz-utils procps)
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

install=(apt-get install -y --no-install-recommends "${missing[@]}")
refused() {
  echo "setup: packages are missing and may not be installed by $(id -un); an administrator can, by" >&2
  echo "  apt-get update && ${install[*]}" >&2
  exit 1
}

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || refused
  # Without a terminal nobody could type a password.
  if [ -t 0 ]; then sudo -v || refused; else sudo -n true 2>/dev/null || refused; fi
  as_root=(sudo)
fi
echo "setup: installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" -qq >/dev/null
