"""A camera as the middleware's instrument: the same class for all, its data from the camera's YAML."""

from __future__ import annotations

from typing import Any

from lsst.pipe.base import Instrument

from gueststar.cameras.load import load_camera
from gueststar.model.camera import Camera

VISIT_SYSTEM = 0
"""Visits are single exposures."""

NO_FILTER = "none"
"""Physical filter of exposures without one (bias, dark)."""


class SurveyInstrument(Instrument):
    """Instrument of one camera; `instrument_of` makes a class for each."""

    camera: Camera

    @classmethod
    def getName(cls) -> str:
        """Return the camera's name."""
        return cls.camera.name

    def getRawFormatter(self, dataId: Any) -> Any:
        """Return the formatter of raw files."""
        from gueststar.store.butler_formatters import RawFormatter

        return RawFormatter

    def register(self, registry: Any, *, update: bool = False) -> None:
        """Write instrument, detectors, filters and the visit system into the registry; again is the same."""
        name = self.camera.name
        with registry.transaction():
            registry.syncDimensionData("instrument", self._instrument_record(), update=update)
            for detector in self.camera.detectors:
                record = {
                    "instrument": name, "id": detector.id, "full_name": detector.name[:32],
                    "name_in_raft": str(detector.quadrant), "raft": str(detector.ccd), "purpose": "SCIENCE",
                }  # fmt: skip
                registry.syncDimensionData("detector", record, update=update)
            for glass, band in [(f.physical_filter, f.band) for f in self.camera.filters] + [(NO_FILTER, NO_FILTER)]:
                record = {"instrument": name, "name": glass, "band": band}
                registry.syncDimensionData("physical_filter", record, update=update)
            record = {"instrument": name, "id": VISIT_SYSTEM, "name": "one-to-one"}
            registry.syncDimensionData("visit_system", record, update=update)

    def _instrument_record(self) -> dict[str, Any]:
        return {
            "name": self.camera.name,
            "class_name": f"{__name__}.{self.camera.name}",
            "visit_system": VISIT_SYSTEM,
            "visit_max": 2**53,
            "exposure_max": 2**53,
            "detector_max": max(detector.id for detector in self.camera.detectors) + 1,
        }


def instrument_of(camera: Camera) -> type[SurveyInstrument]:
    """Return the instrument class of a camera."""
    return type(camera.name, (SurveyInstrument,), {"camera": camera, "__module__": __name__})


def __getattr__(name: str) -> Any:
    """Return the instrument class of a camera that comes with gueststar (the registry stores class names)."""
    if name.startswith("_"):
        raise AttributeError(name)
    return instrument_of(load_camera(name))
