"""How a camera's raw headers are read: a mapping, as data."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class HeaderPart(BaseModel):
    """A model whose unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ProgramId = Annotated[int, Field(ge=0, le=3)]
ObservationTypeName = Literal["science", "bias", "dark", "flat"]


class TimeMapping(HeaderPart):
    """Where the time of an exposure is written and what it means."""

    keywords: tuple[str, ...]
    """One card, or a date card and a time card that are joined with T."""
    format: Literal["isot", "mjd", "jd"] = "isot"
    scale: Literal["utc", "tai"] = "utc"
    point: Literal["start", "middle", "end"] = "start"
    """Which moment of the exposure the cards tell."""
    utc_offset_h: float = 0.0
    """Hours by which the clock is ahead of ``scale`` (local time); a zone in the card goes first."""
    delay_keyword: str | None = None
    """Card that tells frames of one time stamp apart (shots of several frames)..."""
    delays_s: dict[str, float] = {}
    """...and, by its value, how long after the stamp each was taken."""

    @model_validator(mode="after")
    def _keywords_fit_the_format(self) -> TimeMapping:
        most = 2 if self.format == "isot" else 1
        if not 1 <= len(self.keywords) <= most:
            raise ValueError(f"format {self.format} takes 1 to {most} keywords, got {list(self.keywords)}")
        if (self.delay_keyword is None) != (not self.delays_s):
            raise ValueError("delay_keyword and delays_s go together")
        return self


class ProgramMapping(HeaderPart):
    """Where the access category is written."""

    keyword: str | None = None
    """Card that holds it; None: every exposure gets ``default``."""
    values: dict[str, ProgramId] = {}
    """Header value -> programid (0 engineering, 1 public, 2 partnership, 3 private); empty: the number itself."""
    default: ProgramId = 3
    """Where the card is absent; by default the narrowest. A value that is not known always is private."""


class OpportunityMapping(HeaderPart):
    """Where it is written that an exposure interrupted the survey for a target of opportunity."""

    keyword: str
    values: tuple[str, ...] = ("1", "t", "true", "y", "yes", "too")
    """Values that say so (case does not matter); all others, and no card, say that it did not."""


class HeaderMapping(HeaderPart):
    """From header cards to the facts of an exposure (`gueststar.model.exposure.ExposureInfo`).

    A tuple of keywords means: the first one present.
    """

    instrument_match: dict[str, str] = {}
    """Cards and the values (regular expressions, whole) that say a file is from this camera; empty: not checked."""
    observation_type: tuple[str, ...] = ("IMAGETYP", "OBSTYPE")
    observation_types: dict[str, ObservationTypeName] = {}
    """Header value (case does not matter) -> bias, dark, flat or science; absent card: ``default_observation_type``."""
    default_observation_type: ObservationTypeName | None = None
    """Type of a file without the card; None: refused."""
    time: TimeMapping
    exposure_s: tuple[str, ...] = ("EXPTIME", "EXPOSURE")
    default_exposure_s: float | None = Field(default=None, gt=0)
    """Where no card tells it; None: such a file is refused (a bias has none)."""
    file_name: str | None = None
    """Regular expression for the file's name; its named groups are cards (in capitals) that no header has."""
    sidecar: str | None = Field(default=None, pattern=r"^\.")
    """Ending of a text file beside each file (``.json``, ``.txt``) in place of its own; what it tells are cards."""
    filter: tuple[str, ...] = ("FILTER",)
    default_filter: str | None = None
    ra: tuple[str, ...] = ("RA", "OBJCTRA", "TELRA")
    dec: tuple[str, ...] = ("DEC", "OBJCTDEC", "TELDEC")
    position_unit: Literal["sexagesimal_hours", "decimal_hours", "degrees", "auto"] = "auto"
    """``auto``: text with separators is hours and degrees, a plain number is degrees. ``decimal_hours``: RA only."""
    rotation_deg: tuple[str, ...] = ()
    """Cards with the camera rotation in the sense of `Wcs.tangent`; empty: 0."""
    airmass: tuple[str, ...] = ("AIRMASS",)
    object_name: tuple[str, ...] = ("OBJECT",)
    field: tuple[str, ...] = ()
    """Cards with the survey's field number; empty: fields are found from pointings."""
    program: ProgramMapping = ProgramMapping()
    principal_investigator: tuple[str, ...] = ()
    target_of_opportunity: OpportunityMapping | None = None
    """None: no exposure of this camera counts as one."""
    detector_keyword: str | None = None
    """Card (primary header) that names the CCD or detector in a file that holds a part of the camera."""
    detector_keyword_means: Literal["detector_id", "detector_name", "ccd"] = "ccd"
    numbers_as_strings: bool = False
    """Cards that should hold numbers hold text; they are converted. False: such a file is refused."""
    tan_means_tpv: bool = False
    """CTYPE says TAN but PV cards hold a TPV distortion. False: such a file is refused."""
    is_wcs_trusted: bool = False
    """The header's WCS is a solution (not a pointing) that may serve as a starting point or for a catalog."""

    @field_validator("file_name")
    @classmethod
    def _pattern_has_groups(cls, pattern: str | None) -> str | None:
        try:
            if pattern is not None and not re.compile(pattern).groupindex:
                raise ValueError(f"{pattern!r} has no named group (?P<name>...)")
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression ({error})") from None
        return pattern

    @field_validator("instrument_match")
    @classmethod
    def _patterns_compile(cls, patterns: dict[str, str]) -> dict[str, str]:
        for keyword, pattern in patterns.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{keyword}: {pattern!r} is not a regular expression ({error})") from None
        return patterns
