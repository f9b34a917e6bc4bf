"""Searches of an archive of a million alerts: median milliseconds, warm, on one core.

Usage: python benchmarks/alert_archive.py [--alerts 1000000] [--nights 60] [--keep FOLDER]

The index and the table of columns are filled through the code that fills them, with rows drawn at random; the packets
themselves (70 GB) are not written, since no search reads them. What a packet costs to get into the table is measured on
packets of the survey's own schema.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gueststar.algorithms.association.sky_index import healpix_29
from gueststar.formats.alert_table import alert_table_schema
from gueststar.formats.avro import encode_alert, schema_texts
from gueststar.formats.packet_columns import PLACES
from gueststar.model.detections import OutboxAlert
from gueststar.model.rights import Program
from gueststar.store.alerts.log import ENTRIES, AlertLog
from gueststar.store.alerts.search import AlertQuery, AlertSearch, Cone
from gueststar.store.alerts.table import AlertTable
from gueststar.store.sql import transaction

PER_NIGHT_FILE = 2_000
EVERYONE = tuple(Program)


def rows(first: int, n: int, n_all: int, n_nights: int) -> pa.Table:
    """Return rows of the table as packets of a survey of half the sky would give them."""
    random = np.random.default_rng(first)
    serial = np.arange(first, first + n)
    night = serial * n_nights // n_all
    ra, dec = random.uniform(0, 360, n), np.degrees(np.arcsin(random.uniform(-0.5, 1.0, n)))
    told = {
        "serial": serial, "candid": 3_000_000_000_000_000_000 + serial, "night": 20260101 + night,
        "programid": random.choice([1, 2, 3], n, p=[0.6, 0.3, 0.1]),
        "jd": 2461041.7 + night + random.uniform(0, 0.4, n),
        "ra": ra, "dec": dec, "healpix_29": healpix_29(ra, dec), "fid": random.integers(1, 4, n),
        "magpsf": random.uniform(14.0, 21.5, n).astype("f4"), "rb": random.beta(2, 1, n).astype("f4"),
    }  # fmt: skip
    names = pa.array([f"ZTF26{k:07d}" for k in random.integers(0, n_all // 4, n)])
    columns: dict[str, pa.Array] = {"objectId": names}
    columns |= {name: pa.array(values) for name, values in told.items()}
    schema = pa.schema([*PLACES, *(field for field in alert_table_schema() if field.name not in PLACES.names)])
    for field in schema:
        if field.name not in columns:
            columns[field.name] = filler(field, random, n)
    return pa.Table.from_arrays([columns[field.name].cast(field.type) for field in schema], schema=schema)


def filler(field: pa.Field, random: np.random.Generator, n: int) -> pa.Array:
    if field.type == pa.string():
        return pa.array(random.choice(["a", "b", "c"], n))
    if field.type == pa.bool_():
        return pa.array(random.random(n) < 0.5)
    values = random.normal(0.0, 10.0, n).astype("f4")
    return pa.array(
        values.astype("i8") if field.type == pa.int64() else values.astype("f8"), mask=random.random(n) < 0.1
    )


def fill(log: AlertLog, n: int, n_nights: int) -> float:
    """Fill index and table; return the CPU seconds that writing and merging files took."""
    table, spent = AlertTable(log), 0.0
    table.folder.mkdir(parents=True, exist_ok=True)
    for first in range(1, n + 1, PER_NIGHT_FILE):
        some = rows(first, min(PER_NIGHT_FILE, n + 1 - first), n, n_nights)
        with transaction(log._engine) as connection:
            names = ("serial", "candid", "objectId", "night", "programid")
            values = zip(*(some[name].to_pylist() for name in names), strict=True)
            entries = [
                dict(zip(("serial", "candid", "object_name", "day_obs", "program"), row, strict=True))
                | {"segment": f"{row[3]}/{row[4]}/{first}.tar", "offset": 0, "length": 0}
                for row in values
            ]
            connection.execute(ENTRIES.insert(), entries)
        start = time.process_time()
        table._write(first, first + len(some) - 1, some)
        table._merge()
        spent += time.process_time() - start
    return spent


def median_ms(ask: Callable[[int], int], n: int = 25) -> tuple[float, float, float]:
    """Return median and longest milliseconds of a question asked with other values each time, and rows on average."""
    ask(0)
    spent, found = [], []
    for k in range(1, n + 1):
        start = time.perf_counter()
        found.append(ask(k))
        spent.append(1000.0 * (time.perf_counter() - start))
    return statistics.median(spent), max(spent), statistics.mean(found)


def measure(log: AlertLog, n: int, n_nights: int) -> None:
    search, random = AlertSearch(log, threads=1), np.random.default_rng(1)
    serials = random.integers(1, n, 100)
    ra, dec = random.uniform(0, 360, 100), random.uniform(-10, 60, 100)
    bright = "magpsf < 17 AND rb > 0.9 AND fid = 2"

    def run(**wanted: object) -> int:
        return len(search.run(AlertQuery(programs=EVERYONE, **wanted)))  # type: ignore[arg-type]

    questions: dict[str, Callable[[int], int]] = {
        "candid (entry of the log)": lambda k: log.find(3 * 10**18 + int(serials[k]), programs=EVERYONE) is not None,
        "candid (fields)": lambda k: run(candids=[3 * 10**18 + int(serials[k])]),
        "object": lambda k: run(object_name=f"ZTF26{int(serials[k]) // 4:07d}"),
        "cone of 1 arcmin": lambda k: run(cone=Cone(ra[k], dec[k], 60.0)),
        "cone of 1 degree": lambda k: run(cone=Cone(ra[k], dec[k], 3600.0)),
        "cone of 1 degree, 10 nights": lambda k: run(
            cone=Cone(ra[k], dec[k], 3600.0), first_night=20260101 + k, last_night=20260110 + k
        ),
        "magpsf < 17 AND rb > 0.9 AND fid = 2": lambda k: run(where=bright),
        "the same, 100 of them": lambda k: run(where=bright, limit=100),
        "the same, one night": lambda k: run(where=bright, first_night=20260101 + k, last_night=20260101 + k),
        "count by night": lambda k: len(search.count_by_night(AlertQuery(programs=EVERYONE))),
    }
    print(f"{'search of ' + format(n, ',') + ' alerts':<40} {'median ms':>10} {'longest':>8} {'rows':>9}")
    for what, ask in questions.items():
        median, longest, found = median_ms(ask)
        print(f"{what:<40} {median:>10.1f} {longest:>8.1f} {found:>9.1f}")


def packet(candid: int, random: np.random.Generator) -> OutboxAlert:
    """Return a packet of the survey's own schema with a history of 20 items, and cut-outs of usual size."""
    parts = {name: json.loads(text)["fields"] for name, text in schema_texts().items()}
    empty = {"string": "", "float": 1.0, "double": 2461041.7, "int": 1, "long": candid}

    def record(name: str) -> dict[str, Any]:
        kinds = {f["name"]: f["type"] if isinstance(f["type"], str) else f["type"][-1] for f in parts[name]}
        return {field: empty.get(kind) for field, kind in kinds.items()}

    stamp = {"fileName": "stamp.fits.gz", "stampData": random.bytes(13_500)}
    told = {
        "schemavsn": "4.02", "publisher": "benchmark", "objectId": f"ZTF26{candid:07d}", "candid": candid,
        "candidate": record("candidate") | {"ra": 10.0, "dec": 20.0, "programid": 1},
        "prv_candidates": [record("prv_candidate") for _ in range(20)],
        "fp_hists": [record("fp_hist") for _ in range(20)],
        "cutoutScience": stamp, "cutoutTemplate": stamp, "cutoutDifference": stamp,
        "rbhist": 0.9, "nrbhist": 3,
    }  # fmt: skip
    return OutboxAlert(candid, told["objectId"], 20260101, 1, encode_alert(told))


def measure_packets(root: Path, n: int = 500) -> None:
    """Print what packets cost to get into the log, and into the table behind it."""
    random = np.random.default_rng(2)
    alerts = [packet(candid, random) for candid in range(1, n + 1)]
    with AlertLog(root) as log:
        log.append(packet(candid, random) for candid in range(n + 1, n + 51))
        AlertTable(log).complete()  # code is loaded
        start = time.process_time()
        for first in range(0, n, 50):
            log.append(alerts[first : first + 50])
        logged, start = time.process_time() - start, time.process_time()
        AlertTable(log).complete()
        filed = time.process_time() - start
    size = sum(len(alert.payload) for alert in alerts) / n
    print(f"packets of {size / 1000:.0f} kB, 50 a commit: {1000 * logged / n:.2f} ms of CPU each into the log, "
          f"{1000 * filed / n:.2f} ms into the table")  # fmt: skip


def main() -> None:
    """Fill an archive, search it, print."""
    options = argparse.ArgumentParser()
    options.add_argument("--alerts", type=int, default=1_000_000)
    options.add_argument("--nights", type=int, default=60)
    options.add_argument("--keep", type=Path, help="folder that is filled once and searched again")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = chosen.keep or Path(folder)
        done = root / "filled.json"
        with AlertLog(root) as log:
            if not done.exists():
                spent = fill(log, chosen.alerts, chosen.nights)
                done.write_text(json.dumps({"spent": spent}))
                print(f"files of the table written and merged: {1e6 * spent / chosen.alerts:.0f} us of CPU an alert")
            files = AlertTable(log).files()
            size = sum(file.path.stat().st_size for file in files)
            print(f"{len(files)} files, {size / chosen.alerts:.0f} bytes an alert")
            measure(log, chosen.alerts, chosen.nights)
        measure_packets(Path(folder) / "packets")


if __name__ == "__main__":
    main()
