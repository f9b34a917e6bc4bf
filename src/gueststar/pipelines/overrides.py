"""Configuration only overrides defaults: dictionaries onto parameter dataclasses, unknown keys refused."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from enum import IntFlag
from typing import Any, TypeVar

from gueststar.core.bits import names_of
from gueststar.core.errors import ConfigError

T = TypeVar("T")


def with_overrides(config: T, overrides: Mapping[str, Any], *, where: str) -> T:
    """Return the dataclass instance ``config`` with some fields replaced.

    Nested dataclasses take nested mappings. ``where`` names the section in messages. Raises ConfigError
    for an unknown key (with the nearest known one) or a value of another type than the default's.
    """
    known = {f.name: f for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for key, value in overrides.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(sorted(known))}"
            raise ConfigError(f"{where} has no parameter {key!r}{hint}")
        default = getattr(config, key)
        if dataclasses.is_dataclass(default) and isinstance(value, Mapping):
            changes[key] = with_overrides(default, value, where=f"{where}.{key}")
        else:
            changes[key] = _checked(value, hints[key], where=f"{where}.{key}")
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def as_plain(config: Any) -> Any:
    """Return a parameter dataclass as plain values, to be recorded with a product."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: as_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, IntFlag):
        return names_of(int(config), type(config))
    if isinstance(config, tuple | list):
        return [as_plain(item) for item in config]
    if isinstance(config, Mapping):
        return {str(key): as_plain(value) for key, value in config.items()}
    return config


def _checked(value: Any, hint: Any, *, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        for option in typing.get_args(hint):
            try:
                return _checked(value, option, where=where)
            except ConfigError:
                continue
        raise ConfigError(f"{where} = {value!r} is not of type {hint}")
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise ConfigError(f"{where} = {value!r} is none of {', '.join(map(repr, typing.get_args(hint)))}")
        return value
    if isinstance(hint, type) and issubclass(hint, IntFlag):
        return _flags(value, hint, where=where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = origin or hint
    if plain is type(None):
        plain = type(None)
    if isinstance(plain, type) and (not isinstance(value, plain) or (isinstance(value, bool) and plain is int)):
        raise ConfigError(f"{where} = {value!r} is not of type {getattr(hint, '__name__', hint)}")
    return value


def _flags(value: Any, kind: type[IntFlag], *, where: str) -> IntFlag:
    """Return the union of bits given by their names."""
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where} = {value!r} is not a list of names such as [{next(iter(kind)).name}]")
    total = kind(0)
    for name in value:
        if name not in kind.__members__:
            raise ConfigError(f"{where}: no bit {name!r}; known: {', '.join(kind.__members__)}")
        total |= kind[name]
    return total
