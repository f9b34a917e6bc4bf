"""Bias, dark and dome-flat frames of a night."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gueststar.model.camera import Camera, Filter
from gueststar.model.exposure import ObservationType
from gueststar.simulation import detector as silicon
from gueststar.simulation import ephemeris
from gueststar.simulation.detector import DetectorTruth, lamp_in
from gueststar.simulation.exposure import collect_in_place
from gueststar.simulation.headers import has_observation_type
from gueststar.simulation.scenario import Scenario
from gueststar.simulation.seeds import generator_for
from gueststar.simulation.stray_light import expose_through_shutter_in_place
from gueststar.simulation.survey import Visit, middle_of_night

FLAT_S = 5.0
"""Exposure time of the flats of a master, seconds."""


@dataclass(frozen=True)
class CalibrationFrame:
    """One planned calibration exposure."""

    kind: ObservationType
    night: int
    number: int
    mjd_start: float
    """MJD TAI."""
    exposure_s: float
    glass: Filter | None = None
    fraction: float | None = None
    """Of a ladder's flat: its level over saturation; None: the plan's."""


def plan_calibrations(camera: Camera, scenario: Scenario, visits: tuple[Visit, ...]) -> tuple[CalibrationFrame, ...]:
    """Return the frames of all nights, taken in the afternoon before; kinds the camera cannot tell are left out."""
    plan, frames = scenario.calibrations, []
    for night in sorted({visit.night for visit in visits}):
        glasses = {v.glass.physical_filter: v.glass for v in visits if v.night == night}
        wanted: list[tuple[ObservationType, float, Filter | None, float | None]] = []
        wanted += [("bias", 0.0, None, None)] * plan.n_bias
        wanted += [("dark", plan.dark_s, None, None)] * plan.n_dark
        for name in sorted(glasses):
            wanted += [("flat", FLAT_S, glasses[name], None)] * plan.n_flat
            for seconds in plan.short_flats_s:
                wanted += [("flat", seconds, glasses[name], plan.flat_fraction_of_saturation * seconds / FLAT_S)]
        for rung in plan.ladder:
            seconds = round(FLAT_S * rung / plan.flat_fraction_of_saturation, 2)
            wanted += [("flat", seconds, glasses[min(glasses)], rung)] * 2
        moment = _afternoon(camera, scenario, scenario.nights[night].day)
        for number, (kind, exposure_s, glass, fraction) in enumerate(wanted):
            if has_observation_type(camera, kind):
                frames.append(CalibrationFrame(kind, night, number, moment, exposure_s, glass, fraction))
                moment += (exposure_s + scenario.overhead_s) / 86400.0
    return tuple(frames)


def _afternoon(camera: Camera, scenario: Scenario, day: int) -> float:
    """Return a moment two hours before sunset, on a tenth of a second (MJD TAI)."""
    middle = middle_of_night(camera.site, scenario, day)
    earlier = middle - np.arange(0.02, 0.5, 1.0 / 1440.0)
    up = np.flatnonzero(ephemeris.sun_altitude(camera.site, earlier) > -0.8)
    sunset = float(earlier[up[0]]) if up.size else middle - 0.25
    return round((max(sunset - 2.0 / 24.0, middle - 0.49)) * 864000.0) / 864000.0


def calibration_electrons(
    frame: CalibrationFrame,
    truth: DetectorTruth,
    response: NDArray[np.float32] | None,
    *,
    fraction: float,
    lamp_rms: float,
    seed: int,
) -> NDArray[np.float32]:
    """Return the electrons of one detector; flats need ``response`` and reach ``fraction`` of the full well.

    A ladder's flat has its own fraction, to which its exposure time is proportional.
    """
    key = (frame.kind, frame.night, frame.number, truth.detector.id)
    random = generator_for(seed, "calibration", *key)
    electrons = np.zeros(truth.detector.shape, dtype=np.float32)
    if frame.kind == "bias":
        electrons += truth.fixed_charge
        return electrons
    if frame.kind == "flat" and frame.glass is not None and response is not None:
        level = float(np.median(silicon.full_well(truth))) * truth.efficiency
        # The lamp drifts: its brightness is common to all detectors of a frame.
        lamp = generator_for(seed, "lamp level", frame.night, frame.number).normal(1.0, lamp_rms)
        if frame.fraction is not None:  # by the exposure time as it is written, which is rounded
            fraction *= frame.exposure_s / FLAT_S
        level *= fraction * lamp
        electrons += np.float32(level) * response * lamp_in(truth, frame.glass.physical_filter)
        expose_through_shutter_in_place(electrons, truth, frame.exposure_s)
    collect_in_place(electrons, truth, random, seconds=frame.exposure_s)
    return electrons
