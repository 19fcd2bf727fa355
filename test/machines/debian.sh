#!/usr/bin/env bash
# Makes the disk of a Debian machine with systemd, containerd and pure cgroup v2,
# for a kernel that kernel.sh unpacked, and prints its path. It is made once;
# machines write to layers over it.
#   test/machines/debian.sh KERNEL [CACHE]
set -euo pipefail
here=$(dirname "$(realpath "$0")")
kernel=$1
cache=$(realpath -m "${2:-${XDG_CACHE_HOME:-$HOME/.cache}/skiff/machines}")
mkdir -p "$cache"
# Another kernel or recipe makes another disk.
sum=$(cat "$0" "$here/bootstrap.sh" <(basename "$kernel") | sha256sum | cut -c1-12)
image="$cache/debian-$sum.ext4"
exec 9>"$cache/lock-debian"
flock 9
if [ ! -e "$image" ]; then
  rm -rf "$cache"/debian-*
  root=$cache/debian-$sum.part
  trap 'rm -rf "$root"' EXIT
  "$here/bootstrap.sh" "$root" systemd systemd-sysv systemd-timesyncd dbus udev kmod procps iproute2 iputils-ping nftables iptables ipset ipvsadm conntrack containerd runc openssh-server python3-minimal curl ca-certificates busybox-static
  cp -a "$kernel"/lib/modules/. "$root/usr/lib/modules/"
  # The program comes with the RAM disk, whenever a machine starts.
  cat >"$root/etc/systemd/system/skiff-guest.service" <<'UNIT'
[Unit]
Description=runs what a test asks for
After=multi-user.target

[Service]
ExecStart=/usr/local/sbin/skiff-guest
# Not a part of what is tested.
Slice=-.slice
KillMode=process
LimitNOFILE=1048576
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

[Install]
WantedBy=multi-user.target
UNIT
  mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
  ln -s ../skiff-guest.service "$root/etc/systemd/system/multi-user.target.wants/"
  printf '%s\n' virtio_pci virtio_console virtio_net virtio_rng overlay br_netfilter ip_vs nf_conntrack >"$root/etc/modules-load.d/machine.conf"
  printf '/dev/vda / ext4 defaults 0 1\n' >"$root/etc/fstab"
  echo machine >"$root/etc/hostname"
  printf '127.0.0.1 localhost machine\n::1 localhost\n' >"$root/etc/hosts"
  mkfs.ext4 -q -d "$root" -L machine "$image.part" "${SIZE:-6G}" >&2
  mv "$image.part" "$image"
fi
echo "$image"
