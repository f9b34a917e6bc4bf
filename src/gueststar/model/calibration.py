"""Calibration products: what is known of a detector besides its exposures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gueststar.model.image import MaskedImage

CalibrationKind = Literal[
    "bias", "dark", "linearity", "photon_transfer", "brighter_fatter", "charge_transfer", "shutter", "flat", "defects",
    "crosstalk", "fringe", "illumination", "distortion", "relative_photometry",
]  # fmt: skip


@dataclass(frozen=True)
class KindOfCalibration:
    """What one kind of calibration product is, what it is made from and how long it serves."""

    name: CalibrationKind
    meaning: str
    """In one line, with the unit."""
    made_from: Literal["bias", "dark", "flat", "science"]
    """Type of the exposures it is made from."""
    lifetime_days: float
    """How long after its frames it may serve, if no newer one is certified."""
    unit: str = ""
    """FITS unit of its pixels; tables carry theirs by column."""
    is_per_filter: bool = False
    is_table: bool = False
    """Whether it is a `CalibrationTable`, not pixels."""
    is_applied: bool = True
    """Whether exposures are calibrated with it; False: it tells of the very exposures that it is made from."""


_KINDS = (
    KindOfCalibration("bias", "stacked zero-second exposure, ADU", "bias", 30.0, unit="adu"),
    KindOfCalibration("dark", "stacked dark current, electrons per second", "dark", 90.0, unit="electron / s"),
    KindOfCalibration("linearity", "true signal by measured signal, of each amplifier", "flat", 180.0, is_table=True),
    KindOfCalibration(
        "photon_transfer", "gain, read noise and full well of the amplifiers, by variance against level", "flat", 180.0,
        is_table=True,
    ),
    KindOfCalibration("brighter_fatter", "how collected charge moves pixel borders", "flat", 365.0, is_table=True),
    KindOfCalibration("charge_transfer", "charge that each transfer leaves behind", "flat", 90.0, is_table=True),
    KindOfCalibration("shutter", "exposure time beyond the commanded one, seconds", "flat", 180.0, unit="s"),
    KindOfCalibration("flat", "stacked response to even light, median one", "flat", 30.0, is_per_filter=True),
    KindOfCalibration("defects", "pixels that cannot be trusted, by how often they were found", "science", 30.0),
    KindOfCalibration("crosstalk", "signal of one amplifier seen in another", "science", 180.0, is_table=True),
    KindOfCalibration(
        "fringe", "interference of sky lines in the detector, relative to its amplitude", "science", 180.0,
        is_per_filter=True,
    ),
    KindOfCalibration(
        "illumination", "response to stars relative to that to the flat's light", "science", 180.0, is_per_filter=True
    ),
    KindOfCalibration(
        "distortion", "the camera's own distortion: pixels to focal plane", "science", 180.0, is_table=True
    ),
    KindOfCalibration(
        "relative_photometry", "how zero points of a night's exposures differ, by the stars they share", "science", 1.0,
        is_per_filter=True, is_table=True, is_applied=False,
    ),
)  # fmt: skip

KINDS: Mapping[CalibrationKind, KindOfCalibration] = MappingProxyType({kind.name: kind for kind in _KINDS})
"""Every kind of calibration product, in the order in which they are made."""


@dataclass(frozen=True, eq=False)
class CalibrationMaster:
    """A calibration product of one detector that has a value for each pixel, assembled (no overscan).

    The unit is that of its kind: bias ADU; dark electrons per second; flat dimensionless, its median one. The mask
    holds BAD pixels found on the way; the variance is that of the stack.
    """

    kind: CalibrationKind
    detector_id: int
    pixels: MaskedImage
    mjd_tai: float
    """Mean time of the frames."""
    n_frames: int
    physical_filter: str | None = None
    """Kinds that differ between filters only."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Measured read noise and gain per amplifier, comparison with the previous master, inputs. JSON-able."""
    layers: NDArray[np.float32] | None = None
    """Further planes ``[k, y, x]`` in the unit of the pixels, where one does not tell all (fringe: more patterns)."""


Table = Mapping[str, NDArray[Any]]
"""Columns of equal length by name; a column may hold arrays."""


@dataclass(frozen=True, eq=False)
class CalibrationTable:
    """A calibration product of one detector that is a few numbers: coefficients, curves, matrices."""

    kind: CalibrationKind
    detector_id: int
    tables: Mapping[str, Table]
    """By name; what columns mean is said by the algorithm that reads them."""
    mjd_tai: float
    """Mean time of the frames."""
    n_frames: int
    physical_filter: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    """How it was made, comparison with the previous one, inputs. JSON-able."""

    def column(self, table: str, name: str) -> NDArray[np.float64]:
        """Return a column as floats."""
        return np.asarray(self.tables[table][name], dtype=np.float64)


CalibrationProduct = CalibrationMaster | CalibrationTable


@dataclass(frozen=True, eq=False)
class Calibrations:
    """All calibration products that are valid for one exposure of one detector; None where there is none."""

    bias: CalibrationMaster | None = None
    dark: CalibrationMaster | None = None
    linearity: CalibrationTable | None = None
    photon_transfer: CalibrationTable | None = None
    brighter_fatter: CalibrationTable | None = None
    charge_transfer: CalibrationTable | None = None
    shutter: CalibrationMaster | None = None
    flat: CalibrationMaster | None = None
    defects: CalibrationMaster | None = None
    crosstalk: CalibrationTable | None = None
    fringe: CalibrationMaster | None = None
    illumination: CalibrationMaster | None = None
    distortion: CalibrationTable | None = None

    def __iter__(self) -> Iterator[CalibrationProduct]:
        """Iterate over those there are, in the order in which they are made."""
        return (found for kind in fields(self) if (found := getattr(self, kind.name)) is not None)


NO_CALIBRATIONS = Calibrations()
"""A detector of which nothing is known yet."""
