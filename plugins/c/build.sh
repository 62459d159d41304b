#!/bin/sh
# Makes a component of plugin.c: `build.sh [OUT]`. WASI_CC names the compiler if it is not clang.
set -eu

here=$(dirname "$0")
out=${1:-$here/plugin.wasm}
world=transformer

componentize() {
    cargo run --quiet --locked --manifest-path "$here/../componentize/Cargo.toml" \
        --target-dir "$here/../target/componentize" -- "$@"
}

componentize c "$here/../../wit/1.0.0" $world "$here/build"
"${WASI_CC:-clang}" --target=wasm32-wasi -mexec-model=reactor -Oz -Wl,--strip-all -Wall -Wextra \
    -I "$here/build" "$here/plugin.c" "$here/build/$world.c" \
    "$here/build/${world}_component_type.o" -o "$here/build/core.wasm"
componentize component "$here/../../wit/1.0.0" $world "$here/build/core.wasm" "$out"
