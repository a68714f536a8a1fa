#!/bin/sh
# install.sh BUILD REPOSITORY: what `make install` puts down works on its own: pkg-config finds the library, an example compiles and runs with it,
# and the installed program finds the installed demo model.
set -eu
build=$1
repo=$2
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
cmake --install "$build" --prefix "$prefix" >/dev/null
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name vlm.pc)")
export PKG_CONFIG_PATH
libdir=$(pkg-config --variable=libdir vlm)
sed -i "s|^prefix=.*|prefix=$prefix|" "$PKG_CONFIG_PATH/vlm.pc"
libdir=$(pkg-config --variable=libdir vlm)
# shellcheck disable=SC2046
cc -std=c11 -Wall -Werror "$repo/examples/prompt.c" $(pkg-config --cflags --libs vlm) -o "$prefix/prompt"
cd "$prefix"
LD_LIBRARY_PATH=$libdir ./prompt "$prefix/share/vlm/models/demo" "What is 17 + 25?" | grep -q "What is 17"
[ "$("$prefix/bin/vlm" generate --prompt "What is 17 + 25?")" = 42 ]
# Nothing but the public interface is visible.
nm -D --defined-only "$libdir/libvlm.so" | awk '{print $3}' | grep -v '^vlm_' && { echo "libvlm.so exports more than vlm_*"; exit 1; }
[ "$(pkg-config --modversion vlm)" = "$("$prefix/bin/vlm" --version | cut -d' ' -f2)" ]
echo "installed and used"
