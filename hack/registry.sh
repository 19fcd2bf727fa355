#!/usr/bin/env bash
# Runs a registry on loopback with the test images, and prints the folder of
# hosts.toml files that makes containerd use it for docker.io.
#   hack/registry.sh start FOLDER [PORT [FLAG...]]   hack/registry.sh stop FOLDER
# The flags are those of test/images, which say what images to make.
set -euo pipefail
cd "$(dirname "$0")/.."
verb=$1 dir=$2 port=${3:-5000}
case $verb in
start)
  mkdir -p "$dir/data" "$dir/certs.d/docker.io"
  if ! { [ -f "$dir/pid" ] && kill -0 "$(cat "$dir/pid")" 2>/dev/null; }; then
    cat >"$dir/config.yml" <<CONFIG
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $dir/data}}
http: {addr: 127.0.0.1:$port}
CONFIG
    setsid docker-registry serve "$dir/config.yml" >"$dir/log" 2>&1 </dev/null &
    echo $! >"$dir/pid"
    for _ in $(seq 100); do
      (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
      kill -0 "$(cat "$dir/pid")" || { cat "$dir/log" >&2; exit 1; }
      sleep 0.1
    done
  fi
  # It stands in for docker.io altogether: an image it lacks is not found, at
  # once, where there is no way to the real one.
  cat >"$dir/certs.d/docker.io/hosts.toml" <<HOSTS
server = "http://127.0.0.1:$port"
[host."http://127.0.0.1:$port"]
  capabilities = ["pull", "resolve"]
HOSTS
  if [ ! -f "$dir/pushed" ]; then
    go run ./test/images --registry "127.0.0.1:$port" "${@:4}" >&2
    touch "$dir/pushed"
  fi
  echo "$dir/certs.d"
  ;;
stop)
  [ -f "$dir/pid" ] && kill "$(cat "$dir/pid")" 2>/dev/null
  rm -f "$dir/pid"
  ;;
*)
  echo "usage: $0 start|stop FOLDER [PORT [FLAG...]]" >&2
  exit 2
  ;;
esac
