"""What the page of a year costs: 260 nights of 700 exposures in a ledger made for it, summarised and drawn.

Run: python benchmarks/survey_pages.py [--nights N] [--exposures N] [--keep FILE.html]
The first time every night is summarised; then only the last ones, the others being kept. Seconds of CPU on one core.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from gueststar.cameras.load import load_camera
from gueststar.operations.survey_pages.html import render_survey, survey_pictures
from gueststar.operations.survey_pages.report import make_survey_report
from gueststar.store.repo import SurveyRepo
from gueststar.store.tables import EXPOSURES, JOBS

AIM_S = 30.0


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--nights", type=int, default=260)
    words.add_argument("--exposures", type=int, default=700)
    words.add_argument("--keep", type=Path)
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as folder, SurveyRepo.create(Path(folder) / "year", load_camera("ztf")) as repo:
        fill(repo, given.nights, given.exposures)
        for what in ("first time", "again"):
            begin = time.process_time()
            report = make_survey_report(repo)
            made = time.process_time()
            page = render_survey(report, survey_pictures(report, repo.camera))
            drawn = time.process_time()
            print(
                f"{what:10s} {report.totals['exposures']} exposures, {len(report.coverage)} fields and filters:"
                f" {made - begin:.1f} s summarised, {drawn - made:.1f} s drawn, page of {len(page) / 1e6:.1f} MB"
            )
            if drawn - begin > AIM_S:
                print(f"  more than the {AIM_S:.0f} s that it should take")
        if given.keep:
            given.keep.write_text(page)


def fill(repo: SurveyRepo, n_nights: int, n_exposures: int) -> None:
    """Write nights into the ledger: one unit of work a stage and exposure, on fields all over the northern sky."""
    rng = np.random.default_rng(1)
    fields = [(ra, dec) for dec in np.arange(-28, 88, 7.0) for ra in np.arange(0, 360, 7.0 / np.cos(np.radians(dec)))]
    serial = 0
    for number in range(n_nights):
        day = date(2026, 1, 1) + timedelta(days=int(number * 365 / n_nights))
        night, mjd = int(day.strftime("%Y%m%d")), 61041.2 + (day - date(2026, 1, 1)).days
        chosen = rng.choice(len(fields), n_exposures, p=visible(fields, (day - date(2026, 1, 1)).days))
        exposures, jobs = [], []
        for k, which in enumerate(chosen):
            serial += 1
            exposures.append(exposure_row(serial, night, mjd + k * 0.0005, int(which), fields[which], rng))
            jobs += list(job_rows(serial, night, exposures[-1]["received"], rng))
        with repo.ledger.writing() as connection:
            connection.execute(EXPOSURES.insert(), exposures)
            connection.execute(JOBS.insert(), jobs)


def visible(fields: list[tuple[float, float]], day: int) -> np.ndarray:
    """Return how likely each field is observed: those that culminate about midnight."""
    away = (np.array([ra for ra, _ in fields]) - (100.0 + day * 360.0 / 365.0) + 180.0) % 360.0 - 180.0
    weight = np.exp(-0.5 * (away / 50.0) ** 2)
    return np.asarray(weight / weight.sum())


def exposure_row(
    serial: int, night: int, mjd: float, field: int, at: tuple[float, float], rng: np.random.Generator
) -> dict[str, object]:
    band = "gri"[int(rng.choice(3, p=[0.45, 0.45, 0.1]))]
    return {
        "id": serial, "camera": "ztf", "observation_type": "science", "mjd_start": mjd, "exposure_s": 30.0,
        "day_obs": night, "program": int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2])), "physical_filter": f"ZTF {band}",
        "band": band, "ra": at[0], "dec": at[1], "rotation_deg": 0.0, "field": field, "object_name": "",
        "principal_investigator": "", "is_target_of_opportunity": False, "state": "processed", "reason": "",
        "received": (mjd - 40587.0) * 86400.0 + rng.gamma(4.0, 10.0),
    }  # fmt: skip


def job_rows(serial: int, night: int, received: float, rng: np.random.Generator) -> Iterator[dict[str, object]]:
    depth = 20.5 + 0.3 * rng.normal()
    padding = {f"step_{k}": [round(float(v), 4) for v in rng.normal(size=8)] for k in range(8)}
    metrics = {
        "science": {"limiting_mag": depth, "fwhm_arcsec": 2.0 + rng.gamma(2.0, 0.2), "zero_point": 26.2,
                    "astrometric_rms_mas": 40.0, "sky_electrons": 300.0, **padding},
        "difference": {"difference_limiting_mag": depth - 0.2, "score_sigma": 1.0, "n_candidates": 60, **padding},
        "association": {"n_alerts": int(rng.poisson(20))},
    }  # fmt: skip
    for number, (kind, values) in enumerate(metrics.items()):
        yield {
            "id": serial * 10 + number, "kind": kind, "key": {}, "exposure_id": serial, "detector": 0, "day_obs": night,
            "state": "done", "attempts": 1, "max_attempts": 3, "reason": "", "error_kind": "", "traceback": "",
            "metrics": values, "config": {}, "inputs": None, "worker": "", "submitted": received, "started": received,
            "finished": received + rng.gamma(6.0, 30.0), "cpu_s": 3.0, "peak_rss_mb": 900.0, "priority": 50,
        }  # fmt: skip


if __name__ == "__main__":
    main()
