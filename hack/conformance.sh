#!/usr/bin/env bash
# Builds Kubernetes' conformance suite (test/conformance) and runs it, or a part
# of it, against a cluster on test hosts of this machine.
#   hack/conformance.sh [FLAG...]     the flags of hack/conformance
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && hack/deps.sh --test
read -r suite images < <(test/conformance/build.sh) || exit 1
go build -trimpath -o bin/conformance ./hack/conformance
exec bin/conformance --suite "$suite" --images "$images" "$@"
