"""A burst of alerts from numbers to a real Kafka of one node: seconds, alerts per second, memory, CPU.

Packets have the size and content of ZTF's (those of alert_packets.py): each is encoded with its cut-outs, put into the
alert log, sent, and acknowledged. Usage: python benchmarks/stream.py [--alerts 1200] [--sustained 10000]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from alert_packets import full_packet, stamps
from gueststar.formats.avro import encode_alert
from gueststar.formats.cutouts import encode_cutout
from gueststar.model.detections import OutboxAlert
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.settings import StreamSettings
from gueststar.stream.agreement import agreement_of
from gueststar.stream.broker import LocalBroker
from gueststar.stream.publish import Publisher

NIGHT = 20260101
PER_IMAGE = 40
"""Alerts of one detector image: one commit of the log."""
CUTOUTS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")


@dataclass
class Seconds:
    """Seconds of each step of some alerts, and the CPU of this process in all of them."""

    cutouts: float = 0.0
    encode: float = 0.0
    log: float = 0.0
    send: float = 0.0
    cpu: float = 0.0
    n_bytes: int = 0


def encoded(candids: range, packet: dict[str, Any], took: Seconds) -> list[OutboxAlert]:
    """Return packets of one image, each with cut-outs of its own."""
    rng = np.random.default_rng(candids.start)
    images = [stamps(rng) for _ in candids]
    alerts = []
    start = time.perf_counter()
    packed = [[encode_cutout(image) for image in three] for three in images]
    took.cutouts += time.perf_counter() - start
    start = time.perf_counter()
    for candid, three in zip(candids, packed, strict=True):
        named = {
            name: {"fileName": "candid1_ref.fits.gz", "stampData": data}
            for name, data in zip(CUTOUTS, three, strict=True)
        }
        data = encode_alert(packet | {"candid": candid} | named)
        alerts.append(OutboxAlert(candid, f"GST26{candid:07d}", NIGHT, 1, data))
    took.encode += time.perf_counter() - start
    took.n_bytes += sum(len(alert.payload) for alert in alerts)
    return alerts


def measure(root: Path, settings: StreamSettings, first: int, n: int) -> Seconds:
    """Encode packets, put them into the log and publish them; return what that took."""
    log, took = AlertLog(root), Seconds()
    rng = np.random.default_rng(1)
    packet = full_packet(stamps(rng), rng)
    for image in range(first, first + n, PER_IMAGE):
        started = time.process_time()
        alerts = encoded(range(image, min(image + PER_IMAGE, first + n)), packet, took)
        start = time.perf_counter()
        log.append(alerts)
        took.log += time.perf_counter() - start
        took.cpu += time.process_time() - started
    start, started = time.perf_counter(), time.process_time()
    with Publisher(root, settings) as publisher:
        assert publisher.publish().n_sent == n
    took.send, took.cpu = time.perf_counter() - start, took.cpu + time.process_time() - started
    return took


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
                took = measure(root, settings, first, n)
                whole = took.cutouts + took.encode + took.log + took.send
                print(
                    f"{what}: {n} alerts of {took.n_bytes / n:.0f} bytes: cut-outs packed {took.cutouts:.2f} s, "
                    f"encoded {took.encode:.2f}, on disk {took.log:.2f}, acknowledged {took.send:.2f} "
                    f"({n / took.send:.0f} a second): {whole:.2f} s in all; CPU {took.cpu:.2f} s here, "
                    f"{java.cpu_times().user - before:.2f} s broker"
                )
            print(f"memory: publisher {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most, "
                  f"broker {java.memory_info().rss / 2**20:.0f} MB")  # fmt: skip
            print(agreement_of(root, settings, night=NIGHT, program=Program.PUBLIC).line())
        finally:
            broker.stop()


if __name__ == "__main__":
    main()
