#!/usr/bin/env bash
# Runs inside a Debian machine: a cluster of systemd's units. Pods of every kind
# that needs something of a hardened agent, then each daemon is restarted, killed
# and stopped in its tracks, and no pod notices. Ends with an error at the first
# thing that is not as it should be.
#   units.sh FOLDER     with bin/ (the four programs) and systemd/ (the units)
set -euo pipefail
source_folder=$1
here=$(dirname "$(readlink -f "$0")")
daemons="control agent proxy"
node=$(hostname)
export KUBECONFIG=/etc/skiff/admin.conf
kubectl() { skiff kubectl "$@"; }

# Says what is wrong when it ends early.
explain() {
  [ "$1" = 0 ] && return
  set +e
  [ ! -e "$KUBECONFIG" ] || kubectl get pods,events
  systemctl status --no-pager --lines 5 'skiff-*'
  journalctl --no-pager --priority warning --lines 40 --unit 'skiff-*'
}
trap 'explain $?' EXIT
fail() {
  echo "not as it should be: $*" >&2
  exit 1
}
say() { echo "== $*"; }

# until LIMIT COMMAND...: waits until the command succeeds.
until_true() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || fail "not in time: $*"
    sleep 0.2
  done
}
show() { systemctl show --property "$2" --value "skiff-$1"; }
says() { show "$1" StatusText | grep -Eq -- "$2"; }
is() { [ "$(show "$1" "$2")" = "$3" ]; }
isnt() { [ "$(show "$1" "$2")" != "$3" ]; }

say "install"
for program in skiff skiff-control skiff-agent skiff-proxy; do install -m 0755 "$source_folder/bin/$program" "/usr/bin/$program"; done
install -m 0644 "$source_folder"/systemd/*.service "$source_folder"/systemd/*.slice /usr/lib/systemd/system/
install -m 0644 -D "$source_folder/systemd/skiff-control.sysusers.conf" /usr/lib/sysusers.d/skiff-control.conf
systemd-sysusers skiff-control.conf
for daemon in $daemons; do
  install -m 0644 -D "$source_folder/systemd/skiff-$daemon.tmpfiles.conf" "/usr/lib/tmpfiles.d/skiff-$daemon.conf"
  systemd-tmpfiles --create "skiff-$daemon.conf"
done
systemctl daemon-reload
if [ -z "$(ip route show default)" ]; then
  link=$(find /sys/class/net -mindepth 1 -printf '%f\n' | grep -v '^lo$' | head -1)
  ip link set "$link" up
  ip address replace 192.0.2.2/24 dev "$link"
  ip route replace default via 192.0.2.254
fi
"$here/box.sh" >/dev/null

say "skiff init, with skiff-control as a user of its own"
skiff init >/dev/null
for daemon in $daemons; do
  until_true 120 is "$daemon" ActiveState active
  is "$daemon" ControlGroup "/skiff.slice/skiff-$daemon.service" || fail "skiff-$daemon is in the cgroup $(show "$daemon" ControlGroup)"
done
[ "$(stat -c %U "/proc/$(show control MainPID)")" = skiff-control ] || fail "skiff-control does not run as skiff-control"
[ "$(awk '/^CapPrm/ {print $2}' "/proc/$(show control MainPID)/status")" = 0000000000000000 ] || fail "skiff-control has capabilities"
[ "$(stat -c '%U %a' /etc/skiff/pki/ca.key)" = "skiff-control 600" ] || fail "the authority's key: $(stat -c '%U %a' /etc/skiff/pki/ca.key)"
until_true 60 says control '^leader of 1 member; term [0-9]+, revision [0-9]+$'
until_true 60 says agent "^node $node is Ready; 0 pods$"
until_true 60 says proxy '^[a-z]+, [0-9]+ services, DNS at 10\.96\.0\.10$'

say "pods"
kubectl apply -f - <<'PODS' >/dev/null
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {word: hello}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: claim}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  securityContext: {fsGroup: 2000, runAsUser: 1000, sysctls: [{name: net.ipv4.ip_local_port_range, value: "20000 30000"}]}
  containers:
  - name: web
    image: docker.io/library/box:1
    imagePullPolicy: Never
    command: [httpd, -f, -p, "8080", -h, /www]
    resources: {limits: {cpu: 500m, memory: 64Mi}}
    readinessProbe: {exec: {command: [cat, /words/word]}, periodSeconds: 1}
    volumeMounts:
    - {name: words, mountPath: /words}
    - {name: memory, mountPath: /memory}
    - {name: claim, mountPath: /claim}
    - {name: disk, mountPath: /disk/part, subPath: part}
  volumes:
  - {name: words, configMap: {name: words}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: disk, emptyDir: {}}
  - {name: claim, persistentVolumeClaim: {claimName: claim}}
---
apiVersion: v1
kind: Pod
metadata: {name: machine}
spec:
  hostNetwork: true
  hostPID: true
  containers:
  - name: box
    image: docker.io/library/box:1
    imagePullPolicy: Never
    command: [sleep, "36000"]
    securityContext: {privileged: true}
    volumeMounts: [{name: machine, mountPath: /machine, mountPropagation: Bidirectional}]
  volumes: [{name: machine, hostPath: {path: /mnt}}]
---
apiVersion: v1
kind: Pod
metadata: {name: shared}
spec:
  shareProcessNamespace: true
  containers:
  - {name: one, image: "docker.io/library/box:1", imagePullPolicy: Never, command: [sleep, "36000"]}
  - {name: two, image: "docker.io/library/box:1", imagePullPolicy: Never, command: [sleep, "36000"]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
PODS
kubectl wait --for=condition=Ready pod/web pod/machine pod/shared --timeout=300s >/dev/null
until_true 30 says agent "^node $node is Ready; 3 pods$"
[ "$(kubectl exec web -- sh -c 'echo kept >/claim/file; touch /disk/part/file; stat -c %g /memory; cat /words/word')" = "$(printf '2000\nhello')" ] || fail "volumes"
[ "$(kubectl exec machine -- sh -c 'mkdir -p /machine/sub && mount -t tmpfs tmpfs /machine/sub && echo mounted')" = mounted ] || fail "mount in a pod"
grep -q ' /mnt/sub tmpfs ' /proc/mounts || fail "a pod's mount does not reach the machine"
umount /mnt/sub
address=$(kubectl get service web -o 'jsonpath={.spec.clusterIP}')
until_true 60 curl -fsS --max-time 5 "http://$address/"
[ "$(kubectl exec shared -c one -- wget -q -O - http://web.default.svc.cluster.local/)" = "this is the pod" ] || fail "a service by its name"
(kubectl port-forward pod/web 18080:8080 >/dev/null 2>&1 & echo $! >/run/forward.pid)
until_true 60 curl -fsS --max-time 5 http://127.0.0.1:18080/
kill "$(cat /run/forward.pid)"

say "the journal"
journalctl --quiet --unit skiff-agent --output json SKIFF_NODE="$node" | grep '"SKIFF_NODE"' >/dev/null || fail "no line of the agent has the field SKIFF_NODE"
kubectl apply -f - <<POD >/dev/null
{apiVersion: v1, kind: Pod, metadata: {name: refused}, spec: {nodeName: $node, nodeSelector: {no: such}, containers: [{name: box, image: "docker.io/library/box:1"}]}}
POD
until_true 60 sh -c "journalctl --quiet --unit skiff-agent SKIFF_POD=default/refused | grep 'pod refused'"
kubectl delete pod refused --wait >/dev/null

# What must not change: containers by their processes and restarts.
state() {
  kubectl get pods -o 'jsonpath={range .items[*]}{.metadata.name} {range .status.containerStatuses[*]}{.containerID} {.restartCount} {.state.running.startedAt} {end}{"\n"}{end}' | sort
}
before=$(state)
unchanged() {
  until_true 120 kubectl get --raw /readyz
  until_true 60 says agent "^node $node is Ready; 3 pods$"
  [ "$(state)" = "$before" ] || fail "after $1 pods are others: $(diff <(echo "$before") <(state))"
  curl -fsS --max-time 5 "http://$address/" >/dev/null || fail "after $1 the service does not answer"
}
for daemon in $daemons; do
  say "reload skiff-$daemon"
  pid=$(show "$daemon" MainPID)
  systemctl reload "skiff-$daemon"
  is "$daemon" MainPID "$pid" || fail "reload ended skiff-$daemon"
  unchanged "reload of skiff-$daemon"
  say "restart skiff-$daemon"
  systemctl restart "skiff-$daemon"
  unchanged "restart of skiff-$daemon"
  say "kill -9 skiff-$daemon"
  pid=$(show "$daemon" MainPID)
  kill -9 "$pid"
  until_true 120 isnt "$daemon" MainPID "$pid"
  until_true 120 is "$daemon" ActiveState active
  unchanged "kill -9 of skiff-$daemon"
done

say "daemons that hang are ended by the watchdog"
for daemon in $daemons; do
  mkdir -p "/run/systemd/system/skiff-$daemon.service.d"
  printf '[Service]\nWatchdogSec=20s\n' >"/run/systemd/system/skiff-$daemon.service.d/test.conf"
done
systemctl daemon-reload
for daemon in $daemons; do
  systemctl restart "skiff-$daemon"
  restarts=$(show "$daemon" NRestarts)
  kill -STOP "$(show "$daemon" MainPID)"
  until_true 180 isnt "$daemon" NRestarts "$restarts"
  until_true 120 is "$daemon" ActiveState active
  journalctl --quiet --unit "skiff-$daemon" | grep 'Watchdog timeout' >/dev/null || fail "skiff-$daemon was not ended by the watchdog"
  unchanged "a watchdog's end of skiff-$daemon"
done

say "a containerd that hangs does not end the agent"
pid=$(show agent MainPID)
restarts=$(show agent NRestarts)
kill -STOP "$(systemctl show --property MainPID --value containerd)"
until_true 180 says agent "^node $node is not Ready: container runtime"
# Longer than the watchdog waits.
begin=$(show agent WatchdogTimestampMonotonic)
until_true 120 sh -c "[ \$(systemctl show --property WatchdogTimestampMonotonic --value skiff-agent) -gt $((begin + 25000000)) ]"
for kept in "MainPID $pid" "NRestarts $restarts"; do
  is agent "${kept% *}" "${kept#* }" || fail "the agent was ended because containerd hung"
done
kill -CONT "$(systemctl show --property MainPID --value containerd)"
unchanged "a containerd that hung"
rm -rf /run/systemd/system/skiff-*.service.d
systemctl daemon-reload
unchanged "systemctl daemon-reload"

say "certificates and the store remain the daemon's"
skiff pki renew >/dev/null
skiff pki rotate --begin ca >/dev/null
skiff snapshot save /root/snapshot >/dev/null
skiff snapshot restore --replace /root/snapshot >/dev/null
until_true 120 kubectl get --raw /readyz
[ -z "$(find /etc/skiff/pki /var/lib/skiff/control ! -user skiff-control)" ] || fail "files that are not skiff-control's: $(find /etc/skiff/pki /var/lib/skiff/control ! -user skiff-control)"
until_true 120 is control ActiveState active
unchanged "a restored snapshot"

say "reset"
skiff reset --yes >/dev/null
for daemon in $daemons; do is "$daemon" ActiveState inactive || fail "skiff-$daemon is $(show "$daemon" ActiveState) after reset"; done
if grep -E '/(kubelet|skiff)' /proc/mounts; then fail "mounts are left"; fi
echo "all as it should be"
