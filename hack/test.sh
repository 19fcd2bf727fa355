#!/usr/bin/env bash
# Runs every test. What a machine cannot do is skipped by name with the reason.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  hack/deps.sh --test
fi
# As in the Makefile, so that tests and programs share what is compiled.
export GOFLAGS="${GOFLAGS:--trimpath -buildvcs=false}" CGO_ENABLED="${CGO_ENABLED:-0}"
hack/lint.sh
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Two packages at a time: linking one that carries Kubernetes' libraries takes gigabytes.
status=0
go test -p 2 -timeout 20m -json ./... >"$log" || status=$?
go run ./hack/testsummary <"$log" || status=1
exit $status
