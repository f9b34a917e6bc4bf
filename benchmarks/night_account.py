"""What the account of a large night costs: `python benchmarks/night_account.py [EXPOSURES [DETECTORS [NIGHTS]]]`.

A ledger is made up (no pixels): a night of 700 exposures of 16 detectors, each calibrated, subtracted and associated,
with an observing log, rules' decisions, some failures and a link outage, after earlier nights of a tenth of that. The
report is made twice: first nothing is remembered of the earlier nights, then all is.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gueststar.cameras.load import load_camera
from gueststar.core import ids, times
from gueststar.formats.reliability_model import default_reliability_model
from gueststar.model.expected import ExpectedExposure
from gueststar.model.exposure import ExposureInfo
from gueststar.model.rights import Program
from gueststar.operations.report.files import write_report
from gueststar.operations.report.latency import unix_of
from gueststar.operations.report.night_report import make_report
from gueststar.operations.report.verdict import verdict_of
from gueststar.store.expected import Expectations
from gueststar.store.repo import SurveyRepo
from gueststar.store.tables import EVENTS, EXPOSURE_DETECTORS, EXPOSURES, FILES, JOBS

LAST = 61132
"""MJD of the night."""
CADENCE_S, EXPOSURE_S = 45.0, 30.0
FILTERS = (("ZTF_g", "g"), ("ZTF_r", "r"), ("ZTF_i", "i"))


def night_of(mjd: int) -> int:
    """Return the night (YYYYMMDD) that begins on an MJD at Palomar."""
    return times.day_obs(mjd + 0.3, longitude_deg=-116.86)


def exposures_of(mjd: int, n: int) -> list[ExposureInfo]:
    """Return the science exposures of a night."""
    rng = np.random.default_rng(mjd)
    infos = []
    for k in range(n):
        glass, band = FILTERS[k // 40 % 3]
        program = (Program.PUBLIC, Program.PARTNERSHIP, Program.PRIVATE)[int(rng.integers(3))]
        start = mjd + 0.12 + k * CADENCE_S / 86400.0
        info = ExposureInfo(
            "ztf", "science", start, EXPOSURE_S, night_of(mjd), program, glass, band, float(rng.uniform(0, 360)),
            float(rng.uniform(-25, 80)), field=int(rng.integers(200, 900)), airmass=1.2,
        )  # fmt: skip
        infos.append(info)
    return infos


def metrics_of(rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    """Return metrics by kind of job, as long and as nested as real ones are."""
    nested = {f"value_{k}": float(value) for k, value in enumerate(rng.normal(size=30))}
    science = {
        "fwhm_arcsec": 2.1 + rng.normal(0, 0.2), "psf_size_residual": rng.normal(0, 0.01), "sky_electrons": 300.0,
        "psf_ellipticity_residual": abs(rng.normal(0, 0.01)), "sky_rms_electrons": 20.0, "n_sources": 9000,
        "n_astrometric_matches": 800, "astrometric_rms_mas": 60.0 + rng.normal(0, 5), "zero_point_err": 0.002,
        "zero_point": 26.2 + rng.normal(0, 0.05), "zero_point_rms_mag": 0.03, "n_calibrators": 500, "wall_s": 3.0,
        "limiting_mag": 20.5 + rng.normal(0, 0.1), "limiting_mag_worst": 20.2, "fraction_masked": 0.01,
        "cloud_extinction_mag": abs(rng.normal(0, 0.03)), "zero_point_structure_mag": 0.005,
        "corners": [[150.0, 2.0]] * 4, "psf": {f"part_{k}": nested for k in range(3)}, "astrometry": nested,
        "detrend": nested, "catalogs": nested, "photometry": nested, "inputs": {"bias": "a" * 120, "flat": "b" * 120},
        "steps": {f"step_{k}": float(rng.uniform(0, 1)) for k in range(12)},
    }  # fmt: skip
    difference = {
        "registration_rms_pixel": 0.05, "score_sigma": 1.0 + rng.normal(0, 0.02), "difference_limiting_mag": 20.4,
        "n_candidates": int(rng.poisson(60)), "n_streaks": 0, "subtraction": nested, "reference": nested, "wall_s": 4.0,
        "vetting": {"version": VERSION, "n_reliable": 30, "counts": [rng.integers(0, 9, n).tolist() for n in BINS]},
        "streaks": {"likely": []}, "steps": {f"step_{k}": float(rng.uniform(0, 1)) for k in range(8)},
    }  # fmt: skip
    association = {"n_alerts": int(rng.poisson(15)), "n_new_objects": 9, "is_late": False, "wall_s": 0.5}
    return {"science": science, "difference": difference, "association": association}


MODEL = default_reliability_model()
VERSION, BINS = MODEL.version, [len(counts) for counts in MODEL.training["distribution"]["counts"]]
CONFIG = {f"section_{k}": {f"parameter_{j}": 1.0 * j for j in range(25)} for k in range(8)}


def job_row(kind: str, info: ExposureInfo, detector: int, number: int, begun: float, cost: float) -> dict[str, Any]:
    """Return a row of a job that was done."""
    return {
        "id": number, "kind": kind, "key": {"exposure": info.exposure_id, "detector": detector}, "state": "done",
        "exposure_id": info.exposure_id, "detector": detector, "day_obs": info.day_obs, "attempts": 1,
        "max_attempts": 3, "config": CONFIG if kind != "association" else None, "worker": "w", "submitted": begun - 1.0,
        "started": begun, "finished": begun + cost, "cpu_s": cost, "peak_rss_mb": 900.0, "priority": 10,
    }  # fmt: skip


def fill(repo: SurveyRepo, mjd: int, n: int, n_detectors: int) -> None:
    """Write a night into the ledger."""
    rng = np.random.default_rng(mjd + 1)
    infos = exposures_of(mjd, n)
    closed = unix_of(np.array([info.mjd_start for info in infos])) + EXPOSURE_S
    exposures, parts, files, jobs, events = [], [], [], [], []
    for k, (info, shutter) in enumerate(zip(infos, closed.tolist(), strict=True)):
        is_out = 300 <= k < 340
        came = shutter + (rng.uniform(30, 90) if not is_out else (345 - k) * CADENCE_S + 600.0)
        values = {**vars(info), "program": int(info.program), "state": "processed", "reason": "", "received": came}
        exposures.append({**values, "id": info.exposure_id})
        events.append(
            {"time": came, "what": "decision", "subject": str(info.exposure_id), "text": "rule 'tonight': alerts",
             "data": {"rule": "tonight", "recipe": "alerts", "why": "", "at": came}}
        )  # fmt: skip
        for detector in range(n_detectors):
            checksum = f"{info.exposure_id:x}{detector:02x}"
            key = {"exposure_id": info.exposure_id, "detector": detector, "pixel_checksum": checksum}
            parts.append(key)
            files.append(
                {"path": f"/landing/{checksum}.fits.fz", "sha256": checksum, "pixel_checksum": checksum,
                 "status": "ingested", "reason": "", "exposure_id": info.exposure_id, "day_obs": info.day_obs,
                 "received": came, "last_seen": came}
            )  # fmt: skip
            metrics = metrics_of(rng)
            begun = came + rng.exponential(40.0)
            for kind, cost in (("science", 2.5), ("difference", 3.6), ("association", 0.5)):
                number = ids.content_id(kind, info.exposure_id, detector)
                row = job_row(kind, info, detector, number, begun, cost) | {"metrics": metrics[kind], "reason": ""}
                if kind == "science" and rng.uniform() < 0.01:
                    jobs.append(row | {"state": "failed", "reason": "no star for the PSF", "metrics": None})
                    break
                jobs.append(row)
                begun += cost + rng.exponential(5.0)
    with repo.ledger.writing() as connection:
        for table, rows in (
            (EXPOSURES, exposures),
            (EXPOSURE_DETECTORS, parts),
            (FILES, files),
            (JOBS, jobs),
            (EVENTS, events),
        ):
            for start in range(0, len(rows), 5000):
                connection.execute(table.insert(), rows[start : start + 5000])
    log = [
        ExpectedExposure(
            info.day_obs, "log", info.mjd_start, None, "science", info.field, physical_filter=info.physical_filter
        )
        for info in infos
    ] + [ExpectedExposure(infos[0].day_obs, "log", infos[-1].mjd_start + k * 5e-4, None) for k in range(1, 6)]
    Expectations(repo.ledger).take(log, file="log.csv", source="log")


def timed(name: str, work: Callable[[], Any]) -> Any:
    """Run ``work``, print its CPU seconds, return what it gives."""
    begun = time.process_time()
    value = work()
    print(f"{name:<62} {time.process_time() - begun:7.2f} s of CPU", flush=True)
    return value


def main() -> None:
    """Make up the ledger, report its last night twice, print what that cost."""
    n, n_detectors, n_nights = (int(text) for text in [*sys.argv[1:], *("700", "16", "14")[len(sys.argv) - 1 :]])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "survey"
        filling = multiprocessing.get_context("spawn").Process(target=make, args=(root, n, n_detectors, n_nights))
        filling.start()  # in a process of its own: its memory is not the report's
        filling.join()
        print(f"{n} exposures of {n_detectors} detectors after {n_nights} nights of {n // 10}")
        with SurveyRepo.open(root) as repo:
            timed(
                "the report's values, nothing remembered of earlier nights", lambda: make_report(repo, night_of(LAST))
            )
            report = timed("the report's values", lambda: make_report(repo, night_of(LAST)))
            timed("text, JSON and page with pictures", lambda: write_report(repo, report))
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0:.0f} MB")
        print(verdict_of(report))


def make(root: Path, n: int, n_detectors: int, n_nights: int) -> None:
    """Make up the whole survey."""
    with SurveyRepo.create(root, load_camera("ztf")) as repo:
        for night in range(n_nights, 0, -1):
            fill(repo, LAST - night, n // 10, n_detectors)
        fill(repo, LAST, n, n_detectors)


if __name__ == "__main__":
    main()
