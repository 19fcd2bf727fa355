#!/usr/bin/env bash
# Mistreats three control machines on test hosts for a while, as `make test`
# does for a minute, with longer pauses. Prints what was done and what was seen.
#   hack/soak.sh LENGTH
set -euo pipefail
cd "$(dirname "$0")/.."
length=${1:?for how long, for example 1h}
go test -count=1 -timeout 0 -v -run TestThreeControlMachinesAreMistreated ./test/resilience -length "$length" -longest-pause 10s
