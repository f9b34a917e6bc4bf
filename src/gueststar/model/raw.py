"""Raw pixels of one detector, amplifier by amplifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core.errors import DataError
from gueststar.model.camera import Amplifier, Detector, parse_section
from gueststar.model.exposure import ExposureInfo


@dataclass(frozen=True, eq=False)
class AmplifierPixels:
    """What one amplifier read: light-sensitive pixels and overscans, ADU, in the raw file's orientation."""

    amplifier: Amplifier
    data: NDArray[np.float32]
    overscans: tuple[NDArray[np.float32], ...] = ()
    """One array per entry of ``amplifier.overscans``."""

    def __post_init__(self) -> None:
        rows, columns = parse_section(self.amplifier.data_section)
        expected = (rows.stop - rows.start, columns.stop - columns.start)
        if self.data.shape != expected:
            raise DataError(f"amplifier {self.amplifier.name} has {self.data.shape} pixels, needs {expected}")


@dataclass(frozen=True, eq=False)
class RawDetector:
    """One detector of one exposure, as read from its raw file."""

    info: ExposureInfo
    detector: Detector
    amplifiers: tuple[AmplifierPixels, ...]
    header: dict[str, Any] = field(default_factory=dict)
    """Cards of the primary header with those of the detector's extension on top."""
    others: tuple[RawDetector, ...] = ()
    """Detectors read at the same moment by the same electronics, where their crosstalk is to be removed."""
