"""A drafted value that knows where it came from, and a description made of such values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Sureness = Literal["read", "inferred", "assumed"]


@dataclass(frozen=True)
class Guess:
    """A value for a camera's description."""

    value: Any
    source: str
    """Where it came from, in a few words."""
    sureness: Sureness = "read"
    """read: a card says so; inferred: from other cards or pixels; assumed: nothing says so, a person must look."""


def plain(item: Any) -> Any:
    """Return a description with every guess replaced by its value."""
    if isinstance(item, Guess):
        return plain(item.value)
    if isinstance(item, dict):
        return {key: plain(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [plain(value) for value in item]
    return item


def guesses_in(item: Any, key: str = "") -> Iterator[tuple[str, Guess]]:
    """Return every guess of a description with its dotted key, in order."""
    if isinstance(item, Guess):
        yield key, item
    elif isinstance(item, dict):
        for name, value in item.items():
            yield from guesses_in(value, f"{key}.{name}" if key else str(name))
    elif isinstance(item, list | tuple):
        for number, value in enumerate(item):
            yield from guesses_in(value, f"{key}.{number}")
