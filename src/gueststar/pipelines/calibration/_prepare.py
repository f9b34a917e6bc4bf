"""What is taken from a calibration frame before it is stacked."""

from __future__ import annotations

import numpy as np

from gueststar.algorithms.detrend.calibrate import subtract_in_place
from gueststar.algorithms.illumination.shutter import correct_exposure_in_place
from gueststar.core.errors import ConfigError
from gueststar.model.calibration import CalibrationMaster, CalibrationProduct
from gueststar.model.camera import Detector, parse_section
from gueststar.model.image import Float32Image


def subtract_bias_in_place(image: Float32Image, detector: Detector, bias: CalibrationMaster | None) -> None:
    """Subtract a master bias (ADU) from an image in electrons; no bias, no change."""
    if bias is None:
        return
    check_belongs(bias, detector)
    for amplifier in detector.amplifiers:
        target = parse_section(amplifier.detector_section)
        subtract_in_place(image[target], bias.pixels.image[target], factor=amplifier.gain)


def correct_shutter_in_place(image: Float32Image, shutter: CalibrationMaster, exposure_s: float) -> None:
    """Scale light to the commanded exposure time where the shutter made it longer or shorter by 0.01 % or more."""
    delay = shutter.pixels.image
    if exposure_s > 0 and float(np.abs(delay).max()) > 1e-4 * exposure_s:
        correct_exposure_in_place(image, delay, exposure_s)


def check_belongs(master: CalibrationProduct, detector: Detector) -> None:
    """Raise ConfigError if a calibration product is not of this detector."""
    if master.detector_id != detector.id:
        raise ConfigError(f"{master.kind} is of detector {master.detector_id}, not of {detector.id}")
    if isinstance(master, CalibrationMaster) and master.pixels.shape != tuple(detector.shape):
        raise ConfigError(f"{master.kind} is {master.pixels.shape} but detector {detector.id} {detector.shape}")
