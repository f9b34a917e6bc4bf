"""How far rules wanted each exposure processed, and why not further."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gueststar.model.rights import Program
from gueststar.operations.report.account import Fate, NightAccount, Unit
from gueststar.operations.report.expected import Expected
from gueststar.operations.rules.record import DECISION
from gueststar.store.ledger import Event

_MOST_LINES = 12


@dataclass(frozen=True)
class Decided:
    """What a rule decided of an exposure."""

    rule: str
    recipe: str
    """alerts, images or archive."""
    why: str
    """What was missing, where it is a fallback."""


def decisions_of(events: Iterable[Event]) -> dict[int, Decided]:
    """Return exposure -> the last decision on it, from the diary's entries of rules."""
    found: dict[int, Decided] = {}
    for event in events:
        if event.what == DECISION and event.subject.isdigit():
            rule, recipe, why = (str(event.data.get(name) or "") for name in ("rule", "recipe", "why"))
            found[int(event.subject)] = Decided(rule, recipe, why)
    return found


@dataclass(frozen=True)
class Share:
    """The account of one program or field."""

    name: str
    expected: int
    """Exposures that lists tell of; 0 without a list."""
    exposures: int
    """Received."""
    missing: int
    fates: dict[str, int]
    """Fate -> detector images."""
    recipes: dict[str, int]
    """Recipe -> exposures; empty where no rules decided."""

    @property
    def is_plain(self) -> bool:
        """Whether all of it came, and was processed as far as to alerts."""
        return (
            not self.missing and not self.fates.keys() - {Fate.PROCESSED.value} and not self.recipes.keys() - {"alerts"}
        )


def shares_of(
    account: NightAccount, expected: Expected | None, decided: Mapping[int, Decided], what: str
) -> tuple[Share, ...]:
    """Return the account by ``program`` or by ``field``, science exposures only, the largest first."""
    groups: dict[str, list[Unit]] = {}
    for unit in account.units:
        if unit.exposure.info.observation_type == "science":
            groups.setdefault(_name_of(unit, what), []).append(unit)
    missing = expected.missing_by(what) if expected else Counter[str]()
    matched = _matched_by(expected, groups)
    names = sorted(groups.keys() | missing.keys(), key=lambda name: (-len(groups.get(name, ())), name))
    return tuple(_share(name, groups.get(name, []), missing[name], matched[name], decided) for name in names)


def _matched_by(expected: Expected | None, groups: Mapping[str, Sequence[Unit]]) -> Counter[str]:
    """Return how many received exposures of each group were expected."""
    known = {exposure for _, exposure in expected.matched} if expected else set()
    return Counter({name: len({unit.exposure.id for unit in units} & known) for name, units in groups.items()})


def _name_of(unit: Unit, what: str) -> str:
    info = unit.exposure.info
    if what == "program":
        return Program(info.program).name.lower()
    return "no field" if info.field is None else str(info.field)


def _share(name: str, units: Sequence[Unit], missing: int, matched: int, decided: Mapping[int, Decided]) -> Share:
    exposures = {unit.exposure.id for unit in units}
    fates = Counter(unit.fate for unit in units)
    recipes = Counter(decided[number].recipe for number in exposures if number in decided)
    counts = {fate.value: fates[fate] for fate in Fate if fates[fate]}
    return Share(name, matched + missing, len(exposures), missing, counts, dict(recipes))


def fallbacks(account: NightAccount, decided: Mapping[int, Decided]) -> list[tuple[str, str, int]]:
    """Return (recipe, why, exposures) of those that were processed less far than to alerts, most frequent first."""
    received = {unit.exposure.id for unit in account.units}
    found = Counter(
        (one.recipe, one.why or f"as rule {one.rule} says")
        for number, one in decided.items()
        if number in received and one.recipe in ("images", "archive")
    )
    return [(recipe, why, n) for (recipe, why), n in found.most_common()]


def share_lines(shares: Sequence[Share], what: str) -> list[str]:
    """Return a table of text; none for a single row that says nothing new."""
    if len(shares) < 2 and not any(share.missing or share.recipes for share in shares):
        return []
    lines = [f"by {what:<12}{'expected':>10}{'received':>10}{'missing':>9}   detector images"]
    shown = shares if len(shares) <= _MOST_LINES else [share for share in shares if not share.is_plain][:40]
    for share in shown:
        fates = ", ".join(f"{n} {fate}" for fate, n in share.fates.items())
        recipes = "".join(f"; {n} exposures to {recipe}" for recipe, n in share.recipes.items() if recipe != "alerts")
        wanted = str(share.expected) if share.expected else "-"
        lines.append(f"   {share.name:<12}{wanted:>10}{share.exposures:>10}{share.missing:>9}   {fates}{recipes}")
    if left := len(shares) - len(shown):
        plain = all(share.is_plain for share in shares if share not in shown)
        lines.append(f"   {left} more" + (", of which all is processed" if plain else ""))
    return lines


def shares_as_json(shares: Sequence[Share]) -> list[dict[str, Any]]:
    """Return them as JSON-able values."""
    return [vars(share) for share in shares]
