"""A survey with a ledger to fill: no pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gueststar.cameras.load import load_camera
from gueststar.core import times
from gueststar.model.exposure import ExposureInfo
from gueststar.model.rights import Program
from gueststar.store.repo import SurveyRepo

NIGHT = 20250402
START = 60768.15
"""Start of the first exposure, MJD TAI."""


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty survey of the simulated camera, to be copied."""
    root = tmp_path_factory.mktemp("template") / "survey"
    SurveyRepo.create(root, load_camera("simcam")).close()
    return root


@pytest.fixture
def repo(tmp_path: Path, empty: Path) -> Iterator[SurveyRepo]:
    """An empty survey."""
    import shutil

    shutil.copytree(empty, tmp_path / "survey")
    with SurveyRepo.open(tmp_path / "survey") as opened:
        yield opened


SCIENCE = ExposureInfo("simcam", "science", START, 30.0, NIGHT, Program.PUBLIC, "sim_r", "r", 150.0, 2.0, field=1)


@pytest.fixture
def expose(repo: SurveyRepo) -> Callable[..., ExposureInfo]:
    """Write an exposure of one detector into the ledger, ``minutes`` after the first."""

    def make(minutes: float = 0.0, *, n_detectors: int = 1, **changes: object) -> ExposureInfo:
        info = replace(SCIENCE, mjd_start=START + minutes / 1440.0, **changes)  # type: ignore[arg-type]
        repo.ledger.add_exposure(info, detectors=range(n_detectors))
        return info

    return make


def utc(minutes: float) -> str:
    """Return the time of the exposure ``minutes`` after the first, as lists write it."""
    return times.isot_utc(START + minutes / 1440.0)[:19]
