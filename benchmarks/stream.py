"""A burst of alerts through the log onto a real Kafka of one node: seconds, alerts per second, memory, CPU.

Usage: python benchmarks/stream.py [--alerts 1200] [--sustained 10000]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from gueststar.model.detections import OutboxAlert
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.settings import StreamSettings
from gueststar.stream.agreement import agreement_of
from gueststar.stream.broker import LocalBroker
from gueststar.stream.publish import Publisher

NIGHT = 20260101
HEADER, CUTOUTS, REST = 27_200, 40_400, 5_500
"""Bytes of a real packet: its schema (the same in all), its compressed cut-outs, its numbers."""


def packets(first: int, n: int) -> list[OutboxAlert]:
    """Return packets of real size that compress as real ones do: half is the same in each, half is noise."""
    header, random = bytes(HEADER), np.random.default_rng(first)
    return [
        OutboxAlert(candid, f"GST26{candid:07d}", NIGHT, 1, header + random.bytes(CUTOUTS + REST))
        for candid in range(first, first + n)
    ]


def measure(root: Path, settings: StreamSettings, first: int, n: int) -> tuple[float, float, float]:
    """Put packets into the log and publish them; return the seconds of both, and the CPU seconds of this process."""
    log, logged, cpu = AlertLog(root), 0.0, 0.0
    for image in range(first, first + n, 40):
        alerts = packets(image, min(40, first + n - image))
        start, started = time.perf_counter(), time.process_time()
        log.append(alerts)
        logged, cpu = logged + time.perf_counter() - start, cpu + time.process_time() - started
    start, started = time.perf_counter(), time.process_time()
    with Publisher(root, settings) as publisher:
        assert publisher.publish().n_sent == n
    return logged, time.perf_counter() - start, cpu + time.process_time() - started


def main() -> None:
    """Start a broker, measure, print, stop it."""
    options = argparse.ArgumentParser()
    options.add_argument("--alerts", type=int, default=1200)
    options.add_argument("--sustained", type=int, default=10_000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        broker = LocalBroker(root)
        state = broker.start()
        try:
            settings = StreamSettings(bootstrap_servers=state.bootstrap_servers)
            java = psutil.Process(broker.pid() or 0)
            measure(root, settings, 1, 100)  # the broker's own compiler warms up
            for what, first, n in (("burst", 1000, chosen.alerts), ("sustained", 10**6, chosen.sustained)):
                before = java.cpu_times().user
                logged, sent, cpu = measure(root, settings, first, n)
                print(
                    f"{what}: {n} alerts of {HEADER + CUTOUTS + REST} bytes: on disk in {logged:.2f} s, acknowledged "
                    f"{sent:.2f} s later ({n / sent:.0f} a second); CPU {cpu:.2f} s here, "
                    f"{java.cpu_times().user - before:.2f} s broker"
                )
            print(f"memory: publisher {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most, "
                  f"broker {java.memory_info().rss / 2**20:.0f} MB")  # fmt: skip
            print(agreement_of(root, settings, night=NIGHT, program=Program.PUBLIC).line())
        finally:
            broker.stop()


if __name__ == "__main__":
    main()
