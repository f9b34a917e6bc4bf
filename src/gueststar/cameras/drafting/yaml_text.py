"""A drafted description as YAML, with a comment on every value that no card says."""

from __future__ import annotations

from typing import Any

import yaml

from gueststar.cameras.drafting.guess import Guess, plain

_MOST_IN_A_LINE = 6


def yaml_text(description: dict[str, Any]) -> str:
    """Return YAML of a nested description; guesses that were not read from a card carry a comment."""
    return "\n".join(_mapping(description, 0)) + "\n"


def _mapping(mapping: dict[str, Any], depth: int) -> list[str]:
    lines = []
    for key, value in mapping.items():
        name = f"{'  ' * depth}{_inline(key)}:"
        inner = value.value if isinstance(value, Guess) else value
        if isinstance(inner, dict) and inner and not _is_flat(inner):
            lines += [f"{name}{_comment(value)}", *_mapping(inner, depth + 1)]
        elif isinstance(inner, list) and inner and isinstance(plain(inner[0]), dict):
            lines += [f"{name}{_comment(value)}", *_sequence(inner, depth + 1)]
        else:
            lines.append(f"{name} {_inline(plain(inner))}{_comment(value)}")
    return lines


def _sequence(items: list[Any], depth: int) -> list[str]:
    lines = []
    for item in items:
        inner = _mapping(item, depth + 1)
        first = inner[0].lstrip()
        lines += [f"{'  ' * depth}- {first}", *inner[1:]]
    return lines


def _is_flat(mapping: dict[str, Any]) -> bool:
    """Whether a mapping is short and free of guesses and structure, to be written in one line."""
    is_simple = all(isinstance(value, str | int | float | bool) or value is None for value in mapping.values())
    return is_simple and len(mapping) <= _MOST_IN_A_LINE


def _inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return str(text).removesuffix("\n").removesuffix("...").removesuffix("\n")


def _comment(value: Any) -> str:
    if not isinstance(value, Guess) or value.sureness == "read":
        return ""
    return f"  # {value.sureness}: {value.source}"
