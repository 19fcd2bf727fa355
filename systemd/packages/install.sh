#!/bin/sh
# Installs Skiff from this folder on a distribution that has systemd, where there
# are no Debian packages. It starts nothing new; daemons that run are restarted,
# which pods do not notice, so that it upgrades too.
#
#   ./install.sh [--prefix DIR]               install or upgrade; DIR is /usr/local by default
#   ./install.sh --uninstall [--purge]        stop and remove; with --purge also data and certificates
set -eu

prefix=/usr/local
action=install
purge=
while [ $# -gt 0 ]; do
  case $1 in
  --prefix)
    [ $# -gt 1 ] || { echo "--prefix: give a folder" >&2; exit 2; }
    prefix=$2
    shift
    ;;
  --prefix=*) prefix=${1#--prefix=} ;;
  --uninstall) action=uninstall ;;
  --purge) purge=yes ;;
  -h | --help)
    sed -n '2,8s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
  *)
    echo "$1: not known; see ./install.sh --help" >&2
    exit 2
    ;;
  esac
  shift
done
case $prefix in
/usr/local | /usr) ;;
*)
  echo "--prefix $prefix: systemd finds units, users and folders below /usr/local and /usr only" >&2
  exit 2
  ;;
esac
if [ -n "$purge" ] && [ "$action" = install ]; then
  echo "--purge: goes with --uninstall" >&2
  exit 2
fi
if [ "$(id -u)" != 0 ]; then
  echo "needs root: run it with sudo" >&2
  exit 1
fi
if [ ! -d /run/systemd/system ]; then
  echo "systemd does not run here. Without it the programs in bin/ work with \"skiff up\", from wherever they are." >&2
  exit 1
fi
here=$(cd "$(dirname "$0")" && pwd)
programs="skiff skiff-control skiff-agent skiff-proxy"
units="skiff-control.service skiff-agent.service skiff-proxy.service"

# lacking prints what the daemons call and this machine does not have.
lacking() {
  for program in containerd runc nft conntrack; do
    command -v "$program" >/dev/null || [ -x "/usr/sbin/$program" ] || [ -x "/usr/local/sbin/$program" ] || printf '%s ' "$program"
  done
}

# advice prints the command that installs them.
advice() {
  distribution=
  [ ! -r /etc/os-release ] || distribution=$(. /etc/os-release && echo "$ID ${ID_LIKE:-}")
  case " $distribution " in
  *' debian '* | *' ubuntu '*) echo "apt-get install containerd runc nftables conntrack" ;;
  *' fedora '*) echo "dnf install containerd runc nftables conntrack-tools" ;;
  *' rhel '* | *' centos '*) echo "dnf install nftables conntrack-tools, and containerd.io from Docker's repository" ;;
  *' suse '* | *' opensuse '*) echo "zypper install containerd runc nftables conntrack-tools" ;;
  *' arch '*) echo "pacman -S containerd runc nftables conntrack-tools" ;;
  *) echo "install containerd (1.6 or newer), runc, nftables and conntrack-tools" ;;
  esac
}

# place FILE FOLDER MODE NAME puts a file in place at once, so that a program that
# runs, or a machine that fails, has the old one or the new one.
place() {
  mkdir -p "$2"
  cp "$1" "$2/.$4.new"
  chmod "$3" "$2/.$4.new"
  mv -f "$2/.$4.new" "$2/$4"
}

install() {
  missing=$(lacking)
  if [ -n "$missing" ]; then
    echo "this machine lacks ${missing% }: $(advice)" >&2
    exit 1
  fi
  if [ "$prefix" = /usr/local ] && [ -e /usr/bin/skiff-agent ]; then
    echo "/usr/bin/skiff-agent is there, from a package: upgrade that, or remove it first" >&2
    exit 1
  fi
  for program in $programs; do place "$here/bin/$program" "$prefix/bin" 0755 "$program"; done
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  for unit in $units skiff-guard.service skiff.slice; do
    sed "s|/usr/bin/skiff|$prefix/bin/skiff|g; s|file:///usr/share/|file://$prefix/share/|g" "$here/systemd/$unit" >"$work/$unit"
    place "$work/$unit" "$prefix/lib/systemd/system" 0644 "$unit"
  done
  place "$here/systemd/skiff-control.sysusers.conf" "$prefix/lib/sysusers.d" 0644 skiff-control.conf
  place "$here/systemd/skiff-agent.modules.conf" "$prefix/lib/modules-load.d" 0644 skiff-agent.conf
  for daemon in control agent proxy; do
    place "$here/systemd/skiff-$daemon.tmpfiles.conf" "$prefix/lib/tmpfiles.d" 0644 "skiff-$daemon.conf"
  done
  for page in "$here"/man/*.gz; do
    name=${page##*/}
    section=${name%.gz}
    place "$page" "$prefix/share/man/man${section##*.}" 0644 "$name"
  done
  place "$here/completions/bash" "$prefix/share/bash-completion/completions" 0644 skiff
  place "$here/completions/zsh" "$prefix/share/zsh/site-functions" 0644 _skiff
  place "$here/completions/fish" "$prefix/share/fish/vendor_completions.d" 0644 skiff.fish
  for file in "$here"/docs/*.md "$here/README.md" "$here/LICENSE"; do place "$file" "$prefix/share/doc/skiff" 0644 "${file##*/}"; done

  systemd-sysusers "$prefix/lib/sysusers.d/skiff-control.conf"
  for daemon in control agent proxy; do systemd-tmpfiles --create "$prefix/lib/tmpfiles.d/skiff-$daemon.conf" || true; done
  # What is built in, or may not be loaded here, is not an error: the agent says
  # what it misses.
  while read -r module; do
    case $module in '#'* | '') ;; *) modprobe -q "$module" || true ;; esac
  done <"$here/systemd/skiff-agent.modules.conf"
  systemctl daemon-reload
  restarted=
  for unit in $units; do
    if systemctl -q is-active "$unit"; then
      timeout 90 systemctl restart "$unit" || echo "$unit is not ready yet: see systemctl status $unit" >&2
      restarted=yes
    fi
  done
  echo "installed in $prefix"
  [ -n "$restarted" ] || echo "Next: \"skiff init\" founds a cluster, \"skiff join\" makes this machine part of one."
}

uninstall() {
  if [ -e /etc/skiff/machine.yaml ] && [ -n "$purge" ]; then
    echo "this machine is part of a cluster: type \"skiff reset --yes\" first, so that it leaves it" >&2
    exit 1
  fi
  for unit in skiff-agent.service skiff-proxy.service skiff-guard.service skiff-control.service; do
    if systemctl -q cat "$unit" >/dev/null 2>&1; then systemctl disable --now "$unit"; fi
  done
  systemctl stop skiff.slice
  # Nobody could take away later what they made in the kernel.
  if [ -e /etc/skiff/agent.yaml ] && [ -x "$prefix/bin/skiff-agent" ]; then
    "$prefix/bin/skiff-agent" cleanup --config /etc/skiff/agent.yaml --log-level error
  fi
  if [ -x "$prefix/bin/skiff-proxy" ]; then "$prefix/bin/skiff-proxy" cleanup; fi
  for program in $programs; do rm -f "$prefix/bin/$program"; done
  for unit in $units skiff-guard.service skiff.slice; do rm -f "$prefix/lib/systemd/system/$unit"; done
  rm -f "$prefix/lib/sysusers.d/skiff-control.conf" "$prefix/lib/modules-load.d/skiff-agent.conf" "$prefix"/lib/tmpfiles.d/skiff-control.conf \
    "$prefix"/lib/tmpfiles.d/skiff-agent.conf "$prefix"/lib/tmpfiles.d/skiff-proxy.conf "$prefix"/share/man/man[18]/skiff*.gz \
    "$prefix/share/bash-completion/completions/skiff" "$prefix/share/zsh/site-functions/_skiff" "$prefix/share/fish/vendor_completions.d/skiff.fish"
  rm -rf "$prefix/share/doc/skiff"
  systemctl daemon-reload
  # A unit that is gone has not failed.
  systemctl reset-failed skiff-agent.service skiff-proxy.service skiff-guard.service skiff-control.service 2>/dev/null || true
  if [ -n "$purge" ]; then
    rm -rf --one-file-system /etc/skiff /var/lib/skiff /var/lib/kubelet /var/log/pods /var/log/containers /var/log/skiff /run/skiff
    if getent passwd skiff-control >/dev/null; then userdel skiff-control; fi
    echo "removed, with all data"
  else
    echo "removed; /etc/skiff and /var/lib/skiff stay (--purge removes them too)"
  fi
}

$action
