#!/usr/bin/env bash
# A cluster of test hosts on this machine, and ways to mistreat it; without
# arguments it says what there is. `make cluster` and `make cluster-down` call it.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = up ]; then
  # Makes the images, by a registry that is not needed any more afterwards.
  hack/registry.sh start /srv/skiff-images 5001 >/dev/null
  hack/registry.sh stop /srv/skiff-images
fi
go build -trimpath -o bin/cluster ./hack/cluster
exec bin/cluster "$@"
