"""A survey whose units of work are told how they end, to try the operator without pixels."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from gueststar.cameras.load import load_camera
from gueststar.core.clock import RehearsalClock
from gueststar.core.times import unix
from gueststar.model.exposure import ExposureInfo
from gueststar.model.rights import Program
from gueststar.operations.operator.daemon import Operator
from gueststar.operations.operator.facts import night_of
from gueststar.operations.operator.parts import Parts
from gueststar.operations.operator.start import load_rules_of
from gueststar.pipelines.engine.contract import Call
from gueststar.pipelines.engine.outcome import Outcome
from gueststar.store.operation_settings import OperationSettings
from gueststar.store.operator_state import WorkerState
from gueststar.store.repo import SurveyRepo
from gueststar.store.settings import SurveySettings, write_settings

CAMERA = load_camera("simcam")
GLASS = next(item.physical_filter for item in CAMERA.filters if item.band == "r")
EVENING = 60000.1
"""MJD TAI of the first exposure."""

End = Callable[[Call], Outcome]


def all_is_well(call: Call) -> Outcome:
    """A unit that succeeds and makes nothing."""
    return Outcome(call.job_id, "done")


class ToldEngine:
    """An engine of ``n_workers`` that ends units as it is told, one each time it is asked."""

    def __init__(self, end: End = all_is_well, *, n_workers: int = 2) -> None:
        self.end, self.n_workers = end, n_workers
        self.calls: list[Call] = []
        self.begun: list[str] = []

    @property
    def n_free(self) -> int:
        return self.n_workers - len(self.calls)

    @property
    def in_hand(self) -> frozenset[int]:
        return frozenset(call.job_id for call in self.calls)

    def submit(self, call: Call) -> None:
        self.calls.append(call)
        self.begun.append(call.what)

    def collect(self, timeout_s: float = 0.0) -> list[Outcome]:
        return [self.end(self.calls.pop(0))] if self.calls else []

    def workers(self) -> tuple[WorkerState, ...]:
        return ()

    def warm(self, function, *arguments) -> None:
        pass

    def close(self) -> None:
        pass


def info(number: int, *, kind: str = "science", night: int = 0) -> ExposureInfo:
    """Exposure ``number`` of a night, two minutes after the one before."""
    plain = ExposureInfo(
        camera="simcam", observation_type=kind, mjd_start=EVENING + night + number / 720.0, exposure_s=30.0,
        day_obs=night_of(unix(EVENING + night), CAMERA), program=Program.PUBLIC,
    )  # fmt: skip
    if kind == "science":
        return replace(plain, ra=150.0, dec=2.0, physical_filter=GLASS, band="r")
    return replace(plain, physical_filter=GLASS if kind == "flat" else None, band="r" if kind == "flat" else None)


@lru_cache
def _empty_survey() -> Path:
    """An empty survey of simcam, made once: the registry takes a while."""
    root = Path(tempfile.mkdtemp(prefix="gueststar-")) / "survey"
    SurveyRepo.create(root, CAMERA, settings=SurveySettings(name="rehearsal")).close()
    atexit.register(shutil.rmtree, root.parent, ignore_errors=True)
    return root


def make_repo(root: Path, **operation) -> SurveyRepo:
    """An empty survey of simcam."""
    shutil.copytree(_empty_survey(), root)
    settings = SurveySettings(name="rehearsal", operation=OperationSettings.model_validate(operation))
    write_settings(root / "survey.yaml", settings)
    return SurveyRepo.open(root)


def receive(repo: SurveyRepo, told: ExposureInfo, *, detectors: tuple[int, ...] = (0,)) -> int:
    """Let an exposure be there, with files that nobody reads."""
    path = repo.root.parent / f"{told.exposure_id}.fits"
    path.write_bytes(f"pixels of {told.exposure_id}".encode())
    received = unix(told.mjd_start) + told.exposure_s + 5.0
    repo.ingest_raw(path, told, detectors, pixel_checksum="x", received=received)
    return told.exposure_id


def operator_of(repo: SurveyRepo, engine: ToldEngine, *, at: float = EVENING + 0.05, **parts) -> Operator:
    """An operator whose clock stands at an MJD TAI."""
    clock = RehearsalClock(start=unix(at), rate=1e-9)
    return Operator(
        repo, Parts(**{"engine": engine, "clock": clock, "load_rules": load_rules_of, "actions": {}, **parts})
    )


def go_round(operator: Operator, n: int = 400) -> None:
    """Let the operator work until a round does nothing."""
    for _ in range(n):
        is_busy = operator.guarded_turn()
        if any(series.is_being_planned for series in operator.work.series):
            operator.wake.wait(1.0)
            operator.wake.clear()
        elif not is_busy and not operator.running:
            return
    raise AssertionError("the operator does not come to rest")
