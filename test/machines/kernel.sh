#!/usr/bin/env bash
# Unpacks Debian's cloud kernel with its modules, without installing it, and
# prints the folder.
#   test/machines/kernel.sh [CACHE]
set -euo pipefail
cache=$(realpath -m "${1:-${XDG_CACHE_HOME:-$HOME/.cache}/skiff/machines}")
mkdir -p "$cache"
# Two runs at once must not unpack into each other.
exec 9>"$cache/lock"
flock 9
if [ -z "$(find "$cache" -maxdepth 1 -name 'kernel-*' -not -name '*.part' -print -quit)" ]; then
  package=$(apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" && /linux-image/ {print $2; exit}')
  if [ -z "$package" ]; then
    echo "the package linux-image-cloud-amd64 is not known here: run apt-get update, on Debian" >&2
    exit 1
  fi
  part="$cache/kernel-$package.part"
  rm -rf "$part"
  mkdir "$part"
  (cd "$part" && apt-get download -qq "$package" >&2 && dpkg-deb -x ./*.deb . && rm ./*.deb)
  mv "$part"/boot/vmlinuz-* "$part/vmlinuz"
  depmod -b "$part" "$(ls "$part/lib/modules")"
  mv "$part" "$cache/kernel-$package"
fi
find "$cache" -maxdepth 1 -name 'kernel-*' -not -name '*.part' | sort -V | tail -1
