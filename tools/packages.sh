#!/bin/sh
# packages.sh GROUP...: installs the Debian packages of these groups that are missing, saying which (build, test).
# Uses sudo only when not root. On a system without apt it prints what is needed and goes on: the build then says what it misses.
set -eu
build="gcc cmake ninja-build pkg-config libc6-dev libjansson-dev libmicrohttpd-dev libcurl4-openssl-dev libjpeg62-turbo-dev libpng-dev libdeflate-dev libwebp-dev
    libavcodec-dev libavformat-dev libavutil-dev libswscale-dev libswresample-dev libsoxr-dev libpcre2-dev libutf8proc-dev libssl-dev libedit-dev"
test="libcmocka-dev clang libclang-rt-14-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user python3 tmux curl ffmpeg"
wanted=""
for group in "$@"; do
    case $group in
        build) wanted="$wanted $build" ;;
        test) wanted="$wanted $test" ;;
        *) echo "packages.sh: unknown group '$group' (build, test)" >&2; exit 2 ;;
    esac
done
if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "No Debian package tools here. These packages (by their Debian names) are needed:" $wanted
    exit 0
fi
missing=""
for package in $wanted; do
    case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
        installed) ;;
        *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0
echo "Installing missing Debian packages:$missing"
sudo=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "Not root and no sudo. Please run: apt-get install$missing" >&2; exit 1; }
    sudo="sudo"
fi
log=$(mktemp)
if ! { $sudo apt-get update && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "Installing failed (whole log: $log)" >&2
    exit 1
fi
rm -f "$log"
