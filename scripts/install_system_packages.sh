#!/bin/sh
# Install the servers that integration tests start, where that is allowed; a test whose server is
# missing skips and says so.
set -eu
find_postgres() {
    command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}
if find_postgres; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq && apt-get install -y -qq postgresql ||
        echo "PostgreSQL could not be installed: its tests will skip" >&2
else
    echo "PostgreSQL is not installed and this user may not install it: its tests will skip" >&2
fi
