#!/usr/bin/env bash
# Measures a cluster on a host of its own, the store beside etcd, DNS beside dnsmasq, and service addresses beside kube-proxy; prints tables.
#   hack/bench.sh [--only start,node,api,store,dns,proxy]
set -euo pipefail
cd "$(dirname "$0")/.."
only=start,node,api,store,dns,proxy
[ "${1:-}" = --only ] && only=$2
wants() { [[ ",$only," == *",$1,"* ]]; }

host=skiff-bench
work=$(mktemp -d)
root=$work/root
inside() { nsenter --net=/run/netns/$host env KUBECONFIG="$root/etc/skiff/admin.conf" "$@"; }

down() {
  inside bin/skiff down --root "$root" >/dev/null 2>&1 || true
  [ -z "${registry:-}" ] || kill "$registry" 2>/dev/null || true
  ip netns del $host 2>/dev/null || true
  rm -rf "$work"
}

up() {
  hack/deps.sh --test
  ip netns del $host 2>/dev/null || true
  ip netns add $host
  ip -n $host link set lo up
  ip -n $host link add uplink type bridge
  ip -n $host addr add 192.0.2.1/24 dev uplink
  ip -n $host link set uplink up
  ip -n $host route add default via 192.0.2.254
  trap down EXIT
  # The images are made where Debian's packages can be fetched, and served on the host.
  certs=$(hack/registry.sh start "$work/registry" 5055)
  hack/registry.sh stop "$work/registry"
  nsenter --net=/run/netns/$host docker-registry serve "$work/registry/config.yml" >"$work/registry.log" 2>&1 &
  registry=$!
}

skiff_up() {
  inside bin/skiff up --detach --root "$root" --node-name $host --cgroup-root /$host --registry-config-dir "$certs"
}

if wants start || wants node || wants api; then
  up
  echo "## Start"
  skiff_up | grep -E ' s$'
  inside bin/skiff down --root "$root" >/dev/null
  echo "again, with its data:"
  skiff_up | grep -E ' s$'
fi
if wants node; then
  echo; echo "## Pods and daemons"
  # The image has to be there before anything is timed.
  inside bin/skiff kubectl run warm --image=busybox --restart=Never -- true >/dev/null
  inside bin/skiff kubectl wait --for=jsonpath='{.status.phase}'=Succeeded pod/warm --timeout=120s >/dev/null
  inside bin/skiff kubectl delete pod warm >/dev/null
  inside bin/skiff kubectl run warm --image=skiff/web >/dev/null
  inside bin/skiff kubectl wait --for=condition=Ready pod/warm --timeout=120s >/dev/null
  inside bin/skiff kubectl delete pod warm --now >/dev/null
  daemons=$(for d in control agent proxy; do printf 'skiff-%s=%s,' $d "$(cat "$root/run/skiff/up/$d.pid")"; done)
  go build -o "$work/node" ./test/bench/node
  inside "$work/node" --kubeconfig "$root/etc/skiff/admin.conf" --containerd "$root/run/containerd/containerd.sock" --daemons "${daemons%,}"
fi
if wants api; then
  echo; echo "## API"
  go build -o "$work/api" ./test/bench/api
  inside "$work/api" --kubeconfig "$root/etc/skiff/admin.conf"
fi
if wants store; then
  echo; echo "## Store, three members as three processes, beside etcd"
  (cd test/bench/store && go build -o "$work/etcd" go.etcd.io/etcd/server/v3 && go build -o "$work/store" . && "$work/store" --etcd "$work/etcd")
fi
if wants dns; then
  command -v dnsmasq >/dev/null || apt-get install -y --no-install-recommends dnsmasq-base >/dev/null
  echo; echo "## Cluster DNS beside dnsmasq"
  go build -o "$work/dns" ./test/bench/dns
  "$work/dns"
fi
if wants proxy; then
  echo; echo "## Service addresses, beside kube-proxy"
  (cd test/bench/proxy && go build -o "$work/kube-proxy" k8s.io/kubernetes/cmd/kube-proxy && go build -o "$work/proxy" .)
  # Its program on nf_tables is slow with many chains: 10,000 services in mode iptables are left out.
  "$work/proxy" --skiff-proxy bin/skiff-proxy --kube-proxy "$work/kube-proxy" --sizes 100,1000
  "$work/proxy" --skiff-proxy bin/skiff-proxy --kube-proxy "$work/kube-proxy" --sizes 10000 --modes nftables
fi
