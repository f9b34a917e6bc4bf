"""What an action is: a function of a survey and a night that says what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gueststar.store.repo import SurveyRepo

ActionState = Literal["done", "nothing", "unavailable", "failed"]


@dataclass(frozen=True)
class ActionContext:
    """What an action works with."""

    repo: SurveyRepo
    night: int
    """The night it concerns, YYYYMMDD."""
    now: float
    """Unix time."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """As the rule gives them."""
    is_dry: bool = False
    """Say what would be done, and do nothing."""


@dataclass(frozen=True)
class Condition:
    """Something that an action looked at: whoever runs actions raises or settles an alarm by it."""

    kind: str
    """A word of the playbook: disk_low, archive_away..."""
    subject: str
    """With what: a disk, a night, a field."""
    is_wrong: bool
    """Whether an alarm stands for it; else one that stood is settled."""
    text: str
    """One line: what is wrong and what to do."""
    severity: Literal["notice", "warning", "critical"] = "warning"


@dataclass(frozen=True)
class ActionResult:
    """What an action did."""

    state: ActionState
    """It did something; there was nothing to do; the pipeline for it is not part of this version; it failed."""
    text: str
    """One line."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Figures, JSON-able."""
    conditions: tuple[Condition, ...] = ()
    """What it looked at, wrong or not."""
    is_last: bool = False
    """What follows it in the same rule is without purpose: it is left out, and the account says why."""


class Action(Protocol):
    """A function that rules name. It may raise the errors of `gueststar.core.errors`: the operator writes them down."""

    def __call__(self, context: ActionContext) -> ActionResult:
        """Do it."""
        ...
