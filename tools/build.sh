#!/bin/sh
# build.sh PRESET [TARGET...]: configure once, build, print only what went wrong.
set -eu
cd "$(dirname "$0")/.."
preset=$1
shift
log=build/$preset.log
mkdir -p build
dir=build/$preset
if [ ! -f "$dir/build.ninja" ] || { [ ! -f "$dir/with-tests" ] && pkg-config --exists cmocka; }; then
    echo "Configuring build/$preset"
    cmake --preset "$preset" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
fi
if [ -t 1 ]; then
    cmake --build --preset "$preset" ${@:+--target "$@"}
else
    cmake --build --preset "$preset" ${@:+--target "$@"} >"$log" 2>&1 || { grep -vE '^\[[0-9]+/[0-9]+\] (Building|Linking)' "$log" >&2; exit 1; }
fi
