#!/bin/sh
# test.sh: all tests, one stage after the other; goes on after a failed stage and says at the end which failed.
# VLM_STAGES="unit asan" runs only these.
set -u
cd "$(dirname "$0")/.."
stages=${VLM_STAGES:-layout unit asan tsan arm fuzz}
failed=""
passed=0
stage() {
    name=$1
    shift
    case " $stages " in *" $name "*) ;; *) return ;; esac
    echo "== $name: $*"
    begin=$(date +%s)
    if "$@"; then passed=$((passed + 1)); else failed="$failed $name"; fi
    echo "== $name took $(($(date +%s) - begin)) s"
}
unit() { sh tools/build.sh release && ctest --test-dir build/release --output-on-failure -j 2; }
# ASan and UBSan over the same tests, but for those labelled "plain" (they start the release program or measure).
asan() { sh tools/build.sh asan && ctest --test-dir build/asan --output-on-failure -j 2 -LE plain; }
# The threads: engine, queues, pool.
tsan() { sh tools/build.sh tsan && ctest --test-dir build/tsan --output-on-failure -j 2 -L threads; }
sh tools/packages.sh build test || exit 1
stage layout python3 tools/layout.py
stage unit unit
stage asan asan
stage tsan tsan
stage arm sh tools/arm.sh
stage fuzz sh tools/fuzz.sh "${FUZZ_SECONDS:-20}"
count=$(echo $failed | wc -w)
[ -z "$failed" ] || echo "failed stages:$failed"
echo "$passed passed, $count failed"
[ -z "$failed" ]
