# Prints what there is on this machine, one thing a line: processes, units,
# mounts, links, routes, rules, users, cgroups, kernel settings, packages, and
# files that no package owns.
set -euo pipefail
ps -eo ppid=,pid=,comm= | awk '$1 != 2 && $2 != 2 {print "process", $3}' | grep -Ev ' (ps|awk|sort|bash|sshd|grep|sftp-server|\(sd-pam\)|systemd-(hostnam|timedat|localed|userwor).*)$' | sort -u
systemctl list-units --all --plain --no-legend --type=service,socket,slice,timer,path,target | awk '$3 == "active" && $1 !~ /^(user|session|ssh@|run-)/ {print "unit", $1}' | grep -Ev 'user-|apt-daily|dpkg-db|man-db|e2scrub|fstrim|logrotate|systemd-(hostnamed|tmpfiles-clean|timedated)' | sort -u
systemctl list-units --all --state=failed --plain --no-legend | awk '{print "failed", $1}'
awk '$2 !~ /^\/run\/(user|credentials)/ {print "mount", $2, $3}' /proc/self/mounts | sort -u
ip -o link | awk -F': ' '{sub(/@.*/, "", $2); print "link", $2}'
# A card's own address in IPv6 comes a moment after it, and may be another one after a reboot.
ip -o route show table all | grep -v ' fe80::' | sed -E 's/ (expires|pref|metric) [0-9a-z]+//g; s/ *$//; s/^/route /' | sort -u
ip rule | sed 's/^/rule /'
if command -v nft >/dev/null; then nft list ruleset | sed -n 's/^table/rules table/p'; fi
if command -v iptables-save >/dev/null; then { iptables-save; ip6tables-save; } 2>/dev/null | sed -n 's/^-A/rules -A/p'; fi
cut -d: -f1 /etc/passwd | sed 's/^/user /'
cut -d: -f1 /etc/group | sed 's/^/group /'
find /sys/fs/cgroup -mindepth 1 -type d \( -name 'kubepods*' -o -name '*skiff*' \) | sed 's/^/cgroup /'
for each in net.ipv4.ip_forward net.ipv4.conf.all.forwarding net.ipv6.conf.all.forwarding; do echo "sysctl $(sysctl "$each" 2>/dev/null)"; done
dpkg-query -W -f='${db:Status-Abbrev} ${Package}\n' | awk '$1 != "un" {print "package", $NF}' | sort
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/tmp -o -path /root/.ansible -o -path /var/log/journal \
  -o -path /var/lib/systemd -o -path /var/lib/private \) -prune -o ! -type d -print -o -type d -print | sort >/tmp/inventory.files
{ cat /var/lib/dpkg/info/*.list; echo /; } | sort -u >/tmp/inventory.owned
# Debian 12 has one /usr, whose packages still say /lib.
sed -nE 's#^/(s?bin|lib[0-9a-z]*)(/.*)?$#/usr/\1\2#p' /tmp/inventory.owned | sort -u - /tmp/inventory.owned >/tmp/inventory.all
comm -23 /tmp/inventory.files /tmp/inventory.all | grep -Ev '^/etc/(passwd|shadow|group|gshadow|subuid|subgid)-$|__pycache__|^/run/' | sed 's/^/file /'
find /run -mindepth 1 \( -path /run/user -o -path /run/systemd -o -path /run/udev -o -path /run/log -o -path /run/dbus -o -path /run/sshd -o -path /run/credentials -o -path /run/host \) -prune -o -print | sed 's/^/file /' | sort
rm -f /tmp/inventory.*
