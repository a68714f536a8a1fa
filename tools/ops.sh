#!/bin/sh
# Builds base and tensor (they need the C library only) with the checks of tests/ops for this machine, where the other libraries are
# missing, and runs them: tools/ops.sh; tools/ops.sh --bench measures the matrix products as well (arguments as of linear_check --bench).
set -eu
cd "$(dirname "$0")/.."
out=build/ops
mkdir -p "$out"
flags="-std=c11 -O3 -DNDEBUG -g1 -Wall -Wextra -Wno-unused-parameter -fno-math-errno -fno-trapping-math -ffp-contract=off"
flags="$flags -D_POSIX_C_SOURCE=200809L -Iinclude -Isrc -Itests/ops"
avx2="-mavx2 -mfma -mf16c -mbmi2"
avx512="$avx2 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512"

list() {
    for source in src/base/*.c src/tensor/*.c src/tensor/cpu/*.c tests/ops/*.c; do
        case $source in
            src/base/hash.c | *_neon*.c) continue ;;
            *_avx2.c) own=$avx2 ;;
            *_avx512.c) own=$avx512 ;;
            *_avx512vnni.c) own="$avx512 -mavx512vnni -mavx512bf16 -mavx512vbmi" ;;
            *_amx.c) own="$avx512 -mavx512vnni -mavx512bf16 -mamx-tile -mamx-bf16 -mamx-int8" ;;
            *) own= ;;
        esac
        echo "$source $out/$(echo "$source" | tr / .).o $own"
    done
}
list | while read -r source object own; do echo "${CC:-cc} $flags $own -c $source -o $object"; done | xargs -P "$(nproc)" -I {} sh -c '{}'
objects=$(list | awk '$1 ~ /^src/ {print $2}')
case_objects=$(list | awk '$1 ~ /^tests/ && $1 !~ /linear_check/ {print $2}')
# shellcheck disable=SC2086
"${CC:-cc}" $case_objects $objects -o "$out/ops_test" -lpthread -lm
# shellcheck disable=SC2086
"${CC:-cc}" "$out/tests.ops.linear_check.c.o" $objects -o "$out/linear_check" -lpthread -lm
"$out/linear_check"
"$out/ops_test" --rounds "${ROUNDS:-6}"
[ $# -eq 0 ] || "$out/linear_check" "$@"
