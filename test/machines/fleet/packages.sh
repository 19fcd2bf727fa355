#!/usr/bin/env bash
# Makes, once, an apt repository with what has to be installed on a fleet's
# machines from Debian, dependencies included, and prints its folder.
#   test/machines/fleet/packages.sh BASE [CACHE]
# BASE is the disk that base.sh made.
set -euo pipefail
base=$1
cache=$(realpath -m "${2:-${XDG_CACHE_HOME:-$HOME/.cache}/skiff/machines}")
packages=(containerd runc nftables iptables ipset ipvsadm conntrack kmod procps iproute2 ethtool socat util-linux e2fsprogs
  ca-certificates curl apparmor systemd-timesyncd adduser bash-completion open-iscsi nfs-common jq)
sum=$(cat "$0" "$base.status" | sha256sum | cut -c1-12)
folder=$cache/packages-$sum
exec 9>"$cache/lock-packages"
flock 9
if [ ! -e "$folder" ]; then
  part=$folder.part
  rm -rf "$part"
  trap 'rm -rf "$part"' EXIT
  mkdir -p "$part/partial"
  [ -n "$(ls /var/lib/apt/lists/*Packages* 2>/dev/null)" ] || apt-get update -qq >&2
  apt-get -qq -y -o Dir::State::status="$base.status" -o Dir::Cache::archives="$part" -o Debug::NoLocking=true -o APT::Sandbox::User=root \
    install --download-only --no-install-recommends "${packages[@]}" >/dev/null
  rm -rf "$part/partial" "$part/lock"
  (cd "$part" && dpkg-scanpackages -m . >Packages 2>/dev/null)
  mv "$part" "$folder"
  find "$cache" -maxdepth 1 -name 'packages-*' ! -name "packages-$sum" -mtime +1 -exec rm -rf {} +
fi
echo "$folder"
