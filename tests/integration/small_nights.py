"""Two simulated nights of one small detector, which make references, differences and alerts in half a minute."""

from datetime import date
from pathlib import Path

import pytest

from gueststar.pipelines.ingest import ingest_paths
from gueststar.pipelines.night.process import process_nights
from gueststar.pipelines.refcat_import import import_refcat
from gueststar.simulation.scenario import Scenario
from gueststar.simulation.simulate import simulate
from gueststar.store.detections.store import DetectionStore
from gueststar.store.operation_settings import OperationSettings
from gueststar.store.refcats import RefcatStore
from gueststar.store.repo import SurveyRepo
from gueststar.store.settings import SurveySettings
from tests.conftest import folder_of_all_processes, made_once
from tests.integration.test_electronics_of_a_night import small_camera


def two_nights() -> Scenario:
    return Scenario.model_validate(
        {
            "first_night": date(2024, 3, 30),
            "nights": [{"day": 0, "blocks": [{"n_rounds": 3}]}, {"day": 1, "blocks": [{"n_rounds": 2}]}],
            "stars": {"density": 6000.0, "bright_limit": 13.0},
            "galaxies": {"factor": 0.0}, "satellites": {"per_night": 0.0}, "asteroids": {"n": 0},
            "transients": {"n": 5, "n_first_night": 0},
            "calibrations": {"n_bias": 3, "n_dark": 0, "n_flat": 3},
        }
    )  # fmt: skip


def survey(folder: Path, name: str, *, sky: Path | None = None, **operation: object) -> Path:
    """Make a survey of the simulated sky (``folder``/sky) that takes three images for a reference."""
    sky = sky or folder / "sky"
    settings = SurveySettings(
        name=name,
        parameters={"reference_selection": {"min_epochs": 3}, "nightly_injection": {"fraction": 0.0}},
        operation=OperationSettings.model_validate(operation),
    )
    with SurveyRepo.create(folder / name, small_camera(), settings=settings) as repo:
        DetectionStore.at(repo.root, name_key=bytes(range(32)))
        import_refcat(RefcatStore(repo.root / "refcats"), sky / "refcat.parquet")
        ingest_paths(repo, [sky / "raw"])
        return repo.root


def processed_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of all test processes: ``sky``, and ``here``, a survey of it that one process has processed."""

    def make(folder: Path) -> None:
        simulate(folder / "sky", small_camera(), two_nights(), seed=4)
        process_nights(survey(folder, "here"), until="precover")

    return made_once(folder_of_all_processes(tmp_path_factory, "nights") / "small", make)
