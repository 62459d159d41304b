#!/bin/sh
# Makes a component of the two packages beside this file: `build.sh [OUT]`. GO names the go command.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/plugin.wasm}

componentize() {
    cargo run --quiet --locked --manifest-path "$here/../componentize/Cargo.toml" \
        --target-dir "$here/../target/componentize" -- "$@"
}

componentize go "$here/../../wit/1.0.0" plugin "$here"
GOOS=wasip1 GOARCH=wasm GOEXPERIMENT=jsonv2 "${GO:-go}" build -C "$here" -buildvcs=false -trimpath \
    -buildmode=c-shared -ldflags="-s -w -checklinkname=0" -o core.wasm
componentize component "$here/../../wit/1.0.0" plugin "$here/core.wasm" "$out"
