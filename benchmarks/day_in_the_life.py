"""The day's housekeeping on a survey of made-up files and images: seconds of CPU, and rates.

Usage: python benchmarks/day_in_the_life.py [--files 2000] [--mb 0.5] [--fields 100] [--folder FOLDER]

The archive: a night of small products, copied, looked at again with nothing new, read back, and put out of the
repository with a proof of each. The synopsis: the good epochs of fields of four detectors with ten images each, of a
ledger that holds twenty times as many. The candidates: a night of 100,000 detections written for association.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gueststar.cameras.load import load_camera
from gueststar.core.healpix import healpix_key
from gueststar.model.columns import DIA_SOURCE
from gueststar.operations.actions.contract import ActionContext
from gueststar.operations.actions.export_candidates import export_candidates
from gueststar.operations.actions.readiness import readiness
from gueststar.operations.actions.reference_synopsis import reference_synopsis
from gueststar.store.archive.archive import Archive
from gueststar.store.archive.cleanup import carry_out, files_to_go, plan_cleanup, write_plan
from gueststar.store.detections.catalog_rows import rows_of
from gueststar.store.detections.store import DetectionStore
from gueststar.store.detections.tables import SOURCES
from gueststar.store.ledger_rows import Field, JobState
from gueststar.store.repo import SurveyRepo
from gueststar.store.settings import SurveySettings
from gueststar.store.sql import transaction
from gueststar.store.tables import EXPOSURES, FIELDS, JOBS

NIGHT = 20260101
BACKGROUND = 20
"""Times as many images of other weeks lie in the ledger."""


@contextmanager
def timed(what: str, n: int, unit: str, mb: float = 0.0) -> Iterator[None]:
    """Print what the body of a ``with`` statement took."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rate = f", {mb / wall:7.0f} MB/s" if mb else ""
    print(f"{what:<34} {cpu:7.2f} s CPU, {1e3 * cpu / n:8.3f} ms a {unit}, {wall:7.2f} s{rate}")


def survey(folder: Path) -> SurveyRepo:
    """Make an empty survey with an archive beside it."""
    disks = {"archive": str(folder / "archive"), "reserve_gb": 0.0}
    settings = SurveySettings(name="bench", operation={"disks": disks})  # type: ignore[arg-type]
    return SurveyRepo.create(folder / "survey", load_camera("simcam"), settings=settings)


def files(repo: SurveyRepo, n: int, mb: float) -> None:
    """Write products of a night, named by their content."""
    folder = repo.root / "products" / "science_image" / str(NIGHT)
    folder.mkdir(parents=True)
    block = np.random.default_rng(1).bytes(int(mb * 1e6))
    for k in range(n):
        content = k.to_bytes(8, "little") + block[8:]
        digest = hashlib.sha256(content).hexdigest()
        (folder / f"science_image_{k}_0-{digest[:12]}.fits").write_bytes(content)
    os.utime(folder, (1.7e9, 1.7e9))


def archive_of_a_night(repo: SurveyRepo, n: int, mb: float) -> None:
    """Copy, look again, read back, put out."""
    files(repo, n, mb)
    with timed("archive: copied and verified", n, "file", n * mb):
        assert not Archive(repo).update().left
    with timed("archive: nothing new", n, "file"):
        Archive(repo).update()
    with timed("archive: read back", n, "file", n * mb):
        assert not Archive(repo).check().rotten
    now = time.time()
    with timed("clean-up: proved and planned", n, "file", 2 * n * mb):
        plan = plan_cleanup(
            repo, Archive(repo), wanted_bytes=1 << 60, now=now, why="benchmark", with_caches=False,
            files=files_to_go(repo, before_night=NIGHT + 1, with_raw=False), loose_older_than_s=1e9,
        )  # fmt: skip
        path = write_plan(repo.root, plan)
    with timed("clean-up: carried out", n, "file"):
        assert carry_out(repo, plan, path).n_bytes_freed == sum(proof.size for proof in plan.archived)
    assert len(plan.archived) == n


def images(repo: SurveyRepo, n_fields: int) -> int:
    """Write calibrated images into the ledger: ten of each field and detector this week, many more before."""
    rng, now = np.random.default_rng(2), time.time()
    exposures, jobs = [], []
    for k in range(n_fields * 10 * (1 + BACKGROUND)):
        is_new = k < n_fields * 10
        field = 1 + k % n_fields + (0 if is_new else n_fields * (1 + k % BACKGROUND))
        exposures.append({
            "id": k + 1, "camera": "simcam", "observation_type": "science", "mjd_start": 61000.0 + 1e-3 * k,
            "exposure_s": 30.0, "day_obs": NIGHT, "program": 1, "band": "r", "rotation_deg": 0.0, "field": field,
            "object_name": "", "principal_investigator": "", "is_target_of_opportunity": False, "state": "processed",
            "reason": "", "received": now,
        })  # fmt: skip
        for detector in range(4):
            metrics = {
                "fwhm_arcsec": rng.normal(2.0, 0.2), "limiting_mag": rng.normal(20.5, 0.2), "zero_point": 26.0,
                "astrometric_rms_mas": 50.0, "sky_electrons": 100.0, "others": {f"m{j}": 0.0 for j in range(60)},
            }  # fmt: skip
            jobs.append({
                "id": 4 * k + detector + 1, "kind": "science", "key": {"k": k}, "exposure_id": k + 1,
                "detector": detector, "day_obs": NIGHT, "state": JobState.DONE, "attempts": 1, "max_attempts": 3,
                "reason": "", "error_kind": "", "traceback": "", "metrics": metrics, "worker": "", "submitted": now,
                "finished": now if is_new else now - 40 * 86400, "priority": 50,
            })  # fmt: skip
    with repo.ledger.writing() as connection:
        connection.execute(FIELDS.insert(), [vars(Field(f, 10.0, 10.0)) for f in range(1, n_fields * (2 + BACKGROUND))])
        connection.execute(EXPOSURES.insert(), exposures)
        connection.execute(JOBS.insert(), jobs)
    return len(jobs)


def candidates(repo: SurveyRepo, n: int) -> None:
    """Write detections into the store."""
    rng = np.random.default_rng(3)
    values = {c.name: np.zeros(n, dtype=c.dtype) for c in DIA_SOURCE.columns}
    values |= {
        "dia_source_id": np.arange(1, n + 1), "ra": rng.uniform(0, 360, n), "dec": rng.uniform(-30, 80, n),
        "program": rng.integers(1, 4, n), "psf_flux": rng.normal(1e4, 1e3, n),
    }  # fmt: skip
    table = DIA_SOURCE.catalog(values)
    keys = healpix_key(ra=table["ra"], dec=table["dec"]).tolist()
    extra = {"mjd_start": 61000.0, "day_obs": NIGHT, "field": 1, "rcid": 0}
    rows = [row | extra | {"healpix_29": key} for row, key in zip(rows_of(table), keys, strict=True)]
    store = DetectionStore.of_survey(repo.root, None)
    with transaction(store._engine) as connection:
        connection.execute(SOURCES.insert(), rows)
    store.close()


def main() -> None:
    """Make the survey, and time each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--mb", type=float, default=0.5)
    parser.add_argument("--fields", type=int, default=100)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        with survey(folder) as repo:
            archive_of_a_night(repo, given.files, given.mb)
            n_images = images(repo, given.fields)
            context = ActionContext(repo, NIGHT, time.time())
            with timed(f"synopsis of references ({n_images} images)", given.fields, "field"):
                assert reference_synopsis(context).data["n"] == given.fields
            candidates(repo, 100_000)
            with timed("candidates exported", 100_000, "row"):
                export_candidates(context)
            with timed("readiness", 1, "list"):
                readiness(context)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
