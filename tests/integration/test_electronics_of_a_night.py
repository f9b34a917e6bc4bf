"""A night with a ladder of flats calibrates its detector's electronics; an ordinary one leaves them as they are."""

from datetime import date
from pathlib import Path

import pytest

from gueststar.cameras.load import load_camera
from gueststar.model.camera import Camera
from gueststar.pipelines.engine.inline import InlineEngine
from gueststar.pipelines.ingest import ingest_paths
from gueststar.pipelines.night.runner import NightRunner
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.simulation.scenario import Scenario
from gueststar.simulation.simulate import simulate
from gueststar.store.ledger import JobState
from gueststar.store.repo import SurveyRepo

SIZE = 320
ELECTRONICS = ("linearity", "photon_transfer", "brighter_fatter", "charge_transfer")


def small_camera() -> Camera:
    """Return the simulated survey's camera cut down to one small detector."""
    document = load_camera("simcam").model_dump(mode="json")
    detector = document["detectors"][0] | {"shape": [SIZE, SIZE]}
    half = SIZE // 2
    for i, amplifier in enumerate(detector["amplifiers"]):
        amplifier["data_section"] = f"[1:{half},1:{SIZE}]"
        amplifier["detector_section"] = f"[{1 + i * half}:{(i + 1) * half},1:{SIZE}]"
        amplifier["overscans"] = [{"section": f"[{half + 1}:{half + 32},1:{SIZE}]", "extension": None}]
    return Camera.model_validate(document | {"detectors": [detector]})


def scenario(ladder: tuple[float, ...]) -> Scenario:
    return Scenario.model_validate(
        {
            "first_night": date(2024, 3, 30),
            "nights": [{"day": 0, "blocks": [{}]}],
            "stars": {"density": 500.0, "bright_limit": 14.0},
            "galaxies": {"factor": 0.0}, "satellites": {"per_night": 0.0}, "asteroids": {"n": 0},
            "transients": {"n": 0, "n_first_night": 0},
            "calibrations": {"n_bias": 3, "n_dark": 0, "n_flat": 3, "ladder": ladder, "lamp_rms": 0.0005},
            "detector": {"nonlinearity": 0.03, "repulsion": 8e-6, "transfer_inefficiency": 2e-5},
        }
    )  # fmt: skip


def calibrated(folder: Path, ladder: tuple[float, ...]) -> SurveyRepo:
    """Simulate a night, take it in and make its calibrations."""
    camera = small_camera()
    simulate(folder / "sky", camera, scenario(ladder), seed=4)
    repo = SurveyRepo.create(folder / "survey", camera)
    ingest_paths(repo, [folder / "sky" / "raw"])
    runner = NightRunner(repo, InlineEngine(), PipelineSettings())
    runner.run(runner.nights(), until="calibrate")
    return repo


def reasons(repo: SurveyRepo) -> dict[str, str]:
    jobs = repo.ledger.jobs(kind="calibration")
    assert {job.state for job in jobs} == {JobState.DONE}
    return {job.key["kind"]: (job.metrics or {}).get("nothing_made", "") for job in jobs}


@pytest.mark.slow
def test_a_ladder_of_flats_becomes_products_that_the_flat_and_the_night_use(tmp_path):
    ladder = (0.04, 0.85, 0.07, 0.7, 0.12, 0.55, 0.2, 0.35, 0.28)
    with calibrated(tmp_path, ladder) as repo:
        made = reasons(repo)
        assert {kind: made[kind] for kind in ELECTRONICS} == dict.fromkeys(ELECTRONICS, "")
        mjd = repo.ledger.exposures(observation_type="science")[0].info.mjd_tai
        for kind in ELECTRONICS:
            assert repo.find_calibration(kind, 0, mjd) is not None
        flat = repo.get("flat", repo.find("flat")[0].data_id)
        curve = repo.get("photon_transfer", repo.find("photon_transfer")[0].data_id)
        assert flat.metadata["gain_assumed"] == pytest.approx(curve.metadata["gain"])


@pytest.mark.slow
def test_ordinary_flats_make_no_such_product_and_hold_nothing(tmp_path):
    with calibrated(tmp_path, ()) as repo:
        made = reasons(repo)
        for kind in ("linearity", "photon_transfer"):
            assert "no ladder of flats" in made[kind]
            assert not repo.find(kind)
        assert made["brighter_fatter"]
        assert made["flat"] == ""
