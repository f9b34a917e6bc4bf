#!/bin/sh
# Install what some tests need beside Python packages, where that is allowed: the PostgreSQL server, the blind solver
# Astrometry.net, the Tycho-2 stars that Debian packages for it, other programs that read our headers, and what runs
# Kafka, the batch system Slurm, and Prometheus. A test that lacks one skips and says so.
set -eu
has_postgres() {
    command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}
has_tycho() {
    ls /usr/share/astrometry/index-tycho2-"$1".*.fits >/dev/null 2>&1
}
missing=""
has_postgres || missing="$missing postgresql"
command -v solve-field >/dev/null 2>&1 || missing="$missing astrometry.net"
for program in source-extractor scamp; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
command -v xy2sky >/dev/null 2>&1 || missing="$missing wcstools"
command -v slurmctld >/dev/null 2>&1 || missing="$missing slurm-wlm"
command -v munged >/dev/null 2>&1 || missing="$missing munge"
command -v java >/dev/null 2>&1 || missing="$missing openjdk-17-jre-headless"
command -v mvn >/dev/null 2>&1 || missing="$missing maven"
command -v promtool >/dev/null 2>&1 || missing="$missing prometheus"
for scale in 07 08; do
    has_tycho "$scale" || missing="$missing astrometry-data-tycho2-$scale"
done
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
