#!/usr/bin/env bash
# Installs the programs Skiff needs from Debian, when they are missing.
#   hack/deps.sh [--test] [--machines]
# --test adds what only the tests and the demo need, --machines what the tests in
# virtual machines need.
set -euo pipefail
wanted="containerd:containerd runc:runc nft:nftables conntrack:conntrack ip:iproute2"
[[ " $* " = *" --test "* ]] || [ -n "${DEMO:-}" ] && wanted="$wanted docker-registry:docker-registry iptables:iptables curl:curl busybox:busybox-static systemd-nspawn:systemd-container systemd-analyze:systemd debootstrap:debootstrap ssh:openssh-client dpkg-scanpackages:dpkg-dev ansible-playbook:ansible-core"
case " $* " in
*" --machines "*)
  wanted="$wanted qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils debootstrap:debootstrap depmod:kmod busybox:busybox-static iptables:iptables ipset:ipset ipvsadm:ipvsadm"
  ;;
esac
missing=()
for each in $wanted; do
  command -v "${each%%:*}" >/dev/null || [ -x "/usr/sbin/${each%%:*}" ] || missing+=("${each##*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "these programs are missing: ${missing[*]}; install them as root (on Debian: apt-get install ${missing[*]})" >&2
  exit 1
fi
echo "installing ${missing[*]}"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
