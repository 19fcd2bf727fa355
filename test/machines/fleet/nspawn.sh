#!/usr/bin/env bash
# Runs a machine as a systemd-nspawn container until it is switched off, in the
# network namespace that this runs in, and starts it again when its system
# reboots. SIGKILL pulls the plug: the container ends with its supervisor.
#   bash -c SCRIPT nspawn NAME HOSTNAME ROOT CGROUP
set -euo pipefail
name=$1 hostname=$2 root=$3 cgroup=$4
for procs in /sys/fs/cgroup/*"$cgroup"/cgroup.procs /sys/fs/cgroup"$cgroup"/cgroup.procs; do
  if [ -e "$procs" ]; then echo $$ >"$procs"; fi
done
while :; do
  # The network card of a machine whose plug was pulled goes a moment after it.
  for _ in $(seq 500); do
    ip link show "vb-$name" >/dev/null 2>&1 || break
    sleep 0.02
  done
  status=0
  systemd-nspawn --quiet --directory="$root" --machine="$name" --hostname="$hostname" --boot --register=no --keep-unit \
    --network-bridge=br0 --capability=all --system-call-filter=@known --resolv-conf=off --timezone=off --link-journal=no </dev/null || status=$?
  # That is how a reboot is asked for.
  [ "$status" = 133 ] || exit "$status"
  find /sys/fs/cgroup/*"$cgroup" -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null || true
done
