"""What every new master must pass before it is believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gueststar.algorithms.detrend.compare import MasterChange, compare_masters
from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.calibration import CalibrationMaster
from gueststar.model.camera import Detector


def check_bad_fraction(master: CalibrationMaster, maximum: float) -> float:
    """Return the fraction of BAD pixels; DataError if it is above ``maximum``."""
    fraction = float(np.mean((master.pixels.mask & int(MaskPlane.BAD)) != 0))
    if fraction > maximum:
        raise DataError(f"{_name(master)}: {fraction:.2%} of the pixels are bad, at most {maximum:.2%} may be")
    return fraction


def check_read_noise(detector: Detector, measured: Mapping[str, float], tolerance: float, what: str) -> None:
    """Raise DataError if an amplifier's read noise (electrons) is off the camera's by more than ``tolerance``."""
    for amplifier in detector.amplifiers:
        value = measured.get(amplifier.name, math.nan)
        if amplifier.read_noise > 0 and abs(value / amplifier.read_noise - 1.0) > tolerance:
            raise DataError(
                f"{what}: read noise of amplifier {amplifier.name} is {value:.2f} e-, the camera says "
                f"{amplifier.read_noise:.2f}: mend the camera file if this is normal"
            )


def compare_with_previous(master: CalibrationMaster, previous: CalibrationMaster) -> MasterChange:
    """Measure how a master differs from the previous one; DataError if they are not of the same kind and shape."""
    if previous.kind != master.kind or previous.pixels.shape != master.pixels.shape:
        raise DataError(
            f"{_name(master)} cannot be compared: previous is a {previous.kind} of shape {previous.pixels.shape}"
        )
    bad = int(MaskPlane.BAD | MaskPlane.NO_DATA)
    return compare_masters(
        master.pixels.image,
        previous.pixels.image,
        new_variance=master.pixels.variance,
        old_variance=previous.pixels.variance,
        is_masked=((master.pixels.mask | previous.pixels.mask) & bad) != 0,
        is_ratio=master.kind == "flat",
    )


def check_change(master: CalibrationMaster, change: MasterChange, limits: Mapping[str, float]) -> dict[str, Any]:
    """Return the change as plain values; DataError naming the first value beyond its limit."""
    for name, limit in limits.items():
        value = getattr(change, name)
        if abs(value) > limit:
            raise DataError(
                f"{_name(master)}: {name} differs from the previous master by {value:.4g}, limit {limit:.4g}"
            )
    return dict(change._asdict())


def check_read_noise_change(
    master: CalibrationMaster, previous: CalibrationMaster, tolerance: float
) -> dict[str, float]:
    """Return the relative change of the read noise by amplifier; DataError if one is above ``tolerance``."""
    new, old = master.metadata.get("read_noise", {}), previous.metadata.get("read_noise", {})
    changes = {name: new[name] / old[name] - 1.0 for name in new if old.get(name, 0.0) > 0}
    for name, change in changes.items():
        if abs(change) > tolerance:
            raise DataError(
                f"{_name(master)}: read noise of amplifier {name} changed by {change:+.0%} since the previous master"
            )
    return changes


def _name(master: CalibrationMaster) -> str:
    glass = f" in {master.physical_filter}" if master.physical_filter else ""
    return f"{master.kind} of detector {master.detector_id}{glass}"
