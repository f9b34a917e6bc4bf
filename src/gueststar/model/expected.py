"""Exposures that a survey expects: planned by a schedule, or told by an observing log."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from gueststar.core.ids import content_id
from gueststar.model.exposure import ObservationType
from gueststar.model.rights import Program

ListSource = Literal["schedule", "log"]
"""A schedule says what is planned; an observing log says what was taken."""


@dataclass(frozen=True)
class ExpectedExposure:
    """One exposure of a list. What the list does not tell is None and agrees with anything."""

    day_obs: int
    source: ListSource
    mjd_start: float | None = None
    """Start, MJD TAI; None: any time of the night."""
    exposure_id: int | None = None
    """The list's own number of it."""
    observation_type: ObservationType = "science"
    field: int | None = None
    ra: float | None = None
    """Boresight, degrees ICRS."""
    dec: float | None = None
    physical_filter: str | None = None
    exposure_s: float | None = None
    program: Program | None = None
    file: str = ""
    """Name of the list."""
    repeat: int = 0
    """Tells entries apart that say the same: three visits of a field at any time of the night are three."""

    @property
    def id(self) -> int:
        """Deterministic id from the source and the content; the list's name does not count."""
        facts = asdict(self)
        del facts["file"]
        return content_id("expected", *(f"{name}={value}" for name, value in sorted(facts.items())))
