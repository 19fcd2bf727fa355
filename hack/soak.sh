#!/usr/bin/env bash
# Mistreats the store, longer than `make test` does: first twelve hours of
# virtual time in the simulation (FIRST=N begins with another seed), then three
# control machines on test hosts for LENGTH. Prints what was done and seen.
#   hack/soak.sh LENGTH
set -euo pipefail
cd "$(dirname "$0")/.."
length=${1:?for how long, for example 1h}
go test -count=1 -timeout 0 -v -run '^TestSimulation$' ./raftstore/simulation \
  -first "${FIRST:-1}" -seeds 480 -virtual 8h -faults 4000 -operations 3000000 | grep -v '^=== \|--- PASS'
go test -count=1 -timeout 0 -v -run TestThreeControlMachinesAreMistreated ./test/resilience -length "$length" -longest-pause 10s
