#!/bin/sh
# Make the virtual environments of foreign alert clients that tests/consumers tries (about 1.5 GB, some minutes), and
# install kcat where that is allowed. An environment that cannot be made is left out; its tests skip and say so.
# Usage: make_consumer_environments.sh [FOLDER] [PYTHON]
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/gueststar/consumers}
python=${2:-python3}
mkdir -p "$folder"

make_one() {
    target="$folder/$1"
    wanted=$(echo "$@" | cksum)
    if [ "$(cat "$target/.made" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    shift
    rm -rf "$target"
    echo "$target: $*"
    if "$python" -m venv "$target" &&
        "$target/bin/python" -m pip install --quiet --disable-pip-version-check "uv>=0.4" &&
        "$target/bin/uv" pip install --quiet --python "$target/bin/python" "$@"; then
        echo "$wanted" >"$target/.made"
    else
        rm -rf "$target"
        echo "$target could not be made: its tests will skip" >&2
    fi
}

while read -r name packages; do
    case $name in '' | '#'*) continue ;; esac
    # shellcheck disable=SC2086 # the packages are words
    make_one "$name" $packages </dev/null
done <"$here/tests/consumers/environments.txt"

if ! command -v kcat >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends kcat ||
            echo "kcat could not be installed: its test will skip" >&2
    else
        echo "kcat is not there, and this user may not install it: its test will skip" >&2
    fi
fi
