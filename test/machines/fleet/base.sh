#!/usr/bin/env bash
# Makes, once, what the machines of a fleet start from: a disk with Debian 12,
# systemd, sshd and Python, and nothing that Skiff needs. Prints its path; beside
# it, with the suffix .status, lies what dpkg says is installed.
#   test/machines/fleet/base.sh [CACHE]
set -euo pipefail
here=$(dirname "$(realpath "$0")")
cache=$(realpath -m "${1:-${XDG_CACHE_HOME:-$HOME/.cache}/skiff/machines}")
mkdir -p "$cache"
sum=$(cat "$0" "$here/../bootstrap.sh" | sha256sum | cut -c1-12)
image="$cache/fleet-$sum.ext4"
exec 9>"$cache/lock-fleet"
flock 9
if [ ! -e "$image" ]; then
  root=$cache/fleet-$sum.part
  rm -rf "$root"
  trap 'rm -rf "$root"' EXIT
  "$here/../bootstrap.sh" "$root" systemd systemd-sysv dbus udev kmod procps iproute2 iputils-ping openssh-server python3 python3-apt ca-certificates
  # In a container systemd mounts the hierarchies of cgroups v1 read-only, and
  # what runs containers needs to write there.
  cat >"$root/usr/local/sbin/fleet-cgroups" <<'SCRIPT'
#!/bin/sh
set -eu
mount -o remount,rw /sys/fs/cgroup
# 4:memory:/ and so on; the one named systemd is systemd's own, the one without a name is v2.
sed -n 's/^[0-9]*:\([a-z_,]\+\):.*/\1/p' /proc/self/cgroup | while read -r controllers; do
  folder=/sys/fs/cgroup/$controllers
  while umount "$folder" 2>/dev/null; do :; done
  [ -L "$folder" ] && rm "$folder"
  mkdir -p "$folder"
  mount -t cgroup -o "$controllers" cgroup "$folder"
done
SCRIPT
  chmod 755 "$root/usr/local/sbin/fleet-cgroups"
  cat >"$root/etc/systemd/system/fleet-cgroups.service" <<'UNIT'
[Unit]
Description=hierarchies of cgroups v1 that can be written
ConditionVirtualization=systemd-nspawn
ConditionPathExists=!/sys/fs/cgroup/cgroup.controllers
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/fleet-cgroups

[Install]
WantedBy=sysinit.target
UNIT
  systemctl --root="$root" enable fleet-cgroups systemd-networkd ssh >/dev/null 2>&1
  # Logs survive a machine.
  # As on a machine that was installed some time ago, what apt knows is old.
  touch -d 2024-01-01 "$root/var/lib/apt/lists"
  mkdir -p "$root/var/log/journal"
  echo 'deb [trusted=yes] http://192.168.56.1/debian ./' >"$root/etc/apt/sources.list"
  cp "$root/var/lib/dpkg/status" "$image.status"
  mkfs.ext4 -q -d "$root" -L fleet "$image.part" "${SIZE:-6G}" >&2
  mv "$image.part" "$image"
  find "$cache" -maxdepth 1 -name 'fleet-*.ext4*' ! -name "fleet-$sum.*" -mtime +1 -delete
fi
echo "$image"
