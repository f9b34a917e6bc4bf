"""What rules are asked, and what they answer: the operator knows no more of them than this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Protocol

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


@dataclass(frozen=True)
class Firing:
    """A rule that is due: what it runs, and why now."""

    rule: str
    actions: Sequence[tuple[str, Mapping[str, Any]]]
    """Names of actions with their arguments, in order."""
    night: int
    """The night it concerns."""
    priority: Priority = Priority.DAYTIME
    deadline_s: float | None = None
    retry: Retry = Retry()
    why: str = ""


class Rules(Protocol):
    """The rules of a survey."""

    def decide(self, facts: ExposureFacts) -> Decision:
        """Return what is to be done with an exposure: the first rule that matches wins."""
        ...

    def due(self, facts: SurveyFacts, last_fired: Mapping[str, float]) -> list[Firing]:
        """Return the rules that are due now; ``last_fired``: rule -> Unix time of its last firing."""
        ...
