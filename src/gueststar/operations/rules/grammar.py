"""The grammar of rules.yaml: what may be written, one model a piece. Unknown keys are errors."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from astropy import units as u
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from gueststar.model.exposure import ObservationType
from gueststar.operations.rules.contract import Priority, Recipe, Retry
from gueststar.operations.rules.quantities import (
    Degrees,
    Gigabytes,
    RangeOfDegrees,
    RangeOfDensity,
    RangeOfGigabytes,
    RangeOfNumbers,
    RangeOfSeconds,
    Seconds,
    number_in,
)

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
ProgramName = Literal["engineering", "public", "partnership", "private"]
RecipeName = Literal["alerts", "images", "archive", "calibration"]
PriorityName = Literal["tonight", "backlog", "daytime", "reprocessing"]
Disk = Literal["sandbox", "archive"]
Arguments = dict[str, Any]

DAY_S = 86400.0
NAMED_PERIODS = ("night", "day", "week", "month")
BY_THE_CLOCK = frozenset({"night_begins", "night_ends", "every", "maintenance"})
"""Triggers that are moments, which come whether or not somebody is there."""


class Part(BaseModel):
    """A piece of the grammar."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, populate_by_name=True)


def _several(value: Any) -> Any:
    """Return one item, or a list of them, as a tuple."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _field_range(value: Any) -> tuple[int, int]:
    """Return a field's number, or a range "600-699", as first and last."""
    found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", str(value))
    if not found or isinstance(value, bool):
        raise ValueError(f"{value!r} is no field: write 612 or 600-699")
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise ValueError(f"{value!r} is empty: the lower number comes first")
    return first, last


def _clock_time(value: Any) -> str:
    """Return a time of day as HH:MM."""
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", str(value))
    if not found:
        raise ValueError(f"{value!r} is no time of day: write 14:00")
    return f"{int(found[1]):02d}:{found[2]}"


FieldRange = Annotated[tuple[int, int], BeforeValidator(_field_range)]
TimeOfDay = Annotated[str, BeforeValidator(_clock_time)]
Several = BeforeValidator(_several)


class ExposureWhen(Part):
    """An exposure was received. Conditions that are given must all hold; one that cannot be told does not."""

    type: Annotated[tuple[ObservationType, ...], Several] | None = None
    """What the shutter was opened (or not) for."""
    program: Annotated[tuple[ProgramName, ...], Several] | None = None
    """Programs whose exposure it is."""
    filter: Annotated[tuple[str, ...], Several] | None = None
    """Names of the glass."""
    band: Annotated[tuple[str, ...], Several] | None = None
    """Short names of bands."""
    field: Annotated[tuple[FieldRange, ...], Several] | None = None
    """Numbers of fields and ranges of them: [12, 600-699]."""
    night: Literal["tonight", "earlier"] | None = None
    """Whether it belongs to the running night."""
    age: RangeOfSeconds | None = None
    """Since the shutter closed."""
    delay: RangeOfSeconds | None = None
    """From there until its file had come, whole: what waited for the link has a long one."""
    exposure_time: RangeOfSeconds | None = None
    """How long the shutter was open."""
    airmass: RangeOfNumbers | None = None
    """As the header tells it."""
    stars_per_deg2: RangeOfDensity | None = None
    """Stars of the reference catalog at its place."""
    target_of_opportunity: bool | None = None
    """Whether it interrupted the survey."""
    object: Annotated[tuple[str, ...], Several] | None = None
    """The header's name of the object; * stands for anything, case does not matter."""
    investigator: Annotated[tuple[str, ...], Several] | None = None
    """The header's principal investigator, likewise."""


class CalibrationSetWhen(Part):
    """Calibration frames came, and no more of their kind follow."""

    kinds: Annotated[tuple[Literal["bias", "dark", "flat"], ...], Several] = ("bias", "dark", "flat")
    """Kinds of frames that count."""
    quiet_for: Seconds = 600.0
    """A set is complete when no frame of its kind came for this long."""
    at_least: int = Field(default=1, ge=1)
    """Frames; smaller sets wait for more."""


class NightEdgeWhen(Part):
    """The night begins, or ends, as the section ``night`` tells."""

    before: Seconds = Field(default=0.0, ge=0)
    """So long before. It follows the sun, also where the observatory's signal tells the moment itself."""
    after: Seconds = Field(default=0.0, ge=0)
    """So long after."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.before and self.after:
            raise ValueError("before and after cannot both be given")
        return self


class GoodEpochsWhen(Part):
    """A field has so many exposures in a band that are fit for a reference."""

    reach: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Several]
    """Count, or several counts: it fires at each of them, once for each field and band."""


def _period(value: Any) -> str | float:
    """Return a period's name, or seconds."""
    if isinstance(value, str) and value in NAMED_PERIODS:
        return value
    try:
        seconds = number_in(value, u.s)
    except ValueError:
        raise ValueError(f"{value!r} is no period: write {', '.join(NAMED_PERIODS)}, or a duration: 6 h") from None
    if seconds < 60.0:
        raise ValueError(f"{value!r} is too short a period: a minute at least")
    return seconds


class EveryWhen(Part):
    """Time passes."""

    period: Annotated[str | float, BeforeValidator(_period)]
    """night, day, week, month, or a duration: 6 h, 10 days."""
    at: TimeOfDay | None = None
    """Local time of day, for periods of whole days."""
    weekday: Weekday | None = None
    """For weeks; monday unless told."""
    day: int | None = Field(default=None, ge=1, le=28)
    """Of the month; 1 unless told."""

    @model_validator(mode="after")
    def _parts_fit_the_period(self) -> Self:
        if self.weekday is not None and self.period != "week":
            raise ValueError("weekday goes with the period week")
        if self.day is not None and self.period != "month":
            raise ValueError("day goes with the period month")
        if self.at is not None and (self.period == "night" or (not self.is_named and float(self.period) % DAY_S)):
            raise ValueError("at goes with periods of whole days")
        return self

    @property
    def is_named(self) -> bool:
        """Whether the period is one of the calendar."""
        return isinstance(self.period, str)


class DiskWhen(Part):
    """A disk has little room left."""

    disk: Disk = "sandbox"
    """sandbox: that of the repository; archive: that of the second copy."""
    below: Gigabytes | None = None
    """Free space; unless told, the mark in the section operation.disks of survey.yaml."""
    again_after: Seconds = Field(default=21600.0, gt=0)
    """As long as there is little room, it fires this often."""


class IdleWhen(Part):
    """No exposure waited or was worked on for a while."""

    duration: Seconds = Field(default=1800.0, ge=0, alias="for")
    """For so long. It fires once; then again when something was done in between."""


def _bare_is(name: str) -> BeforeValidator:
    """Return a validator by which a bare value stands for a piece of one key: ``every: 6 h``, ``idle: 30 min``."""

    def spread(value: Any) -> Any:
        if value is None or value == {}:
            return {}
        return value if isinstance(value, dict | Part) else {name: value}

    return BeforeValidator(spread)


class When(Part):
    """What triggers a rule: one of these. A trigger without details is written as a word: ``when: night_ends``."""

    exposure: Annotated[ExposureWhen, _bare_is("type")] | None = None
    """An exposure was received."""
    calibration_set: Annotated[CalibrationSetWhen, _bare_is("kinds")] | None = None
    """Calibration frames came, and no more of their kind follow."""
    night_begins: Annotated[NightEdgeWhen, _bare_is("after")] | None = None
    """The night begins, as the section ``night`` tells."""
    night_ends: Annotated[NightEdgeWhen, _bare_is("after")] | None = None
    """The night ends."""
    signal: str | None = None
    """The observatory sent a signal of this name."""
    good_epochs: Annotated[GoodEpochsWhen, _bare_is("reach")] | None = None
    """A field has so many exposures in a band that are fit for a reference."""
    every: Annotated[EveryWhen, _bare_is("period")] | None = None
    """Time passes."""
    disk: Annotated[DiskWhen, _bare_is("disk")] | None = None
    """A disk has little room left."""
    idle: Annotated[IdleWhen, _bare_is("for")] | None = None
    """No exposure waited or was worked on for a while."""
    maintenance: Literal["begins", "ends"] | None = None
    """A planned downtime begins, or ends."""

    @model_validator(mode="before")
    @classmethod
    def _a_word_is_a_trigger(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in cls.model_fields or value in _WITH_DETAILS:
            words = ", ".join(name for name in cls.model_fields if name not in _WITH_DETAILS)
            raise ValueError(f"{value!r} is no trigger that stands alone; those are {words}")
        return {value: {}}

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            names = ", ".join(type(self).model_fields)
            raise ValueError(f"needs one trigger, has {' and '.join(given) or 'none'}; triggers are {names}")
        return self

    @property
    def kind(self) -> str:
        """The trigger's name."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def is_of_nights(self) -> bool:
        """Whether it comes once a night, and concerns that night."""
        is_nightly = self.every is not None and self.every.period == "night"
        return is_nightly or self.night_begins is not None or self.night_ends is not None


_WITH_DETAILS = ("signal", "good_epochs", "every", "maintenance")


class OnlyIf(Part):
    """What must hold besides, when a rule is due: it waits until it does, or until the next occasion."""

    received: RangeOfNumbers | None = None
    """Science exposures received in the night that it concerns."""
    idle: bool | None = None
    """Whether no exposure waits or is worked on."""
    sun_altitude: RangeOfDegrees | None = None
    """Altitude of the sun now: "> 0 deg" by day."""
    sandbox_free: RangeOfGigabytes | None = None
    """Free space of the repository's disk."""
    archive_free: RangeOfGigabytes | None = None
    """Free space of the archive's disk."""


class FallbackIf(Part):
    """What makes an exposure fall back; all that are given must hold."""

    stars_per_deg2: RangeOfDensity | None = None
    """Too crowded: "> 200000 / deg2" of stars of the reference catalog."""
    missing: Annotated[tuple[Literal["reference", "calibrations"], ...], Several] | None = None
    """reference: of a detector, in the exposure's band; calibrations: products that the camera needs."""
    age: RangeOfSeconds | None = None
    """Too old: since the shutter closed."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"needs a condition: {', '.join(type(self).model_fields)}")
        return self


class Fallback(Part):
    """What is done instead."""

    do: RecipeName
    """The recipe."""
    condition: FallbackIf = Field(alias="if")
    """Where it is taken."""


class RetryPart(Part):
    """How often and when an attempt that failed is made again."""

    attempts: int = Field(default=3, ge=1, le=100)
    """In all."""
    backoff: Seconds = Field(default=10.0, ge=0)
    """Before the second attempt; doubled before each further one, at most an hour."""

    @property
    def retry(self) -> Retry:
        """As the operator takes it."""
        return Retry(self.attempts, self.backoff)


Call = tuple[str, Arguments]
"""Name and arguments of what is run."""


def _call(item: Any) -> Call:
    if isinstance(item, str):
        return item, {}
    if isinstance(item, dict) and len(item) == 1:
        name, arguments = next(iter(item.items()))
        if isinstance(name, str) and (arguments is None or isinstance(arguments, dict)):
            return name, dict(arguments or {})
    raise ValueError(f"{item!r} is neither a name nor one name with its arguments: clean_sandbox: {{keep_nights: 30}}")


def _calls(value: Any) -> tuple[Call, ...]:
    return tuple(_call(item) for item in (value if isinstance(value, list | tuple) else [value]))


class Rule(Part):
    """What is done, and when."""

    name: str = Field(min_length=1, pattern=r"^[^@:\n]+$")
    """Unique; the ledger and reports call it so."""
    description: str = Field(min_length=1)
    """What it is for, in a sentence."""
    when: When
    """What triggers it."""
    only_if: OnlyIf | None = None
    """What must hold besides; not of rules for exposures, whose conditions stand in ``when``."""
    do: Annotated[tuple[Call, ...], BeforeValidator(_calls)] = Field(min_length=1)
    """For exposures a recipe (alerts, images, archive, calibration); else an action or several, one after the other."""
    otherwise: tuple[Fallback, ...] = ()
    """For exposures: what is done instead, and where; of those that apply the one that does least is taken."""
    priority: PriorityName | None = None
    """Unless told, exposures of the running night are ``tonight``, earlier ones ``backlog``, actions ``daytime``."""
    deadline: Seconds | None = Field(default=None, gt=0)
    """By when it should be done, from receipt or from firing; later is told in the report."""
    retry: RetryPart = RetryPart()
    """How often and when an attempt that failed is made again."""
    catch_up: Literal["all", "last", "none"] | None = None
    """After an absence, for moments that came meanwhile: ``all`` nights that had exposures, one after the other; the
    ``last`` moment; ``none``. Unless told, ``all`` where an action makes something of the night, else ``last``."""
    enabled: bool = True
    """false: it is kept and not used."""

    @model_validator(mode="after")
    def _can_be_caught_up(self) -> Self:
        if self.catch_up is not None and self.when.kind not in BY_THE_CLOCK:
            raise ValueError(f"catch_up is not for {self.when.kind}: it goes with {', '.join(sorted(BY_THE_CLOCK))}")
        if self.catch_up == "all" and not self.when.is_of_nights:
            raise ValueError(
                "catch_up: all goes with night_begins, night_ends and every: night; others have last, none"
            )
        return self

    @model_validator(mode="after")
    def _fits_its_trigger(self) -> Self:
        if self.when.exposure is None:
            if self.otherwise:
                raise ValueError("otherwise is for rules of exposures")
            return self
        if self.only_if is not None:
            raise ValueError("only_if is not for rules of exposures: their conditions stand in when.exposure")
        names = [recipe.value for recipe in Recipe]
        if len(self.do) != 1 or self.do[0][0] not in names or self.do[0][1]:
            raise ValueError(f"do: {_shown(self.do)} is no recipe; a rule of exposures has one of {', '.join(names)}")
        order = [names.index(name) for name in (self.do[0][0], *(item.do for item in self.otherwise))]
        if any(step < order[0] for step in order):
            raise ValueError(f"otherwise: does more than {self.do[0][0]}, which it is to fall back from")
        return self

    @property
    def fixed_priority(self) -> Priority | None:
        """As the operator takes it, where the rule tells one."""
        return None if self.priority is None else Priority[self.priority.upper()]


def _shown(calls: tuple[Call, ...]) -> str:
    return ", ".join(name if not arguments else f"{name} {arguments}" for name, arguments in calls)


class NightPart(Part):
    """When the night begins and ends."""

    sun_altitude: Degrees = Field(default=-12.0, ge=-30, le=10)
    """The night begins when the sun has sunk below, and ends when it has risen above."""
    by: Literal["sun", "signal", "either"] = "sun"
    """The sun; the observatory's signals night_begins and night_ends; or whichever comes first."""


def _moment(value: Any) -> datetime:
    """Return a date and time as written, with or without its offset from UTC."""
    try:
        return datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise ValueError(f"{value!r} is no date and time: write 2026-03-01 16:00, or 2026-03-01T16:00Z") from None


class MaintenancePart(Part):
    """A planned downtime."""

    start: Annotated[datetime, BeforeValidator(_moment)]
    """Local time, unless it tells its offset from UTC."""
    end: Annotated[datetime, BeforeValidator(_moment)]
    """Likewise."""
    reason: str = Field(min_length=1)
    """Told in status and report."""

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if (self.start.tzinfo is None) != (self.end.tzinfo is None):
            raise ValueError("start and end are both local, or both tell their offset from UTC")
        if self.end <= self.start:
            raise ValueError(f"ends at {self.end:%Y-%m-%d %H:%M}, before it starts")
        return self


class RulesFile(Part):
    """The whole file."""

    time_zone: str | None = None
    """Of local times: America/Los_Angeles; unless told, operation.alarms.time_zone of survey.yaml."""
    night: NightPart = NightPart()
    """When the night begins and ends."""
    maintenance: tuple[MaintenancePart, ...] = ()
    """Planned downtimes: nothing is begun during them, files still land."""
    rules: tuple[Rule, ...] = Field(min_length=1)
    """Of those for exposures the first that matches decides; of the others each that is due fires."""

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        if name is not None:
            time_zone_named(name)
        return name

    @field_validator("rules")
    @classmethod
    def _names_are_unique(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        names = [rule.name for rule in rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two rules are called {', '.join(map(repr, twice))}")
        return rules


def time_zone_named(name: str) -> ZoneInfo:
    """Return a time zone; ValueError if there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone: write America/Los_Angeles, Atlantic/Canary, UTC...") from None
