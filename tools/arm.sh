#!/bin/sh
# Builds base and tensor (they need the C library only) with the checks of tests/ops for 64-bit Arm and runs these under qemu:
# once on a processor with everything, once on one with the Armv8.0 baseline only, which catches instructions out of place.
# Needs gcc-aarch64-linux-gnu and qemu-user. Quiet when all is well. ROUNDS=n: more of ops_test.
set -eu
cd "$(dirname "$0")/.."
CC=${ARM_CC:-aarch64-linux-gnu-gcc}
QEMU=${ARM_QEMU:-qemu-aarch64}
for tool in "$CC" "$QEMU"; do
    command -v "$tool" > /dev/null || { echo "tools/arm.sh: $tool is missing (Debian: gcc-aarch64-linux-gnu, qemu-user)" >&2; exit 1; }
done
out=build/arm
mkdir -p "$out"
flags="-std=c11 -O2 -g1 -Wall -Wextra -Wshadow -Wno-unused-parameter -fno-math-errno -fno-trapping-math -ffp-contract=off"
flags="$flags -D_POSIX_C_SOURCE=200809L -Iinclude -Isrc -Itests/ops"
launcher=$(command -v ccache || true)

# One line for each object: source, object, flags of its own.
list() {
    for source in src/base/*.c src/tensor/*.c src/tensor/cpu/*.c tests/ops/*.c; do
        own=
        case $source in
            src/base/hash.c | *_avx2.c | *_avx512.c | *_avx512vnni.c | *_amx.c) continue ;;
            *_neondot.c) own=-march=armv8.2-a+dotprod+fp16 ;;
        esac
        echo "$source $out/$(echo "$source" | tr / .).o $own"
    done
}

# Objects older than their source or any header are made again.
newest=$(find include src/base src/tensor tests/ops -name '*.h' -newer "$out/stamp" 2> /dev/null | head -n 1 || true)
[ -e "$out/stamp" ] || newest=all
list | while read -r source object own; do
    [ -z "$newest" ] && [ -e "$object" ] && [ "$object" -nt "$source" ] || echo "$launcher $CC $flags $own -c $source -o $object"
done | xargs -P "$(nproc)" -I {} sh -c '{}'
touch "$out/stamp"

objects=$(list | awk '$1 ~ /^src/ {print $2}')
case_objects=$(list | awk '$1 ~ /^tests/ && $1 !~ /linear_check/ {print $2}')
# shellcheck disable=SC2086
"$CC" -static $case_objects $objects -o "$out/ops_test" -lpthread -lm
# shellcheck disable=SC2086
"$CC" -static "$out/tests.ops.linear_check.c.o" $objects -o "$out/linear_check" -lpthread -lm

check() {
    "$@" > "$out/log" 2>&1 || { echo "failed: $*" >&2; tail -n 20 "$out/log" >&2; exit 1; }
}
check "$QEMU" "$out/ops_test" --rounds "${ROUNDS:-6}"
check "$QEMU" "$out/linear_check"
check "$QEMU" -cpu cortex-a53 "$out/ops_test" --rounds "${ROUNDS:-3}" --isa neon

# The loops of image_resize.
for source in src/media/resize_c.c src/media/resize_neon.c tests/media/resize_check.c; do echo "$source"; done |
    xargs $launcher "$CC" $flags -static -o "$out/resize_check" "$out/src.tensor.cpu.features.c.o" "$out/src.base.err.c.o"
check "$QEMU" -cpu cortex-a53 "$out/resize_check"
