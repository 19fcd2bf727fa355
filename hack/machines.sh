#!/usr/bin/env bash
# Three Debian machines with systemd on this one, set up by Ansible as an
# administrator sets up theirs, to look at and to mistreat.
#   hack/machines.sh up          boots them and runs ansible/playbooks/site.yml
#   hack/machines.sh ssh m1 ...  a shell on one, or a command
#   hack/machines.sh play upgrade.yml ...   another playbook, with Ansible's flags
#   hack/machines.sh kubectl ... kubectl, or any program with `run`
#   hack/machines.sh run ...     a program of this machine in their network
#   hack/machines.sh down        takes them away
# REVISION=2 make deb, then play upgrade.yml, shows an upgrade.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
name=skm-${FLEET:-fleet}
folder=${XDG_CACHE_HOME:-$HOME/.cache}/skiff/machines/$name
inside() { nsenter --net="/run/netns/$name" -- "$@"; }
present() {
  [ -e "$folder/inventory.yml" ] || { echo "there is no fleet: hack/machines.sh up makes one" >&2; exit 1; }
}
play() {
  local book=$1
  shift
  # Fleets have the same addresses: their connections must not be mistaken for another's.
  ANSIBLE_CONFIG=ansible/ansible.cfg ANSIBLE_SSH_CONTROL_PATH_DIR="$folder/cp" inside ansible-playbook -i "$folder/inventory.yml" "ansible/playbooks/$book" "$@"
}
verb=${1:-}
[ $# -eq 0 ] || shift
case $verb in
up)
  go run ./test/machines/fleetctl up "$folder"
  play site.yml
  cat <<NEXT

Three machines run Skiff, in the network namespace $name; the kubeconfig is
$folder/kubeconfig
  hack/machines.sh kubectl get nodes -o wide
  hack/machines.sh ssh m1 systemctl status skiff-control
  hack/machines.sh ssh m1 journalctl -u skiff-agent
  hack/machines.sh play upgrade.yml
  hack/machines.sh down
NEXT
  ;;
ssh)
  present
  inside ssh -F "$folder/ssh_config" "$@"
  ;;
play)
  present
  play "$@"
  ;;
kubectl)
  present
  kubectl=(kubectl)
  command -v kubectl >/dev/null || kubectl=(bin/skiff kubectl)
  inside "${kubectl[@]}" --kubeconfig "$folder/kubeconfig" "$@"
  ;;
run)
  present
  inside "$@"
  ;;
down)
  go run ./test/machines/fleetctl down "$folder"
  ;;
*)
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
  ;;
esac
