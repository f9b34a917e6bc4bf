"""The facts of an exposure, as translated from its header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from gueststar.core import ids, times
from gueststar.core.errors import DataError
from gueststar.model.rights import Program

ObservationType = Literal["science", "bias", "dark", "flat"]


@dataclass(frozen=True)
class ExposureInfo:
    """One shutter opening. Angles degrees ICRS, times MJD TAI."""

    camera: str
    observation_type: ObservationType
    mjd_start: float
    """Start of the exposure, MJD TAI."""
    exposure_s: float
    day_obs: int
    program: Program
    physical_filter: str | None = None
    """None for bias and dark."""
    band: str | None = None
    ra: float | None = None
    """Boresight; None for bias, dark and flat."""
    dec: float | None = None
    rotation_deg: float = 0.0
    field: int | None = None
    """Survey field; None until assigned."""
    object_name: str = ""
    airmass: float | None = None
    principal_investigator: str = ""
    is_target_of_opportunity: bool = False
    """It interrupted the survey."""

    def __post_init__(self) -> None:
        if not 30000 < self.mjd_start < 100000:
            raise DataError(f"time of exposure MJD {self.mjd_start} is impossible")
        if self.exposure_s < 0:
            raise DataError(f"exposure time {self.exposure_s} s is negative")
        if self.ra is not None and not 0.0 <= self.ra < 360.0:
            raise DataError(f"right ascension {self.ra} is outside 0..360")
        if self.dec is not None and not -90.0 <= self.dec <= 90.0:
            raise DataError(f"declination {self.dec} is outside -90..90")

    @property
    def exposure_id(self) -> int:
        """Deterministic id from the start time."""
        return ids.exposure_id(self.mjd_start)

    @property
    def mjd_tai(self) -> float:
        """Middle of the exposure, MJD TAI."""
        return self.mjd_start + self.exposure_s / 2.0 / 86400.0

    @property
    def epoch_year(self) -> float:
        """Julian year of mid-exposure."""
        return times.julian_year(self.mjd_tai)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for the ``exposure`` entry of an image's metadata."""
        return {**asdict(self), "program": int(self.program)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExposureInfo:
        """Return what `to_dict` told; DataError if a value is missing or foreign."""
        names = {item.name for item in fields(cls)}
        if foreign := sorted(set(values) - names):
            raise DataError(f"facts of an exposure do not include {foreign}")
        try:
            return cls(**{**values, "program": Program(values["program"])})
        except (KeyError, TypeError, ValueError) as problem:
            raise DataError(f"facts of an exposure are incomplete: {problem}") from None
