"""Exposures of a simulated detector without files: electrons to the raw pixels that a reader would return."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.model.exposure import ExposureInfo
from gueststar.model.raw import AmplifierPixels, RawDetector
from gueststar.simulation.detector import DetectorTruth, read_out


def read_in_memory(
    truth: DetectorTruth, electrons: NDArray[np.float32], info: ExposureInfo, random: np.random.Generator
) -> RawDetector:
    """Read a detector out and return its amplifiers' data and overscans, ADU in the raw file's orientation."""
    written = read_out(truth, electrons, random)
    parts = []
    for amplifier in truth.detector.amplifiers:
        pieces = written[amplifier.extension]
        n_pieces = 1 + len(amplifier.overscans)
        own = [values.astype(np.float32) for _, values in pieces[:n_pieces]]
        written[amplifier.extension] = pieces[n_pieces:]
        parts.append(AmplifierPixels(amplifier, own[0], tuple(own[1:])))
    return RawDetector(info, truth.detector, tuple(parts))
