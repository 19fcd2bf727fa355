#!/usr/bin/env bash
# gofmt, go vet, and the rules between the rooms of the house (docs/architecture.md).
set -euo pipefail
cd "$(dirname "$0")/.."
fail=0
unformatted=$(git ls-files '*.go' | grep -v zz_generated | xargs gofmt -l)
[ -z "$unformatted" ] || { echo "not gofmt-ed: $unformatted" >&2; fail=1; }
go vet ./... || fail=1
go run ./hack/rooms || fail=1
if command -v systemd-analyze >/dev/null; then
  hack/exposure.sh || fail=1
fi
if command -v ansible-lint >/dev/null; then
  (cd ansible && ansible-lint -q) || fail=1
fi
if command -v vagrant >/dev/null; then
  said=$(cd vagrant && { ! command -v ruby || ruby settings_test.rb; } && VAGRANT_DEFAULT_PROVIDER=virtualbox vagrant validate --ignore-provider 2>&1) || { echo "$said" >&2; fail=1; }
fi
exit $fail
