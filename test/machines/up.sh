#!/usr/bin/env bash
# Runs inside a Debian machine: a cluster with `skiff up`, where systemd owns the
# only cgroup tree there is and IPVS serves services; a pod of each class, and a
# service. Ends with an error at the first thing that is not as it should be.
#   up.sh FOLDER        where the four programs are
set -euo pipefail
bin=$1
# Says what is wrong when it ends early.
explain() {
  [ "$1" = 0 ] && return
  set +e
  export KUBECONFIG=/etc/skiff/admin.conf
  "$bin/skiff" kubectl describe pods
  "$bin/skiff" kubectl get events
  tail -n 30 /var/log/skiff/agent.log
}
trap 'explain $?' EXIT
link=$(ls /sys/class/net | grep -v '^lo$' | head -1)
ip link set "$link" up
ip address replace 192.0.2.2/24 dev "$link"
ip route replace default via 192.0.2.254

"$(dirname "$(readlink -f "$0")")/box.sh"

mkdir -p /etc/skiff
printf 'apiVersion: skiff.dev/v1\nkind: ProxyConfiguration\nmode: ipvs\nipvs: {syncPeriod: 2s}\n' >/etc/skiff/proxy.yaml
printf 'apiVersion: skiff.dev/v1\nkind: AgentConfiguration\ncgroupDriver: systemd\n' >/etc/skiff/agent.yaml
"$bin/skiff" up --detach --binaries "$bin"
export KUBECONFIG=/etc/skiff/admin.conf
kubectl() { "$bin/skiff" kubectl "$@"; }

kubectl apply -f - <<'PODS'
apiVersion: v1
kind: Pod
metadata: {name: guaranteed, labels: {app: web}}
spec:
  containers:
  - name: web
    image: docker.io/library/box:1
    imagePullPolicy: Never
    command: [httpd, -f, -p, "8080", -h, /www]
    resources: {limits: {cpu: "1", memory: 64Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: besteffort}
spec:
  containers: [{name: box, image: docker.io/library/box:1, imagePullPolicy: Never, command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
PODS
kubectl wait --for=condition=Ready pod/guaranteed pod/besteffort --timeout=400s

# The pod's limits stand in a slice of systemd's.
uid=$(kubectl get pod guaranteed -o 'jsonpath={.metadata.uid}')
slice=kubepods-pod${uid//-/_}.slice
[ "$(systemctl show -P ActiveState "$slice")" = active ]
[ "$(cat "/sys/fs/cgroup/kubepods.slice/$slice/memory.max")" = 67108864 ]
[ "$(cat "/sys/fs/cgroup/kubepods.slice/$slice/cpu.max")" = "100000 100000" ]

# IPVS leads from the pod, and from the machine, to the pod.
address=$(kubectl get service web -o 'jsonpath={.spec.clusterIP}')
for _ in $(seq 100); do
  ipvsadm -Ln -t "$address:80" | grep -q ':8080 ' && break
  sleep 0.2
done
[ "$(curl -sS --max-time 20 "http://$address/")" = "this is the pod" ]
[ "$(kubectl exec besteffort -- wget -q -O - "http://web.default.svc.cluster.local/")" = "this is the pod" ]
[ "$(kubectl exec guaranteed -- wget -q -O - "http://$address/")" = "this is the pod" ]
ipvsadm -Ln
systemd-cgls --no-pager --unit kubepods.slice
kubectl get nodes,pods,services -o wide

# Nothing is left.
"$bin/skiff" reset --yes
"$bin/skiff-proxy" cleanup
[ -z "$(ipvsadm -Sn)" ]
[ ! -e /sys/class/net/kube-ipvs0 ]
! iptables-save | grep KUBE-IPVS
! ipset list -n | grep KUBE
[ ! -e /sys/fs/cgroup/kubepods.slice ] || [ -z "$(cat /sys/fs/cgroup/kubepods.slice/cgroup.procs)" ]
echo "all as it should be"
