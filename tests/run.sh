#!/usr/bin/env bash
# Runs every test of the workspace: built first, then within a bound of time, so
# that a test that hangs ends as a failure with its name. Ends with the number of
# tests that were skipped and the test runner's own summaries.
# Usage: tests/run.sh LIMIT [ARGUMENTS of the test programs]
set -euo pipefail
cd "$(dirname "$0")/.."

limit="$1"
shift
target="${CARGO_TARGET_DIR:-target}"
log="$target/tests.log"
which=(--workspace --lib --bins --tests)

cargo test "${which[@]}" --no-run

# Into a file and from there to us: what a test leaves behind may hold its output
# open, and a pipe would wait for that.
: >"$log"
timeout --kill-after=30s "$limit" cargo test "${which[@]}" --no-fail-fast -- "$@" >"$log" 2>&1 &
runner=$!
tail --follow --lines=+1 --pid="$runner" "$log" &
shown=$!
code=0
wait "$runner" || code=$?
wait "$shown" || true

echo
case "$code" in
  124 | 137)
    echo "FAILED: the tests did not end within $limit. Slow or hanging:"
    # Lines of the test harness: "test NAME has been running for over 60 seconds".
    { grep -E '^test .* has been running' "$log" || echo "  none that the runner knows of"; } | sort -u
    ;;
esac
skipped=$(grep -c '^SKIPPED: ' "$log" || true)
echo "skipped: $skipped"
{ grep '^SKIPPED: ' "$log" || true; } | sort | uniq -c
awk '/^test result: / { for (at = 1; at <= NF; at++) if ($at ~ /^ignored/) ignored += $(at - 1) }
  END { print "left out, each with its reason: " ignored + 0 " (make test FULL=1)" }' "$log"
grep -E '^ +Running |^test result: ' "$log" || true
exit "$code"
