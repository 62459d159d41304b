#!/bin/sh
# Makes a component of app.py: `build.sh [OUT]`. Installs what requirements.txt names into .venv first.
set -eu

cd "$(dirname "$0")"
out=${1:-{{name}}.wasm}

if [ ! -x .venv/bin/componentize-py ]; then
    "${PYTHON:-python3}" -m venv .venv
    .venv/bin/pip install --quiet --requirement requirements.txt
fi
PYTHONDONTWRITEBYTECODE=1 .venv/bin/componentize-py --quiet --wit-path wit --world plugin \
    componentize app --output "$out"
