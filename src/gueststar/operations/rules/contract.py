"""What rules are asked, and what they answer: the operator knows no more of them than this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Protocol

from gueststar.core import times
from gueststar.store.ledger import ExposureRow


class Priority(IntEnum):
    """In which order work is done; lower comes first."""

    TONIGHT = 10
    """Exposures of the running night."""
    BACKLOG = 30
    """Exposures that arrived late; they drain beside tonight's."""
    DAYTIME = 50
    """What follows a night: references, movers, reports."""
    REPROCESSING = 80
    """What was done before and is done again; it yields to all others."""


class Recipe(StrEnum):
    """How far an exposure is processed; each falls back to the next where something is missing."""

    ALERTS = "alerts"
    """Calibrated, subtracted, associated, published."""
    IMAGES = "images"
    """Calibrated images and catalogs."""
    ARCHIVE = "archive"
    """The raw file is kept, and the account says why no more was made."""
    CALIBRATION = "calibration"
    """A bias, dark or flat frame: it waits for its set, of which masters are made."""


@dataclass(frozen=True)
class Retry:
    """How often and when an attempt that failed is made again."""

    attempts: int = 3
    backoff_s: float = 10.0
    """Before the second attempt; doubled before each further one, at most an hour."""


@dataclass(frozen=True)
class ExposureFacts:
    """What rules may ask of a received exposure."""

    exposure: ExposureRow
    night: int
    """The survey's night now, YYYYMMDD."""
    age_s: float
    """Since the shutter closed."""
    stars_per_deg2: float | None = None
    """Of the reference catalog at its place; None: not covered."""
    has_reference: bool = True
    """Whether every detector of it has a reference image in its band."""
    has_calibrations: bool = True
    """Whether the calibration products that its camera needs are valid at its time."""

    @property
    def delay_s(self) -> float:
        """From the moment the shutter closed until the file had come; not below zero, whatever a wrong clock says."""
        info = self.exposure.info
        return max(0.0, self.exposure.received - times.unix(info.mjd_start) - info.exposure_s)


@dataclass(frozen=True)
class Decision:
    """What is to be done with an exposure, and by which rule."""

    rule: str
    recipe: Recipe
    priority: Priority = Priority.TONIGHT
    deadline_s: float | None = None
    """From receipt to the end of the recipe; None: none."""
    retry: Retry = Retry()
    why: str = ""
    """Where the recipe is a fallback: what was missing."""


@dataclass(frozen=True)
class CalibrationSet:
    """The calibration frames of one kind that came in a night."""

    night: int
    kind: str
    """bias, dark or flat."""
    n_frames: int
    last_received: float
    """Unix time."""


@dataclass(frozen=True)
class Maintenance:
    """A planned time in which nothing is dispatched; files still land."""

    start: float
    """Unix time."""
    end: float
    reason: str


@dataclass(frozen=True)
class SurveyFacts:
    """What rules that follow the clock or the survey's state may ask."""

    now: float
    """Unix time."""
    night: int
    """The survey's night now, YYYYMMDD."""
    sun_altitude_deg: float | None = None
    """None: the camera has no site."""
    signals: frozenset[str] = frozenset()
    """Signals of the observatory that have not been answered: night_begins, night_ends..."""
    free_gb: Mapping[str, float] = field(default_factory=dict)
    """Disk (sandbox, archive) -> free space."""
    received: int = 0
    """Science exposures received in this night."""
    is_idle: bool = True
    """Whether no exposure waits or is worked on."""
    since: float = 0.0
    """When the survey was first operated: what was due before then is not caught up."""
    present_since: float = 0.0
    """When the operator was started that runs now, or ran last."""
    rules_since: Mapping[str, float] = field(default_factory=dict)
    """Rule -> since when it is in force; nights before are not caught up for it."""
    idle_since: float | None = None
    """When the last exposure was done with, where none waits or is worked on."""
    signal_times: Mapping[str, float] = field(default_factory=dict)
    """Signal of the observatory -> when it last came; answered or not."""
    received_by_night: Mapping[int, int] = field(default_factory=dict)
    """Night -> science exposures received, of nights not long ago."""
    calibration_sets: Sequence[CalibrationSet] = ()
    """Of nights not long ago."""
    good_epochs: Mapping[tuple[int, str], int] = field(default_factory=dict)
    """Field and band -> exposures of which calibrated images are fit for a reference."""
    epoch_nights: Mapping[tuple[int, str], int] = field(default_factory=dict)
    """The same -> the night of the newest of them."""


@dataclass(frozen=True)
class Firing:
    """A rule that is due: what it runs, and why now."""

    rule: str
    actions: Sequence[tuple[str, Mapping[str, Any]]]
    """Names of actions with their arguments, in order."""
    night: int
    """The night it concerns, YYYYMMDD."""
    priority: Priority = Priority.DAYTIME
    deadline_s: float | None = None
    retry: Retry = Retry()
    why: str = ""
    occasion: str = ""
    """What it fires for, once: a night's end, a week, a field with its count; empty: told by the time alone."""

    @property
    def key(self) -> str:
        """The name under which ``last_fired`` keeps this very occasion, beside that of the rule."""
        return f"{self.rule} @ {self.occasion}" if self.occasion else self.rule


class Rules(Protocol):
    """The rules of a survey."""

    def decide(self, facts: ExposureFacts) -> Decision:
        """Return what is to be done with an exposure: the first rule that matches wins."""
        ...

    def due(self, facts: SurveyFacts, last_fired: Mapping[str, float]) -> list[Firing]:
        """Return the rules that are due now.

        ``last_fired``: rule, and `Firing.key` of the occasion -> Unix time of its last firing.
        """
        ...

    def maintenance_at(self, now: float) -> Maintenance | None:
        """Return the planned downtime at a (Unix) time, if there is one: nothing is dispatched during it."""
        ...
