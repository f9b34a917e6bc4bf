"""CPU of filters: features of histories, the table, and many conditions on one batch; the same rows from DuckDB.

Run: python benchmarks/filters.py [--alerts 1200] [--filters 200]

Packets are made up: 20 detections, 30 limits and 40 forced fluxes each. Times are the median of five, of one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np

from gueststar.formats.alert_table import alert_table, alert_table_schema, features_of
from gueststar.formats.conditions.evaluate import Batch
from gueststar.formats.conditions.parse import Condition, parse_condition
from gueststar.formats.conditions.tree import field_kinds
from gueststar.store.condition_sql import condition_sql

N_DETECTIONS, N_LIMITS, N_FORCED = 20, 30, 40


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--alerts", type=int, default=1200)
    parser.add_argument("--filters", type=int, default=200)
    arguments = parser.parse_args()
    rng = np.random.default_rng(5)
    packets = [made_up_packet(rng, candid) for candid in range(1, arguments.alerts + 1)]
    texts = made_up_conditions(rng, arguments.filters)
    kinds = field_kinds(alert_table_schema())
    parsed = [parse_condition(text, kinds) for text in texts]
    table = alert_table(packets)
    told = {
        "features of their histories": lambda: features_of(packets),
        "the whole table, features included": lambda: alert_table(packets),
        "parsing the conditions (once each)": lambda: [parse_condition(text, kinds) for text in texts],
        "asking the conditions": lambda: passing(Batch(table), parsed),
    }
    print(f"{len(packets)} alerts, {len(parsed)} filters; CPU, ms:")
    for what, function in told.items():
        print(f"  {what:<40}{1000 * cpu_of(function):8.1f}")
    alone = sum(cpu_of(lambda one=one: passing(Batch(table), [one]), n=1) for one in parsed)
    print(f"  {'the same, each filter alone':<40}{1000 * alone:8.1f}")
    rows = passing(Batch(table), parsed)
    print(
        f"alerts that pass a filter: median {int(np.median(rows.sum(axis=1)))}, of {int((rows.sum(axis=1) > 0).sum())}"
    )
    print(f"filters whose rows differ in DuckDB: {different(table, parsed, rows)}")


def passing(batch: Batch, conditions: list[Condition]) -> np.ndarray:
    return np.array([batch.passes(condition) for condition in conditions])


def different(table: Any, conditions: list[Condition], rows: np.ndarray) -> int:
    database = duckdb.connect(config={"threads": 1})
    database.register("alerts", table)
    n = 0
    for condition, passes in zip(conditions, rows, strict=True):
        found = database.execute(f"SELECT coalesce({condition_sql(condition)}, FALSE) FROM alerts").fetchnumpy()
        n += not np.array_equal(np.asarray(next(iter(found.values()))), passes)
    return n


def cpu_of(function: Callable[[], Any], *, n: int = 5) -> float:
    took = []
    for _ in range(n):
        begin = time.process_time()
        function()
        took.append(time.process_time() - begin)
    return float(np.median(took))


def made_up_conditions(rng: np.random.Generator, n: int) -> list[str]:
    """Return conditions such as people write, with numbers of their own."""
    forms = (
        "rb > {rb:.2f} AND magpsf < {mag:.1f} AND n_det_30d >= {n} AND NOT is_mover",
        "is_positive AND drb > {rb:.2f} AND rise_rate > {x:.2f} AND rise_rate / rise_rate_err > 3 AND age_days < {n}",
        "fid = {fid} AND magpsf BETWEEN {faint:.1f} AND {mag:.1f} AND (distnr > 1.5 OR distnr IS NULL) AND nbad = 0",
        "colour_g_r < {x:.2f} AND abs(galactic_latitude) > {n} AND host_distance > {x:.2f} AND host_distance < 20",
        "cone({ra:.2f}, {dec:.2f}, {radius:.0f}) AND (magpsf < {mag:.1f} OR amplitude > {x:.2f})",
        "ssdistnr IS NULL AND coalesce(sgscore1, 0.5) < 0.5 AND days_limit_to_first < {n} AND first_limit_mag > 19",
        "forced_snr_g > {n} OR forced_snr_r > {n} AND below_peak < {x:.2f}",
        "objectId LIKE 'GST{n}%' AND magpsf - coalesce(magnr, 22) < -{x:.2f} AND log10(1 + n_det_30d) > 0.5",
    )
    texts = []
    for k in range(n):
        values = {
            "rb": rng.uniform(0.3, 0.95), "mag": rng.uniform(17, 20), "faint": rng.uniform(14, 16),
            "n": rng.integers(1, 30), "x": rng.uniform(0, 1), "fid": rng.integers(1, 4),
            "ra": rng.uniform(0, 360), "dec": rng.uniform(-30, 90), "radius": rng.uniform(10, 30000),
        }  # fmt: skip
        texts.append(forms[k % len(forms)].format(**values))
    return texts


def made_up_packet(rng: np.random.Generator, candid: int) -> dict[str, Any]:
    """Return a packet of random values, one in ten of its fields not known."""
    jd, ra, dec = 2461000.75, rng.uniform(0, 360), rng.uniform(-30, 90)
    candidate: dict[str, Any] = {}
    for field in alert_table_schema():
        kind = str(field.type)
        candidate[field.name] = {"double": float(rng.normal(1, 1)), "int64": int(rng.integers(0, 3))}.get(kind, "a")
        if rng.uniform() < 0.1:
            candidate[field.name] = {"double": -999.0, "int64": -999}.get(kind, "null")
    candidate |= {
        "candid": candid, "jd": jd, "fid": int(rng.integers(1, 3)), "ra": ra, "dec": dec, "isdiffpos": "t",
        "magpsf": rng.uniform(15, 21), "sigmapsf": 0.1, "rb": rng.uniform(), "drb": rng.uniform(),
    }  # fmt: skip
    past = [
        {"candid": 10**6 + k, "jd": jd - rng.uniform(0, 30), "fid": int(rng.integers(1, 3)), "ra": ra, "dec": dec,
         "magpsf": rng.uniform(15, 21), "sigmapsf": 0.1, "isdiffpos": "t", "rb": rng.uniform()}
        for k in range(N_DETECTIONS)
    ]  # fmt: skip
    past += [
        {"candid": None, "jd": jd - rng.uniform(0, 30), "fid": 2, "diffmaglim": rng.uniform(19, 21)}
        for _ in range(N_LIMITS)
    ]
    forced = [
        {"jd": jd - rng.uniform(0, 30), "fid": 1 + k % 3, "forcediffimflux": rng.normal(50, 30), "magzpsci": 26.2,
         "forcediffimfluxunc": 30.0, "procstatus": "0"}
        for k in range(N_FORCED)
    ]  # fmt: skip
    name = f"GST{25 + candid % 5}{'abcdefghij'[candid % 10] * 7}"
    return {"objectId": name, "candid": candid, "candidate": candidate, "prv_candidates": past, "fp_hists": forced}


if __name__ == "__main__":
    main()
