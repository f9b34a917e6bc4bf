#!/bin/sh
# Install what some tests need beside Python packages, where that is allowed: the PostgreSQL server, and the Tycho-2
# stars that Debian packages for blind solvers. A test that lacks one skips and says so.
set -eu
has_postgres() {
    command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}
has_tycho() {
    ls /usr/share/astrometry/index-tycho2-07.*.fits >/dev/null 2>&1
}
missing=""
has_postgres || missing="$missing postgresql"
has_tycho || missing="$missing astrometry-data-tycho2-07"
if [ -z "$missing" ]; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "not installed, and this user may not install it, so its tests will skip:$missing" >&2
    exit 0
fi
apt-get update -qq || echo "the lists of packages could not be updated" >&2
for package in $missing; do
    apt-get install -y -qq --no-install-recommends "$package" ||
        echo "$package could not be installed: its tests will skip" >&2
done
