#!/bin/sh
# fuzz.sh SECONDS [NAME]: runs each fuzz target for that long from its seeds (tests/fuzz/corpus/NAME) under ASan and UBSan.
# Inputs that crash are left in build/fuzz/crashes. FUZZ_SEED=N repeats a run (0, the default: another one each time).
set -u
cd "$(dirname "$0")/.."
seconds=${1:-20}
sh tools/build.sh fuzz || exit 1
mkdir -p build/fuzz/crashes
bad=""
for target in build/fuzz/*_fuzz; do
    name=$(basename "$target" _fuzz)
    [ -z "${2:-}" ] || [ "$2" = "$name" ] || continue
    work=build/fuzz/corpus-$name
    mkdir -p "$work" "tests/fuzz/corpus/$name"
    if "$target" -seed="${FUZZ_SEED:-0}" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=1024 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="build/fuzz/crashes/$name-" "$work" "tests/fuzz/corpus/$name" >"build/fuzz/$name.log" 2>&1; then
        echo "fuzz $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "build/fuzz/$name.log") runs, clean"
    else
        echo "fuzz $name: FAILED (build/fuzz/$name.log)"
        grep -E "ERROR|SUMMARY|runtime error" "build/fuzz/$name.log" | head -5
        bad="$bad $name"
    fi
done
[ -z "$bad" ]
