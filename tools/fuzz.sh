#!/bin/sh
# fuzz.sh SECONDS [NAME]: runs each fuzz target for that long from its seeds (tests/fuzz/corpus/NAME) under ASan and UBSan.
# Inputs that crash are left in build/fuzz/crashes. FUZZ_SEED=N repeats a run (0, the default: another one each time).
set -u
cd "$(dirname "$0")/.."
seconds=${1:-20}
[ "${3:-}" = one ] || sh tools/build.sh fuzz || exit 1
mkdir -p build/fuzz/crashes

# One target; as many at once as there are processors.
one() {
    target=$1 name=$(basename "$1" _fuzz)
    work=build/fuzz/corpus-$name
    mkdir -p "$work" "tests/fuzz/corpus/$name"
    if "$target" -seed="${FUZZ_SEED:-0}" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=1024 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="build/fuzz/crashes/$name-" "$work" "tests/fuzz/corpus/$name" >"build/fuzz/$name.log" 2>&1; then
        echo "fuzz $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "build/fuzz/$name.log") runs, clean"
    else
        echo "fuzz $name: FAILED (build/fuzz/$name.log)"
        grep -E "ERROR|SUMMARY|runtime error" "build/fuzz/$name.log" | head -5
        return 1
    fi
}
if [ "${3:-}" = one ]; then
    one "$2"
    exit
fi
if [ -n "${2:-}" ]; then
    one "build/fuzz/$2_fuzz"
    exit
fi
ls build/fuzz/*_fuzz | xargs -P "$(nproc)" -I {} sh tools/fuzz.sh "$seconds" {} one
