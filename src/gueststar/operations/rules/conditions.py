"""Conditions of rules, one by one, each with the value that it met: for deciding and for explaining."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from gueststar.operations.rules.contract import ExposureFacts, SurveyFacts
from gueststar.operations.rules.grammar import ExposureWhen, FallbackIf, FieldRange, OnlyIf
from gueststar.operations.rules.quantities import Range, duration_text


@dataclass(frozen=True)
class Finding:
    """One condition, and what it met."""

    condition: str
    """Its key."""
    wanted: str
    found: str
    holds: bool

    def __str__(self) -> str:
        met = f"{self.condition} {self.found}".rstrip()
        return f"{met} {'is' if self.holds else 'is not'} {self.wanted}"


def exposure_findings(when: ExposureWhen, facts: ExposureFacts) -> Iterator[Finding]:
    """Yield every condition that a rule puts to an exposure."""
    for name, check in _OF_EXPOSURE.items():
        wanted = getattr(when, name)
        if wanted is not None:
            found, holds = check(wanted, facts)
            yield Finding(name, wanted_text(wanted), found, holds)


def fallback_findings(condition: FallbackIf, facts: ExposureFacts) -> Iterator[Finding]:
    """Yield every condition under which an exposure falls back."""
    if condition.stars_per_deg2 is not None:
        found, holds = _stars(condition.stars_per_deg2, facts)
        yield Finding("stars_per_deg2", str(condition.stars_per_deg2), found, holds)
    if condition.age is not None:
        found, holds = _age(condition.age, facts)
        yield Finding("age", str(condition.age), found, holds)
    for name in condition.missing or ():
        is_there = facts.has_reference if name == "reference" else facts.has_calibrations
        yield Finding(name, "missing", "", not is_there)


def survey_findings(only_if: OnlyIf, facts: SurveyFacts, night: int) -> Iterator[Finding]:
    """Yield every condition that must hold besides, of a firing that concerns ``night``."""
    numbers: list[tuple[str, Range | None, float | None, str]] = [
        ("received", only_if.received, _received(facts, night), ""),
        ("sun_altitude", only_if.sun_altitude, facts.sun_altitude_deg, " deg"),
        ("sandbox_free", only_if.sandbox_free, facts.free_gb.get("sandbox"), " GB"),
        ("archive_free", only_if.archive_free, facts.free_gb.get("archive"), " GB"),
    ]
    for name, wanted, value, unit in numbers:
        if wanted is not None:
            found = "unknown" if value is None else f"{value:.4g}{unit}"
            yield Finding(name, str(wanted), found, value in wanted)
    if only_if.idle is not None:
        yield Finding("idle", wanted_text(only_if.idle), wanted_text(facts.is_idle), facts.is_idle is only_if.idle)


def _received(facts: SurveyFacts, night: int) -> float | None:
    """Return the science exposures of a night; None where the facts do not tell."""
    return facts.received_by_night.get(night, facts.received if night == facts.night else None)


def wanted_text(value: Any) -> str:
    """Return what a condition asks for, as it may be written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return (
            " or ".join(f"{a}-{b}" if a != b else str(a) for a, b in value) if _is_ranges(value) else " or ".join(value)
        )
    return str(value)


def _is_ranges(value: tuple[Any, ...]) -> bool:
    return bool(value) and isinstance(value[0], tuple)


Check = Callable[[Any, ExposureFacts], tuple[str, bool]]


def _one_of(value: str | None, wanted: tuple[str, ...]) -> tuple[str, bool]:
    return value or "none", value in wanted


def _like(value: str, wanted: tuple[str, ...]) -> tuple[str, bool]:
    return repr(value), any(fnmatchcase(value.lower(), pattern.lower()) for pattern in wanted)


def _field(wanted: tuple[FieldRange, ...], facts: ExposureFacts) -> tuple[str, bool]:
    field = facts.exposure.info.field
    return str(field or "none"), field is not None and any(first <= field <= last for first, last in wanted)


def _age(wanted: Range, facts: ExposureFacts) -> tuple[str, bool]:
    return duration_text(facts.age_s), facts.age_s in wanted


def _delay(wanted: Range, facts: ExposureFacts) -> tuple[str, bool]:
    return duration_text(facts.delay_s), facts.delay_s in wanted


def _stars(wanted: Range, facts: ExposureFacts) -> tuple[str, bool]:
    density = facts.stars_per_deg2
    return "not known" if density is None else f"{density:.0f} / deg2", density in wanted


def _night(wanted: str, facts: ExposureFacts) -> tuple[str, bool]:
    found = "tonight" if is_of_tonight(facts) else "earlier"
    return found, found == wanted


def is_of_tonight(facts: ExposureFacts) -> bool:
    """Return whether an exposure belongs to the running night; one of the future (a wrong clock) does."""
    return facts.exposure.info.day_obs >= facts.night


def _airmass(wanted: Range, facts: ExposureFacts) -> tuple[str, bool]:
    airmass = facts.exposure.info.airmass
    return "not known" if airmass is None else f"{airmass:.3g}", airmass in wanted


def _interrupted(wanted: bool, facts: ExposureFacts) -> tuple[str, bool]:
    did = facts.exposure.info.is_target_of_opportunity
    return wanted_text(did), did is wanted


def _open_for(wanted: Range, facts: ExposureFacts) -> tuple[str, bool]:
    seconds = facts.exposure.info.exposure_s
    return duration_text(seconds), seconds in wanted


_OF_EXPOSURE: Mapping[str, Check] = {
    "type": lambda wanted, facts: _one_of(facts.exposure.info.observation_type, wanted),
    "program": lambda wanted, facts: _one_of(facts.exposure.info.program.name.lower(), wanted),
    "filter": lambda wanted, facts: _one_of(facts.exposure.info.physical_filter, wanted),
    "band": lambda wanted, facts: _one_of(facts.exposure.info.band, wanted),
    "field": _field,
    "night": _night,
    "age": _age,
    "delay": _delay,
    "exposure_time": _open_for,
    "airmass": _airmass,
    "stars_per_deg2": _stars,
    "target_of_opportunity": _interrupted,
    "object": lambda wanted, facts: _like(facts.exposure.info.object_name, wanted),
    "investigator": lambda wanted, facts: _like(facts.exposure.info.principal_investigator, wanted),
}
"""Key -> what tells the value and whether it is as wanted."""
