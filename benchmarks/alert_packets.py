"""CPU of encoding alert packets beside fastavro, and of their cut-outs: ``python benchmarks/alert_packets.py``.

The packet is of the size of ZTF's: 103 fields, a history of 8 detections and 16 upper limits, 24 forced fluxes, three
cut-outs of noise. Figures are milliseconds of CPU a packet, the best of five rounds.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import fastavro
import numpy as np

from gueststar.formats.avro import alert_schema, encode_alert, encode_body
from gueststar.formats.cutouts import encode_cutout
from gueststar.formats.ztf_fields import ALWAYS_IN_A_LIMIT, field_rules

ROUNDS, PACKETS = 5, 300


def cpu_ms(work: Callable[[], Any]) -> float:
    """Return the CPU of one call, milliseconds, the best of some rounds."""
    work()
    best = np.inf
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(PACKETS):
            work()
        best = min(best, (time.process_time() - start) / PACKETS * 1e3)
    return float(best)


def record(name: str, rng: np.random.Generator) -> dict[str, Any]:
    """Return a record with a value in every field."""
    values: dict[str, Any] = {}
    for rule in field_rules(name):
        number = float(np.float32(rng.normal(20.0, 3.0)))
        whole = int(rng.integers(3 * 10**18)) if rule.name in ("candid", "pid") else int(rng.integers(2000))
        values[rule.name] = {"float": number, "double": number, "int": whole, "long": whole}.get(rule.type, "r_2026")
    return values


def stamps(rng: np.random.Generator) -> list[np.ndarray]:
    """Return three cut-outs of a star in noise."""
    y, x = np.mgrid[-31:32, -31:32]
    star = 2000.0 * np.exp(-(x**2 + y**2) / 4.0)
    return [(star * k + rng.normal(0.0, 12.0, star.shape)).astype(np.float32) for k in (1.0, 0.0, 1.0)]


def full_packet(images: list[np.ndarray], rng: np.random.Generator) -> dict[str, Any]:
    """Return a packet of the size of ZTF's."""
    limit = {name: value if name in ALWAYS_IN_A_LIMIT else None for name, value in record("prv_candidate", rng).items()}
    history = [record("prv_candidate", rng) for _ in range(8)] + [limit] * 16
    cutouts = [{"fileName": "candid1_ref.fits.gz", "stampData": encode_cutout(image)} for image in images]
    return {
        "schemavsn": "4.02", "publisher": "gueststar", "objectId": "GST26abcdefg", "candid": 3 * 10**18,
        "candidate": record("candidate", rng), "prv_candidates": history,
        "fp_hists": [record("fp_hist", rng) for _ in range(24)], "rbhist": 0.9, "nrbhist": 3,
    } | dict(zip(("cutoutScience", "cutoutTemplate", "cutoutDifference"), cutouts, strict=True))  # fmt: skip


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(1)
    images = stamps(rng)
    packet, schema = full_packet(images, rng), alert_schema()
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, packet)
    assert buffer.getvalue() == encode_body(packet), "both write the same bytes"
    lite = packet | dict.fromkeys(("cutoutScience", "cutoutTemplate", "cutoutDifference"))
    print(f"packet of {len(encode_alert(packet))} bytes; milliseconds of CPU a packet")
    for name, work in (
        ("ours, container", lambda: encode_alert(packet)),
        ("fastavro, container", lambda: fastavro.writer(io.BytesIO(), schema, [packet])),
        ("ours, body", lambda: encode_body(packet)),
        ("fastavro, body (schemaless)", lambda: fastavro.schemaless_writer(io.BytesIO(), schema, packet)),
        ("ours, body without cut-outs", lambda: encode_body(lite)),
        ("gzip of three cut-outs, before that", lambda: [encode_cutout(image) for image in images]),
    ):
        print(f"  {name:36s} {cpu_ms(work):6.3f}")


if __name__ == "__main__":
    main()
