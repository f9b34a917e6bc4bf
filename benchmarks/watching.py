"""What watching costs: a picture of an image, a look at the facts of a long night, the figures for Prometheus.

The night is one of 700 exposures of 16 detectors, in a ledger of thirty such nights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import yaml

from gueststar.cameras.load import load_camera
from gueststar.core import times
from gueststar.formats.fits_planes import float_plane, write_hdus
from gueststar.formats.preview import preview_png
from gueststar.operations.watch.look import judge, judged
from gueststar.operations.watch.prometheus import Figures
from gueststar.operations.watch.watcher import Watcher
from gueststar.store.ledger import Ledger
from gueststar.store.ledger_jobs import job_id
from gueststar.store.settings import SurveySettings, write_settings
from gueststar.store.tables import EXPOSURES, JOBS

N_EXPOSURES, N_DETECTORS, N_NIGHTS = 700, 16, 30
METRICS = {"fwhm_arcsec": 2.1, "zero_point": 26.3, "limiting_mag": 20.6, "n_alerts": 12, "steps": {"a": 1.0}}


def main() -> None:
    """Print all figures."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        print(f"picture of an image of 3072 x 3080 pixels: {_cpu(_picture(root)):.0f} ms of CPU")
        end = _fill(root)
        watcher = Watcher(root, clock=_Fixed(end))
        facts = watcher.facts()
        n_units = sum(work.n for work in facts.work)
        print(f"night of {facts.received} exposures, {n_units} units of work; {N_NIGHTS} nights in the ledger")
        print(f"  facts: {_cpu(watcher.facts):.0f} ms of CPU")
        print(f"  conditions: {_cpu(lambda: judged(watcher, facts)):.1f} ms")
        settled = [replace(one, is_wrong=False) for one in judged(watcher, facts)]
        print(f"  settling what is right: {_cpu(lambda: judge(watcher.repo(), facts, settled)):.1f} ms")
        print(f"  figures for Prometheus without the facts: {_cpu(Figures(lambda: facts).text):.1f} ms")
        watcher.close()


class _Fixed:
    def __init__(self, now: float) -> None:
        self._now = now

    def now(self) -> float:
        return self._now


def _cpu(do: Callable[[], object], n: int = 5) -> float:
    """Return milliseconds of CPU: the median of some runs after a first one."""
    do()
    taken = []
    for _ in range(n):
        start = time.process_time()
        do()
        taken.append(1000.0 * (time.process_time() - start))
    return float(np.median(taken))


def _picture(root: Path) -> Callable[[], bytes]:
    from astropy.io import fits

    pixels = np.random.default_rng(1).normal(0.0, 10.0, (3080, 3072)).astype(np.float32)
    write_hdus(root / "image.fits", [fits.PrimaryHDU(), float_plane("IMAGE", pixels, {}, step=0.6)])
    return lambda: preview_png(root / "image.fits")


def _fill(root: Path) -> float:
    """Make a survey whose ledger holds thirty nights; return when the last one ended, Unix time."""
    write_settings(root / "survey.yaml", SurveySettings(name="benchmark"))
    (root / "camera.yaml").write_text(yaml.safe_dump(load_camera("simcam").model_dump(mode="json")))
    ledger = Ledger(f"sqlite:///{root}/ledger.sqlite3")
    end = 0.0
    for night in range(N_NIGHTS):
        exposures, jobs = [], []
        for order in range(N_EXPOSURES):
            mjd = 61000.0 + night + order * 45.0 / 86400.0
            end = (times.mjd_utc(61000.0 + night) - 40587.0) * 86400.0 + order * 45.0 + 60.0
            number = (night + 1) * 10_000_000 + order
            day = 20251121 if night < 10 else 20251201 + night - 10
            exposures.append(_exposure(number, mjd, day + (night if night < 10 else 0), end))
            for stage in ("science", "difference", "association") if night == N_NIGHTS - 1 else ("association",):
                jobs += [
                    _job(stage, number, detector, exposures[-1]["day_obs"], end) for detector in range(N_DETECTORS)
                ]
        with ledger.writing() as connection:
            connection.execute(EXPOSURES.insert(), exposures)
            connection.execute(JOBS.insert(), jobs)
    ledger.close()
    return end + 200.0


def _exposure(number: int, mjd: float, day: int, received: float) -> dict[str, object]:
    return {
        "id": number, "camera": "simcam", "observation_type": "science", "mjd_start": mjd, "exposure_s": 30.0,
        "day_obs": day, "program": 1, "band": "r", "physical_filter": "r", "field": number % 300,
        "state": "processed", "received": received, "rotation_deg": 0.0, "object_name": "", "reason": "",
        "principal_investigator": "",
    }  # fmt: skip


def _job(stage: str, number: int, detector: int, day: int, received: float) -> dict[str, object]:
    key = {"exposure": number, "detector": detector}
    return {
        "id": job_id(stage, key), "kind": stage, "key": key, "exposure_id": number, "detector": detector,
        "day_obs": day, "state": "done", "metrics": METRICS, "submitted": received, "finished": received + 120.0,
        "cpu_s": 6.0,
    }  # fmt: skip


if __name__ == "__main__":
    main()
