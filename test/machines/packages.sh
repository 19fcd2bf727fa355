#!/usr/bin/env bash
# Runs inside a Debian machine with systemd: the life of Skiff's packages, from
# the first installation over upgrade and downgrade to the purge, with a pod that
# must not notice. Ends with an error at the first thing that is not as it
# should be, or when a purge leaves anything.
#   packages.sh ONE TWO        folders with the packages of two revisions
set -euo pipefail
one=$(realpath "$1") two=$(realpath "$2")
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 KUBECONFIG=/etc/skiff/admin.conf
work=$(mktemp -d)

say() { printf '== %s\n' "$*"; }
fail() {
  printf 'packages.sh: %s\n' "$*" >&2
  exit 1
}

# quietly runs a command and shows what it printed only when it fails.
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log"; fail "$*"; }; }

# Says what is wrong when it ends early.
explain() {
  [ "$1" = 0 ] && return
  set +e
  echo "ended in line $2" >&2
  systemctl --no-pager --lines=20 status 'skiff-*'
  [ ! -e "$KUBECONFIG" ] || skiff kubectl get pods,events -A
}
trap 'explain $? $LINENO' EXIT

# inventory prints everything that a package might leave behind, but for what
# dpkg, apt and the journal keep of every package.
inventory() {
  echo '# processes'
  for each in skiff runc containerd-shim; do pgrep -l "^${each:0:14}" | cut -d' ' -f2 || true; done
  echo '# mounts'
  awk '{print $2, $3}' /proc/mounts | grep -v '^/run/user/' | sort
  echo '# links and routes'
  ip -o link | sed 's/^[0-9]*: //; s/@.*//; s/:.*//' | sort
  ip route
  ip rule
  echo '# rules'
  nft list ruleset
  echo '# users'
  cut -d: -f1 /etc/passwd /etc/group
  echo '# units'
  systemctl list-unit-files --no-legend --no-pager 'skiff*' 'kubepods*' || true # its exit code says that there are none
  systemctl list-units --no-legend --no-pager --plain 'skiff*' 'kubepods*' | grep -v '\.device' || true
  echo '# cgroups'
  # Version 1 is shared with other machines of the same kernel where they are containers.
  [ ! -e /sys/fs/cgroup/cgroup.controllers ] || find /sys/fs/cgroup -type d \( -name 'kubepods*' -o -name 'skiff*' \) 2>/dev/null | sort
  echo '# containers'
  ctr -n k8s.io containers list -q
  ctr -n k8s.io snapshots list | awk 'NR > 1 && $3 == "Active" {print $1}'
  echo '# files'
  find / -xdev \( -path /proc -o -path /sys -o -path /tmp -o -path /var/tmp -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache \
    -o -path /var/log/journal -o -path /var/log/apt -o -path /var/lib/containerd -o -path /var/lib/systemd -o -path /root \) -prune -o \
    ! -name 'passwd-' ! -name 'shadow-' ! -name 'group-' ! -name 'gshadow-' ! -path '/var/log/*' -print | sort
  find /run /dev/shm -mindepth 1 \( -path /run/user -o -path /run/systemd -o -path /run/udev -o -path /run/log -o -path /run/containerd -o -path /run/dbus -o -path /run/xtables.lock \) -prune -o -print | sort
}

# install FOLDER installs all packages there, of whatever revision is installed.
install() { quietly apt-get install -qq -y --allow-downgrades -o Dpkg::Use-Pty=0 "$1"/*.deb; }

# pids prints the main processes of the daemons.
pids() { for each in control agent proxy; do systemctl show -P MainPID "skiff-$each"; done; }

# pod prints what changes when a pod is started anew.
pod() { skiff kubectl get pod box -o 'jsonpath={.metadata.uid} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].state.running.startedAt}'; }

# ready waits until the node answers for itself.
ready() { skiff kubectl wait --for=condition=Ready "node/$(hostname)" --timeout=120s >/dev/null; }

# What the packages need of Debian is no part of what they leave.
quietly apt-get install -qq -y --no-install-recommends containerd runc conntrack nftables kmod
[ -x /bin/busybox ] || quietly apt-get install -qq -y --no-install-recommends busybox-static
systemctl start containerd
inventory >"$work/before"

say "installed: nothing runs, nothing is enabled"
install "$one"
for each in control agent proxy; do
  ! systemctl -q is-active "skiff-$each" || fail "the package started skiff-$each"
  ! systemctl -q is-enabled "skiff-$each" || fail "the package enabled skiff-$each"
done
man -w skiff-init skiff-agent >/dev/null 2>&1 || ! command -v man >/dev/null || fail "the manual is not found"
[ -s /usr/share/bash-completion/completions/skiff ]

say "a cluster of one, and a pod"
mkdir -p "$work/image/bin"
cp /bin/busybox "$work/image/bin/"
ln -s busybox "$work/image/bin/sleep"
tar -C "$work/image" -cf "$work/layer.tar" .
sum=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
echo '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:'"$sum"'"]}}' >"$work/config.json"
echo '[{"Config":"config.json","RepoTags":["docker.io/library/box:1"],"Layers":["layer.tar"]}]' >"$work/manifest.json"
tar -C "$work" -cf "$work/image.tar" manifest.json config.json layer.tar
ctr -n k8s.io images import "$work/image.tar" >/dev/null
quietly skiff init
ready
skiff kubectl run box --image=docker.io/library/box:1 --image-pull-policy=Never --command -- sleep 86400 >/dev/null
skiff kubectl wait --for=condition=Ready pod/box --timeout=120s >/dev/null
[ "$(ps -o user= -p "$(systemctl show -P MainPID skiff-control)")" = skiff-control ] || fail "skiff-control does not run as its user"

for revision in "$two" "$one"; do
  say "another revision: the daemons are new, the pod is the same"
  old_pids=$(pids) old_pod=$(pod)
  install "$revision"
  ready
  [ "$(pod)" = "$old_pod" ] || fail "the pod was started anew: $old_pod became $(pod)"
  [ "$(comm -12 <(sort <<<"$old_pids") <(pids | sort))" = "" ] || fail "a daemon still runs its old program"
done

say "a conffile that was changed stays as it is"
echo 'SKIFF_AGENT_LOG_LEVEL=debug' >>/etc/default/skiff-agent
install "$two"
grep -q '^SKIFF_AGENT_LOG_LEVEL=debug' /etc/default/skiff-agent
ready

say "removed: daemons and pods have ended, the data is there"
quietly apt-get remove -qq -y skiff-agent skiff-proxy skiff-control skiff
! pgrep -f '^/usr/bin/skiff-' >/dev/null || fail "a daemon runs on"
[ -z "$(ctr -n k8s.io tasks list -q)" ] || fail "a pod runs on"
if [ ! -e /var/lib/skiff/control/store ] || [ ! -e /etc/skiff/pki/ca.key ]; then fail "the removal took data"; fi

say "installed again: what was enabled comes back"
install "$two"
systemctl start skiff-control skiff-agent skiff-proxy
ready
skiff kubectl wait --for=condition=Ready pod/box --timeout=120s >/dev/null

say "purged: nothing is left"
quietly apt-get purge -qq -y skiff-agent skiff-proxy skiff-control skiff
inventory >"$work/after"
diff "$work/before" "$work/after" || fail "the purge left what the difference above shows"
rm -rf "$work"
say "all as it should be"
