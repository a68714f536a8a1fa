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
# ASan and UBSan over the same tests, but for those that run the demo model or whole programs for long: the same code is run by the others.
asan() { sh tools/build.sh asan && ctest --test-dir build/asan --output-on-failure -j 2 -E '^(parity_demo|parity_notices|cli_batch|cli_commands|cli_install|example_)'; }
# What has threads: engine, queues, pool, and whole checkpoints through them.
tsan() { sh tools/build.sh tsan && ctest --test-dir build/tsan --output-on-failure -j 2 -R '^(engine_test|thread_test|combinations_|parity_qwen2_5_vl|parity_gemma4_e2b|server_basic)'; }
sh tools/packages.sh build test || exit 1
stage layout python3 tools/layout.py
stage unit unit
stage asan asan
stage tsan tsan
stage arm sh tools/arm.sh
# The same inputs in every run, so that a failure is the change's; `make fuzz` looks for new ones.
export FUZZ_SEED=${FUZZ_SEED:-1}
stage fuzz sh tools/fuzz.sh "${FUZZ_SECONDS:-20}"
count=$(echo $failed | wc -w)
[ -z "$failed" ] || echo "failed stages:$failed"
echo "$passed passed, $count failed"
[ -z "$failed" ]
