#!/usr/bin/env bash
# Fills a folder with Debian 12: what all test machines are made of.
#   test/machines/bootstrap.sh FOLDER PACKAGE...
set -euo pipefail
root=$1
shift
if [ "$(id -u)" != 0 ]; then
  echo "a Debian machine can be made by root only" >&2
  exit 1
fi
debootstrap --variant=minbase --include="$(IFS=,; echo "$*")" bookworm "$root" http://deb.debian.org/debian >&2
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
# Every machine gets an identity of its own when it starts.
rm -f "$root/etc/resolv.conf" "$root/etc/machine-id" "$root"/etc/ssh/ssh_host_*
touch "$root/etc/machine-id"
