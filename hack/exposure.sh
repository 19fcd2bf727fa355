#!/usr/bin/env bash
# Fails when a unit became more exposed than it has to be, as systemd-analyze
# judges it (0 is none, 10 is all), or when systemd does not understand it. The
# figures are for systemd 252; another version may count differently.
#   hack/exposure.sh [-v]    with -v: what is left, and what it counts
set -euo pipefail
cd "$(dirname "$0")/../systemd"
command -v systemd-analyze >/dev/null || {
  echo "systemd-analyze is missing: it comes with systemd" >&2
  exit 1
}
# What each daemon cannot do without is said in its unit.
declare -A most=([skiff-control]=1.3 [skiff-agent]=6.8 [skiff-proxy]=2.6 [skiff-guard]=2.5)
failed=0
for unit in *.service; do
  name=${unit%.service}
  if [ -z "${most[$name]:-}" ]; then
    echo "$unit: record how exposed it may be in $0" >&2
    failed=1
    continue
  fi
  [ "${1:-}" != -v ] || systemd-analyze security --offline=true --no-pager "$unit"
  # The threshold is in tenths.
  if ! report=$(systemd-analyze security --offline=true --no-pager --threshold="$(tr -d . <<<"${most[$name]}")" "$unit" 2>&1); then
    echo "$unit is more exposed than ${most[$name]}: $(tail -n 1 <<<"$report")" >&2
    failed=1
  fi
  echo "$unit $(sed -nE 's/.*level for [^ ]+: ([0-9.]+ [A-Z]+).*/\1/p' <<<"$report") (at most ${most[$name]})"
done
# Programs and manual pages need not be installed where this runs.
if problems=$(systemd-analyze verify --man=no ./*.service ./*.slice 2>&1 | grep -v 'is not executable: No such file'); then
  echo "$problems" >&2
  failed=1
fi
exit "$failed"
