"""A simulated detector with flaws: two amplifiers, one read mirrored."""

from dataclasses import dataclass

import numpy as np
import pytest

from gueststar.cameras.load import load_camera
from gueststar.model.camera import Camera
from gueststar.model.exposure import ExposureInfo
from gueststar.model.rights import Program
from gueststar.simulation.detector import DetectorTruth, full_well, make_detector, response_in
from gueststar.simulation.exposure import collect_in_place
from gueststar.simulation.in_memory import read_in_memory
from gueststar.simulation.optics import make_optics
from gueststar.simulation.scenario import DetectorPlan, OpticsPlan

SIZE = 320
QUIET = {"dust_per_mpix": 0.0, "bad_columns_per_mpix": 0.0, "hot_pixel_fraction": 0.0, "cosmic_rays_per_mpix_s": 0.0}


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


@dataclass
class Bench:
    """Takes exposures with one detector."""

    truth: DetectorTruth
    rng: np.random.Generator

    @property
    def detector(self):
        return self.truth.detector

    def expose(self, kind, light, seconds, *, minute):
        """Read out an exposure of so much light (electrons, before the response)."""
        info = ExposureInfo(
            "simcam", kind, 60_000.0 + minute / 1440.0, seconds, 20230225, Program.PUBLIC, physical_filter="sim_r",
            band="r",
        )  # fmt: skip
        electrons = np.asarray(light * response_in(self.truth, "sim_r", 0), np.float32)
        collect_in_place(electrons, self.truth, self.rng, seconds=seconds)
        return read_in_memory(self.truth, electrons, info, self.rng)

    def flat(self, seconds, *, minute, lamp_rms=5e-4):
        """Read out a flat whose lamp fills 0.05 of the well in a second."""
        level = 0.05 * float(np.median(full_well(self.truth))) / self.truth.plan.full_well_margin
        light = level * seconds * (1.0 + lamp_rms * self.rng.normal())
        return self.expose("flat", np.full((SIZE, SIZE), light, np.float32), seconds, minute=minute)

    def ladder(self, n=9):
        """Read out two flats of each of ``n`` exposure times in mixed order."""
        times = self.rng.permutation(np.geomspace(0.8, 18.5, n)).round(2)
        return [self.flat(t, minute=i + 0.4 * k) for i, t in enumerate(times) for k in (0, 1)]


@pytest.fixture
def bench_of():
    def make(seed=3, **plan):
        camera = small_camera()
        full = DetectorPlan(**{**QUIET, **plan})
        optics = make_optics(camera, OpticsPlan(), seed=seed)
        truth = make_detector(camera, optics, camera.detectors[0], full, seed=seed)
        return Bench(truth, np.random.default_rng(seed))

    return make
