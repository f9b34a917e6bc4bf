"""Arguments of actions as rules give them: checked, with an error that names the action and the key."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from gueststar.core.errors import ConfigError
from gueststar.operations.actions.contract import ActionContext


class Arguments(BaseModel):
    """What a rule may tell an action; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Given = TypeVar("_Given", bound=Arguments)


def arguments_of(context: ActionContext, kind: type[_Given], *, action: str) -> _Given:
    """Return the arguments of a context; ConfigError names the first one that is wrong."""
    try:
        return kind.model_validate(dict(context.arguments))
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(key) for key in first["loc"])
        known = ", ".join(kind.model_fields) or "none"
        raise ConfigError(f"action {action}: argument {where!r}: {first['msg']}; arguments are {known}") from None
