"""Calibration products: bias, dark and flat masters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from gueststar.model.image import MaskedImage

CalibrationKind = Literal["bias", "dark", "flat"]


@dataclass(frozen=True, eq=False)
class CalibrationMaster:
    """A stacked calibration frame of one detector, assembled (no overscan).

    Units: bias ADU; dark electrons per second; flat dimensionless, its median one. The mask holds BAD
    pixels found on the way; the variance is that of the stack.
    """

    kind: CalibrationKind
    detector_id: int
    pixels: MaskedImage
    mjd_tai: float
    """Mean time of the frames."""
    n_frames: int
    physical_filter: str | None = None
    """Flats only."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Measured read noise and gain per amplifier, comparison with the previous master, inputs. JSON-able."""
