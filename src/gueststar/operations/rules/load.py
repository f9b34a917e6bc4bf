"""The rules of a survey: its own file, or those that ship."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from gueststar.core.errors import ConfigError
from gueststar.formats.plain_yaml import read_yaml
from gueststar.model.camera import Camera
from gueststar.operations.rules.action_names import KNOWN
from gueststar.operations.rules.book import RuleBook
from gueststar.operations.rules.grammar import Rule, RulesFile, time_zone_named
from gueststar.operations.rules.reading import Key, RulesText, parse, read_text
from gueststar.operations.rules.sun import NightTimes
from gueststar.store.operation_settings import OperationSettings

SHIPPED = Path(__file__).with_name("default.yaml")
"""The rules of a survey that has none of its own."""

OWN = "rules.yaml"
"""A survey's own file, in its folder."""


@dataclass(frozen=True)
class CheckedRules:
    """What a file of rules says, or what is wrong with it."""

    source: RulesText
    file: RulesFile | None
    complaints: tuple[str, ...] = ()


def rules_path(repo_root: Path, settings: OperationSettings) -> Path:
    """Return the file of rules that a survey follows."""
    if settings.rules is not None:
        return repo_root / settings.rules
    own = repo_root / OWN
    return own if own.exists() else SHIPPED


def load_rules(repo_root: Path, settings: OperationSettings) -> RuleBook:
    """Return the rules of the survey at ``repo_root``; ConfigError tells the first thing that is wrong with them."""
    camera = _camera_of(repo_root)
    path = rules_path(repo_root, settings)
    checked = check_rules(read_text(path, name_of(path)), camera)
    if checked.file is None:
        more = len(checked.complaints) - 1
        rest = f" (and {more} more: gueststar rules check {repo_root})" if more else ""
        raise ConfigError(checked.complaints[0] + rest)
    zone = time_zone_named(checked.file.time_zone or settings.alarms.time_zone)
    return RuleBook(
        checked.file, source=checked.source, nights=NightTimes(camera.site), zone=zone,
        low_marks={"sandbox": settings.disks.sandbox_low_gb, "archive": settings.disks.archive_low_gb},
    )  # fmt: skip


def check_rules(source: RulesText, camera: Camera) -> CheckedRules:
    """Return what a text says, and every complaint: also of names that the camera or the actions do not have."""
    parsed = parse(source)
    complaints = list(parsed.complaints)
    for number, rule in enumerate(parsed.file.rules if parsed.file else ()):
        for key, text in _unknown_names(rule, camera):
            path: Key = ("rules", number, *key)
            line = next((f":{parsed.lines[path[:n]]}" for n in (4, 3, 2) if path[:n] in parsed.lines), "")
            complaints.append(f"{source.name}{line}: rule {rule.name!r}: {'.'.join(key)}: {text}")
    return CheckedRules(source, None if complaints else parsed.file, tuple(complaints))


def _unknown_names(rule: Rule, camera: Camera) -> list[tuple[tuple[str, ...], str]]:
    """Return the keys and complaints of what a rule names and is not there."""
    if (when := rule.when.exposure) is None:
        unknown = [f"{name!r} is no action{_nearest(name)}" for name, _ in rule.do if name not in KNOWN]
        return [(("do",), text) for text in unknown + _wrong_arguments(rule)]
    glasses = {name for item in camera.filters for name in (item.physical_filter, *item.aliases)}
    bands = {item.band for item in camera.filters}
    return [
        (("when", "exposure", key), f"{name!r} is no {key} of camera {camera.name}; one of {', '.join(sorted(there))}")
        for key, wanted, there in (("filter", when.filter, glasses), ("band", when.band, bands))
        for name in wanted or () if name not in there
    ]  # fmt: skip


def _wrong_arguments(rule: Rule) -> list[str]:
    if not any(arguments for _, arguments in rule.do):
        return []
    from gueststar.operations.actions.argument_models import wrong_arguments  # imports all actions, which few need

    return [f"{name}: {text}" for name, arguments in rule.do for text in wrong_arguments(name, arguments)]


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, KNOWN, n=1)
    return f"; did you mean {close[0]}?" if close else f"; one of {', '.join(sorted(KNOWN))}"


def name_of(path: Path) -> str:
    """Return how messages call a file of rules."""
    return "the shipped rules" if path == SHIPPED else path.name


def _camera_of(repo_root: Path) -> Camera:
    try:
        return Camera.model_validate(read_yaml((repo_root / "camera.yaml").read_text()))
    except OSError as problem:
        raise ConfigError(f"{repo_root} is not a survey repository: {problem}") from None
