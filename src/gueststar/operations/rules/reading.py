"""Reading rules.yaml: as people write YAML, with the line of every complaint."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gueststar.core.errors import ConfigError
from gueststar.operations.rules.grammar import RulesFile

Key = tuple[str | int, ...]
"""Where something stands: ("rules", 3, "when")."""


@dataclass(frozen=True)
class RulesText:
    """A file of rules as it stands on disk."""

    name: str
    """As messages call it."""
    text: str

    @property
    def sha256(self) -> str:
        """Of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class _Plain(yaml.SafeLoader):
    """YAML whose words are words: ``on`` is no truth value, ``14:00`` no number and a date no object."""


_Plain.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|false|False", "tTfF"),
    ("null", r"~|null|", ["~", "n", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Plain.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read_text(path: Path, name: str | None = None) -> RulesText:
    """Return a file's text; ConfigError if it cannot be read."""
    try:
        return RulesText(name or path.name, path.read_text())
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path}: the rules cannot be read: {problem}") from None


@dataclass(frozen=True)
class Parsed:
    """What a text of rules says, or what is wrong with it."""

    file: RulesFile | None
    complaints: tuple[str, ...]
    """File, line, rule and key of each."""
    lines: Mapping[Key, int]
    """Where in the text everything stands, from 1."""


def parse(source: RulesText) -> Parsed:
    """Return what a text of rules says: the rules, or every complaint."""
    try:
        node = yaml.compose(source.text, Loader=_Plain)
        values = yaml.load(source.text, Loader=_Plain)
    except yaml.YAMLError as problem:
        return Parsed(None, (_of_yaml(source.name, problem),), {})
    lines = dict(_lines(node, ()))
    if not isinstance(values, dict):
        return Parsed(None, (f"{source.name}: holds no rules: it begins with 'rules:'",), lines)
    complaints = [f"{source.name}:{line}: {_place(values, key)}is written twice" for key, line in _twice(node, ())]
    file = None
    try:
        file = RulesFile.model_validate(values)
    except ValidationError as problem:
        errors = problem.errors()
        told = [item for item in errors if item["type"] != "too_short"] or errors  # a list is short of its wrong items
        complaints += [_complaint(source.name, values, lines, item) for item in told]
    return Parsed(None if complaints else file, tuple(complaints), lines)


def _of_yaml(name: str, problem: yaml.YAMLError) -> str:
    mark = getattr(problem, "problem_mark", None)
    what = getattr(problem, "problem", None) or str(problem).splitlines()[0]
    return f"{name}{f':{mark.line + 1}' if mark else ''}: this is not YAML: {what}"


def _lines(node: yaml.Node | None, key: Key) -> Iterator[tuple[Key, int]]:
    """Yield the line, from 1, of everything that has a key."""
    if node is None:
        return
    yield key, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _lines(value, (*key, name.value))
            yield (*key, name.value), name.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _lines(value, (*key, number))


def _twice(node: yaml.Node | None, key: Key) -> Iterator[tuple[Key, int]]:
    """Yield the keys that stand twice in the same place, of which YAML would take the last."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            if name.value in seen:
                yield (*key, name.value), name.start_mark.line + 1
            seen.add(name.value)
            yield from _twice(value, (*key, name.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _twice(value, (*key, number))


def _complaint(name: str, values: Any, lines: dict[Key, int], error: ErrorDetails) -> str:
    key = error["loc"]
    line = next((lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in lines), None)
    return f"{name}{f':{line}' if line else ''}: {_place(values, key)}{_words(error)}"


def _place(values: Any, key: Sequence[str | int]) -> str:
    """Return where a key stands, as people say it: the rule by its name, then the path within."""
    if len(key) >= 2 and key[0] == "rules" and isinstance(key[1], int):
        rule = values["rules"][key[1]]
        called = rule.get("name") if isinstance(rule, dict) else None
        told = f"rule {called!r}: " if called else f"rule number {key[1] + 1}: "
        rest = key[2:]
    else:
        told, rest = "", key
    if rest and isinstance(rest[-1], int) and not isinstance(_at(values, key[:-1]), list):
        rest = rest[:-1]  # one value stands for a list of one
    path = ".".join(str(part + 1) if isinstance(part, int) else part for part in rest)
    return told + (f"{path}: " if path else "")


def _at(values: Any, key: Sequence[str | int]) -> Any:
    """Return what stands at a key; None where nothing does."""
    for part in key:
        if isinstance(values, dict):
            values = values.get(part)
        else:
            values = values[part] if isinstance(values, list) and isinstance(part, int) else None
    return values


def _words(error: ErrorDetails) -> str:
    """Return a complaint in words that tell the value and the mend."""
    kind, context, given = error["type"], error.get("ctx") or {}, error["input"]
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "is no key here" + _nearest(str(error["loc"][-1]), _keys_beside(error["loc"]))
    if kind == "literal_error":
        known = [word.strip("' ") for word in re.split(r",| or ", str(context["expected"])) if word.strip("' ")]
        noun = next((str(part) for part in reversed(error["loc"]) if isinstance(part, str)), "value")
        return f"{given!r} is no {noun}; one of {', '.join(known)}"
    text = error["msg"][0].lower() + error["msg"][1:]
    return f"{given!r}: {text}" if isinstance(given, str | int | float | bool) or given is None else text


def _keys_beside(key: Sequence[str | int]) -> list[str]:
    """Return the keys that may stand where an unknown one does."""
    model: Any = RulesFile
    for part in key[:-1]:
        if isinstance(part, str):
            model = _model_of(model, part)
    if model is None:
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_of(model: Any, name: str) -> Any:
    """Return the model of a field of a model, looking through optional, annotated and repeated ones."""
    if model is None:
        return None
    fields = {field.alias or known: field for known, field in model.model_fields.items()}
    pending = [fields[name].annotation] if name in fields else []
    while pending:
        item = pending.pop()
        if hasattr(item, "model_fields"):
            return item
        pending += list(getattr(item, "__args__", ()))
    return None


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; keys are {', '.join(known)}" if known else ""
