#!/usr/bin/env bash
# Runs inside a Debian machine with systemd and containerd: install.sh of the
# tarball, from the first installation over an upgrade to the removal.
#   tarball.sh FOLDER          the unpacked tarball
set -euo pipefail
folder=$1
export LC_ALL=C.UTF-8 KUBECONFIG=/etc/skiff/admin.conf
fail() {
  printf 'tarball.sh: %s\n' "$*" >&2
  exit 1
}
inventory() {
  find /usr/local /etc /var/lib -xdev \( -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/containerd -o -path /var/lib/systemd \) -prune -o \
    -type f ! -name 'passwd*' ! -name 'shadow*' ! -name 'group*' ! -name 'gshadow*' -print | sort
  cut -d: -f1 /etc/passwd
  awk '{print $2}' /proc/mounts | grep -v '^/run/user/' | sort
  nft list ruleset
  systemctl list-units --no-legend --no-pager --plain 'skiff*' 'kubepods*'
}

apt-get install -qq -y --no-install-recommends containerd runc conntrack nftables kmod >/dev/null 2>&1
before=$(inventory)
! "$folder/install.sh" --no-such-flag 2>/dev/null || fail "a flag that does not exist is taken"
"$folder/install.sh"
! systemctl -q is-active skiff-agent || fail "install.sh started skiff-agent"
/usr/local/bin/skiff init >/dev/null
skiff kubectl wait --for=condition=Ready "node/$(hostname)" --timeout=120s
old=$(systemctl show -P MainPID skiff-agent)
"$folder/install.sh"
[ "$(systemctl show -P MainPID skiff-agent)" != "$old" ] || fail "an upgrade left the old agent running"
skiff kubectl wait --for=condition=Ready "node/$(hostname)" --timeout=120s
! "$folder/install.sh" --uninstall --purge 2>/dev/null || fail "a member of a cluster is purged"
skiff reset --yes
"$folder/install.sh" --uninstall --purge
[ "$(inventory)" = "$before" ] || diff <(echo "$before") <(inventory) || fail "the removal left what the difference above shows"
echo "all as it should be"
