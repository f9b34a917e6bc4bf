#!/bin/sh
# Make a virtual environment with the locked dependencies and this package in it.
# Usage: make_environment.sh FOLDER
set -eu
venv=$1

find_python() {
    for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    echo "gueststar needs Python 3.11, 3.12 or 3.13; none is on the PATH (set PYTHON=/path/to/python3.11)" >&2
    exit 1
}

python=$(find_python)
if ! "$python" -m venv "$venv" 2>/dev/null; then
    rm -rf "$venv"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq && apt-get install -y -qq python3-venv
        "$python" -m venv "$venv"
    else
        echo "$python cannot make virtual environments: install your system's python3-venv package" >&2
        exit 1
    fi
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv>=0.4"
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --constraint requirements.lock \
    --editable '.[postgres,test,docs]' uv
