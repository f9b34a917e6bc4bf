"""A simulated night with bodies that pass near the Earth: which of them are found, linked, and rightly.

Two nights of one detector of the simulated camera, through the package's own commands: the first makes the references,
in the second each body is in view of six exposures within an hour and a half.
"""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from gueststar.algorithms.association.sky_index import separation_arcsec, unit_vectors
from gueststar.formats.parquet import read_catalog
from gueststar.store.ledger import JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

EXPOSURE_S = 30.0
RATES = (1.0, 2.5, 6.0, 12.0, 20.0, 60.0)
"""Edges of the bins, arcsec per minute."""
NEAR_EARTH_IDS = 8_600_000_000_000_000_000
SCENARIO: dict[str, Any] = {
    "description": "Bodies that pass near the Earth.",
    "first_night": "2025-03-27",
    "exposure_s": EXPOSURE_S,
    "fields": [{"id": 301, "choose": "ecliptic"}],
    "nights": [
        {"day": 0, "blocks": [_block := {
            "fields": [301], "filters": ["r"], "programs": [1], "n_rounds": 6, "start_h": -0.8, "every_minutes": 15,
        }]},
        {"day": 6, "blocks": [_block]},
    ],
    "transients": {"n": 5, "magnitudes": [17.0, 19.5]},
    "asteroids": {
        "n": 4, "n_near_earth": 40, "near_earth_rates": [RATES[0], RATES[-1]], "near_earth_magnitudes": [15.0, 18.0],
    },
    "satellites": {"per_night": 3},
    "calibrations": {"n_bias": 4, "n_dark": 3, "n_flat": 3},
}  # fmt: skip


class Seen(NamedTuple):
    """One body on one exposure."""

    body: int
    rate: float
    """arcsec per minute."""
    mag: float
    is_point: bool
    is_streak: bool


def make_night(folder: Path, *, seed: int) -> Path:
    """Simulate and process the nights; what is there already is taken as it is."""
    sky, repo = folder / f"sky{seed}", folder / f"survey{seed}"
    if not repo.is_dir():
        scenario = folder / "near_earth.yaml"
        scenario.write_text(yaml.safe_dump(SCENARIO))
        for words in (
            ["simulate", sky, "--scenario", scenario, "--detectors", "0", "--seed", seed, "--quiet"],
            ["init", repo, "--camera", "simcam"],
            ["refcat", "import", repo, sky / "refcat.parquet"],
            ["ingest", repo, sky / "raw", "--transfer", "link"],
            ["process", repo],
        ):
            command = [sys.executable, "-m", "gueststar", *map(str, words)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return repo


def measure_movers(folder: Path, *, seeds: tuple[int, ...]) -> None:
    """Print what became of the bodies, by rate."""
    seen: list[Seen] = []
    best: dict[int, tuple[int, bool]] = {}
    totals: dict[str, int] = defaultdict(int)
    for seed in seeds:
        repo = make_night(folder, seed=seed)
        _judge(repo, folder / f"sky{seed}" / "truth", seed, seen, best, totals)
    print(f"bodies near the Earth, r 15 to 18, six exposures of {EXPOSURE_S:.0f} s, {len(seeds)} nights")
    print("  arcsec/min  bodies  images  as points  as streaks  neither  bodies linked  by one trail only  neither")
    for low, high in pairwise(RATES):
        mine = [one for one in seen if low <= one.rate < high]
        bodies = sorted({one.body for one in mine if sum(o.body == one.body for o in mine) >= 2})
        linked = sum(best.get(body, (0, False))[0] >= 2 for body in bodies)
        lone = sum(best.get(body, (0, False))[0] == 1 for body in bodies)
        points = sum(one.is_point and not one.is_streak for one in mine)
        streaks = sum(one.is_streak for one in mine)
        print(
            f"  {low:4.1f}-{high:4.1f} {len(bodies):8d} {len(mine):7d} {points:10d} {streaks:11d}"
            f" {len(mine) - points - streaks:8d} {linked:14d} {lone:18d} {len(bodies) - linked - lone:8d}"
        )
    print(
        f"  tracklets of two or more: {totals['linked']}, {totals['wrong']} of them wrong; of those with trails"
        f" {totals['linked with trails']}, {totals['wrong with trails']} wrong, {totals['wrong sense']} in the wrong"
        f" sense; lone trails: {totals['lone']}, {totals['wrong lone']} of no body"
    )


def _judge(
    root: Path, truth: Path, seed: int, seen: list[Seen], best: dict[int, tuple[int, bool]], totals: dict[str, int]
) -> None:
    with SurveyRepo.open(root) as repo:
        job = [job for job in repo.ledger.jobs(kind="tracklets") if job.state is JobState.DONE][-1]
        night = int(job.day_obs or 0)
        owners: dict[int, int] = {}
        places: dict[int, list[tuple[float, Any]]] = defaultdict(list)
        for unit in repo.ledger.jobs(kind="difference", day_obs=night, state=JobState.DONE):
            row = repo.ledger.exposure(int(unit.exposure_id or 0))
            mjd = row.info.mjd_tai if row else 0.0
            true = read_catalog(truth / "observed" / f"{unit.exposure_id}.parquet")
            true = true.select((true["detector"] == unit.detector) & (true["kind"] == 3))
            vectors = unit_vectors(true["ra"], true["dec"])
            sources = repo.get("dia_source", DataId(visit=unit.exposure_id, detector=unit.detector))
            at = unit_vectors(sources["ra"], sources["dec"])
            rows = unit.metrics.get("streaks", {}).get("likely", [])
            for k in range(true.n_rows):
                body = int(true["source_id"][k]) + seed
                rate = float(true["trail"][k]) / EXPOSURE_S * 60.0
                reach = 1.5 + 0.5 * float(true["trail"][k])
                near = separation_arcsec(at, vectors[k]) < reach if len(at) else np.zeros(0, bool)
                owners |= {int(i): body for i in sources["dia_source_id"][near]}
                on_it = [
                    row for row in rows if separation_arcsec(_middle(row), vectors[k]) < 1.5 + 0.25 * row["length"]
                ]
                owners |= {int(row["streak_id"]): body for row in on_it}
                places[body].append((mjd, vectors[k]))
                if true["source_id"][k] >= NEAR_EARTH_IDS and _is_inside(true, k):
                    seen.append(Seen(body, rate, float(true["mag"][k]), bool(near.any()), bool(on_it)))
        for tracklet in job.metrics["tracklets"]:
            _count(tracklet, owners, places, best, totals)


def _count(
    tracklet: dict[str, Any], owners: dict[int, int], places: dict[int, list[tuple[float, Any]]],
    best: dict[int, tuple[int, bool]], totals: dict[str, int],
) -> None:  # fmt: skip
    of = [owners.get(int(i), 0) for i in (*tracklet["dia_source_ids"], *tracklet["streak_ids"])]
    body = max(set(of), key=of.count)
    n = of.count(body) if body else 0
    is_right = n >= 0.6 * len(of)
    has_trails = bool(tracklet["streak_ids"])
    if len(of) == 1:
        totals["lone"] += 1
        totals["wrong lone"] += not is_right
    else:
        for name, is_meant in (("linked", True), ("linked with trails", has_trails)):
            totals[name] += is_meant
        totals["wrong"] += not is_right
        totals["wrong with trails"] += has_trails and not is_right
        if is_right and has_trails and len(places[body]) > 1:
            (_, first), (_, last) = min(places[body], key=lambda p: p[0]), max(places[body], key=lambda p: p[0])
            totals["wrong sense"] += abs((_angle(first, last) - tracklet["position_angle_deg"] + 180) % 360 - 180) > 90
    if is_right:
        best[body] = max(best.get(body, (0, False)), (n, has_trails))


def _is_inside(true: Any, k: int, *, side: int = 1024) -> bool:
    """Return whether a trail lies on the detector as a whole."""
    margin = 20.0 + 0.5 * float(true["trail"][k])
    return all(margin < float(true[axis][k]) < side - margin for axis in ("x", "y"))


def _middle(row: dict[str, Any]) -> Any:
    ends = unit_vectors(np.array([row["ra_1"], row["ra_2"]]), np.array([row["dec_1"], row["dec_2"]]))
    return ends.sum(axis=0) / np.linalg.norm(ends.sum(axis=0))


def _angle(first: Any, last: Any) -> float:
    """Return the position angle of the direction from one unit vector to another, degrees."""
    east = np.array([-first[1], first[0], 0.0]) / np.hypot(first[0], first[1])
    away = last - first
    return float(np.degrees(np.arctan2(away @ east, away @ np.cross(first, east))) % 360.0)
