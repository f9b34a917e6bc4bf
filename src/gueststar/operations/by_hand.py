"""Actions of rules run by a person: the same functions, with arguments from the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from gueststar.core.errors import ConfigError
from gueststar.operations.actions.catalog import ACTIONS
from gueststar.operations.actions.contract import ActionResult
from gueststar.operations.rules.action_names import HOUSEKEEPING, PIPELINES
from gueststar.operations.second_copy import context_by_hand
from gueststar.store.repo import SurveyRepo


def action_lines() -> list[str]:
    """Return the actions that a person may run, with what each does."""
    return [f"{name:<24} {HOUSEKEEPING.get(name, '')}".rstrip() for name in sorted(ACTIONS)]


def run_action(
    repo: SurveyRepo, name: str, arguments: Iterable[str] = (), *, now: float, night: int | None = None,
    is_dry: bool = False,
) -> ActionResult:  # fmt: skip
    """Run an action for a night (default: the last one that has exposures); ConfigError for one that there is not."""
    if name in PIPELINES:
        raise ConfigError(f"{name} goes through the operator's queue: gueststar operate, or gueststar process")
    if name not in ACTIONS:
        raise ConfigError(f"there is no action {name!r}; actions are {', '.join(sorted(ACTIONS))}")
    return ACTIONS[name](context_by_hand(repo, _parsed(arguments), now=now, night=night, is_dry=is_dry))


def _parsed(words: Iterable[str]) -> dict[str, Any]:
    """Return ``name=value`` words as a rule's file would give them."""
    found: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise ConfigError(f"{word!r} is not of the form argument=value")
        found[name] = yaml.safe_load(value)
    return found
